"""The store: claims, records, the index, and disks that fail."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from sfumato import claims, config
from sfumato.errors import StoreError
from sfumato.executors.local import LocalExecutor
from sfumato.index import Index
from sfumato.records import ComponentRef, RunRecord, RunSpec, Status
from sfumato.runner import plan, sweep
from sfumato.store import Owner, Store, run_id_of, write_atomic


def spec_of(k=0):
    return RunSpec(ComponentRef("a/task"), ComponentRef("a/solver"), seed=k)


def put(store, k=0, status=Status.OK, **more):
    """Put a record in the store; return its id."""
    spec = spec_of(k)
    run_id = run_id_of(spec)
    store.write_spec(run_id, spec)
    store.put_record(RunRecord(run_id, spec, status, label="a/task a/solver", **more))
    return run_id


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, 4 MB; its mount options can be changed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


# ---------------------------------------------------------------- claims


CLAIM = """
import errno, os, sys, time
from pathlib import Path
root, name, links, rounds, n = sys.argv[1], sys.argv[2], sys.argv[3] == "links", int(sys.argv[4]), int(sys.argv[5])
if not links:
    def link(*names, **more):
        raise OSError(errno.EPERM, "no hard links here")
    os.link = link
    def slow(path, mode="r", *more, quick=Path.open, **named):  # a slow disk: created, and empty for a while
        file = quick(path, mode, *more, **named)
        time.sleep(0.005 if "x" in mode else 0)
        return file
    Path.open = slow
from sfumato.store import Store
store = Store(root)
meeting = Path(root, "meeting")
for k in range(rounds):
    (meeting / f"{k}-{name}").touch()
    while sum(p.name.startswith(f"{k}-") for p in meeting.iterdir()) < n:
        time.sleep(0.0005)
    owner = store.claim(f"{k:016x}", attempt=2)
    with (meeting / f"answers {name}").open("a") as answers:
        answers.write(f"{owner.pid if owner else os.getpid()} {owner is None}\\n")
time.sleep(60)  # an owner that is gone has no claims
"""


@pytest.mark.parametrize("left", ["nothing", "the claim of the dead"])
@pytest.mark.parametrize("links", ["links", "no links"])
def test_of_many_processes_that_claim_a_run_one_gets_it_and_all_know_which(store, links, left):
    """Four of them, in twenty rounds, each a run; also where there are no hard links, and when all take it over."""
    n, rounds = 4, 20
    (store.root / "meeting").mkdir()
    dead = {"host": Owner.me().host, "pid": 2**22 - 1, "start_time": 1, "boot_id": Owner.me().boot_id,
            "namespace": Owner.me().namespace}  # fmt: skip
    for k in range(rounds):
        folder = store.write_spec(f"{k:016x}", spec_of(k))
        if left != "nothing":
            (folder / "claim.json").write_text(json.dumps({"owner": dead, "attempt": 1, "label": "", "code": {}}))
    words = [[sys.executable, "-c", CLAIM, store.root, str(k), links, str(rounds), str(n)] for k in range(n)]
    processes = [subprocess.Popen(w, stderr=subprocess.PIPE) for w in words]
    try:
        files = [store.root / "meeting" / f"answers {k}" for k in range(n)]
        deadline = time.monotonic() + 60
        while not all(f.exists() and f.read_text().count("\n") == rounds for f in files):
            assert all(p.poll() is None for p in processes), [p.communicate()[1] for p in processes if p.poll()]
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for p in processes:
            p.kill()
            p.communicate()
    answers = list(zip(*(f.read_text().splitlines() for f in files), strict=True))
    owners = [[int(a.split()[0]) for a in line if a.endswith("True")] for line in answers]
    assert [len(o) for o in owners] == [1] * rounds
    assert [{int(a.split()[0]) for a in line} for line in answers] == [set(o) for o in owners]
    assert len({o[0] for o in owners}) > 1  # else it was no race
    if left != "nothing":
        assert all(store.record(f"{k:016x}").status is Status.INTERRUPTED for k in range(rounds))
        assert {store.record(f"{k:016x}").attempt for k in range(rounds)} == {1}


def test_a_reused_pid_is_not_taken_for_the_owner():
    """The start time tells them apart."""
    me = Owner.me()
    assert me.alive() is True
    assert Owner(me.host, me.pid, me.start_time + 1, me.boot_id, me.namespace).alive() is False
    with subprocess.Popen(["true"]) as gone:
        time.sleep(0.1)
        zombie = Owner(me.host, gone.pid, 1, me.boot_id, me.namespace)
        assert zombie.alive() is False


@pytest.mark.parametrize("changed", ["host", "boot_id", "namespace"])
def test_an_owner_elsewhere_is_told_by_its_lease(store, changed):
    """Another host, another boot, another container: no pid to ask; a claim that was not touched has lost its owner."""
    run_id = run_id_of(spec_of())
    folder = store.write_spec(run_id, spec_of())
    assert store.claim(run_id) is None
    path = folder / "claim.json"
    claim = json.loads(path.read_text())
    claim["owner"][changed] += "-elsewhere"
    path.write_text(json.dumps(claim))
    assert store.status(run_id) == "running"
    assert store.claim(run_id) is not None
    past = time.time() - claims.LEASE_SECONDS - 1
    os.utime(path, (past, past))
    assert store.status(run_id) == "interrupted"
    claims.touch(path)
    assert store.status(run_id) == "running"
    os.utime(path, (past, past))
    assert store.claim(run_id, attempt=2) is None
    assert "no sign of life for 60 s" in store.record(run_id).error


def test_a_heartbeat_keeps_a_lease(store, monkeypatch):
    """It touches the file while the owner works; and it tells when the claim has become another's."""
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.02)
    run_id = run_id_of(spec_of())
    path = store.write_spec(run_id, spec_of()) / "claim.json"
    assert store.claim(run_id) is None
    os.utime(path, (0, 0))
    lost = threading.Event()
    with claims.heartbeat(path, lost):
        deadline = time.monotonic() + 30
        while time.time() - path.stat().st_mtime >= 60:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not lost.is_set()
        claim = json.loads(path.read_text())
        claim["owner"]["host"] += "-elsewhere"
        write_atomic(path, json.dumps(claim))
        assert lost.wait(10)
    store.release(run_id)
    assert path.exists()


def test_a_foreign_file_for_a_claim_is_taken_over(store):
    """It names no owner."""
    run_id = run_id_of(spec_of())
    for text in ("", "{}", "[1]", "null", '{"owner": {"pid": 1}}'):
        (store.write_spec(run_id, spec_of()) / "claim.json").write_text(text)
        assert store.claim(run_id) is None
        store.release(run_id)
    (store.folder(run_id) / "claim.json").symlink_to("nowhere")
    done = subprocess.run(
        [sys.executable, "-c", f"from sfumato.store import Store; print(Store({str(store.root)!r}).claim({run_id!r}))"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == "None\n"


# ---------------------------------------------------------------- records


@pytest.mark.parametrize("text", ["", "{", '{"foreign": 1}', "[]", "another"])
def test_a_specification_that_is_empty_or_foreign_is_written_anew(store, text):
    """A power cut leaves such files; the run can be made all the same, and a claim of the dead taken over."""
    run_id = run_id_of(spec_of())
    folder = store.write_spec(run_id, spec_of())
    if text == "another":
        text = (store.write_spec(run_id_of(spec_of(1)), spec_of(1)) / "spec.json").read_text()
    (folder / "spec.json").write_text(text)
    dead = {"host": Owner.me().host, "pid": 2**22 - 1, "start_time": 1, "boot_id": Owner.me().boot_id,
            "namespace": Owner.me().namespace}  # fmt: skip
    (folder / "claim.json").write_text(json.dumps({"owner": dead, "attempt": 1, "label": "", "code": {}}))
    store.write_spec(run_id, spec_of())
    assert store.spec(run_id) == spec_of()
    assert store.claim(run_id, attempt=2) is None


def test_only_a_half_written_last_row_is_passed_over(store):
    """Its writer was cut off; a damaged line in the middle would take all that follows with it."""
    run_id = put(store)
    path = store.folder(run_id) / "rows.jsonl"
    lines = [json.dumps({"episode": k, "items": [k, k + 1], "metrics": []}) + "\n" for k in range(3)]
    path.write_text("".join(lines) + '{"episode": 3, "met')
    assert [r["episode"] for r in store.rows(run_id)] == [0, 1, 2]
    for damage in ('{"epi\n', "[1]\n", "\n", "\0\0\n", '{"episode": 1, "a": "stranger"}\n'):
        path.write_text(lines[0] + damage + lines[2])
        with pytest.raises(StoreError, match=r"rows\.jsonl, line 2 is damaged"):
            list(store.rows(run_id))
    path.unlink()
    assert list(store.rows(run_id)) == []
    path.mkdir()
    with pytest.raises(StoreError, match="cannot be read"):
        list(store.rows(run_id))


def test_a_reader_never_sees_half_a_file(tmp_path):
    """One writes again and again, the other reads."""
    path = tmp_path / "x"
    texts = {letter * 50_000 for letter in "ab"}
    write_atomic(path, "a" * 50_000, durable=False)
    done = threading.Event()

    def write():
        while not done.is_set():
            for text in texts:
                write_atomic(path, text, durable=False)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert all(path.read_text() in texts for _ in range(300))
    finally:
        done.set()
        thread.join()
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_record_survives_the_disk(store):
    """What is read is what was written."""
    run_id = put(store, attempt=3, error="é \n \x00", timings={"total_wall": 0.1 + 0.2})
    assert store.record(run_id).timings["total_wall"] == 0.1 + 0.2
    assert store.record(run_id).error == "é \n \x00"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is damaged"),
        ('{"schema": 1, "run', "is damaged"),
        ('{"schema": 99}', "Upgrade sfumato"),
        ('{"some": "thing"}', "no record of ours"),
        ("[]", "no record of ours"),
        ('{"schema": 1}', "run_id"),
    ],
)
def test_a_file_that_is_no_whole_record_is_an_error_that_says_so(store, text, words):
    """Half-written, foreign, of another schema."""
    run_id = put(store)
    good = put(store, 1)
    (store.folder(run_id) / "record.json").write_text(text)
    with pytest.raises((StoreError, config.ConfigError), match=words):
        store.record(run_id)
    with Index(store) as index:
        assert {s.run_id: s.status for s in index.summaries()} == {run_id: "damaged", good: "ok"}
    with pytest.raises((StoreError, config.ConfigError)):
        plan(store, [_job(spec_of())])


def _job(spec):
    from sfumato.supervisor import Job

    return Job(run_id_of(spec), spec)


def test_foreign_files_in_the_store_are_passed_over(store):
    """Whatever lies there is left alone."""
    run_id = put(store)
    (store.runs / "README").write_text("mine")
    (store.runs / ".DS_Store").write_text("")
    (store.runs / "a folder").mkdir()
    (store.runs / "circle").symlink_to("circle")
    (store.runs / os.fsdecode(b"\xff\xfe")).symlink_to(run_id)
    assert store.ids() == [run_id]
    with Index(store) as index:
        assert [s.run_id for s in index.summaries()] == [run_id]
    assert (store.runs / "README").read_text() == "mine"


def test_a_record_in_another_runs_folder_is_no_result(store, make_jobs):
    """Neither for who reads it nor for a sweep, which says so instead of taking it."""
    run_id = put(store)
    jobs = make_jobs()
    store.write_spec(jobs[0].run_id, jobs[0].spec)
    shutil.copy(store.folder(run_id) / "record.json", store.folder(jobs[0].run_id))
    with pytest.raises(StoreError, match=f"is the record of run {run_id}"):
        store.record(jobs[0].run_id)
    with pytest.raises(StoreError, match=f"is the record of run {run_id}"):
        plan(store, jobs)


def test_a_record_without_figures_or_that_cannot_be_read_is_damaged(store):
    """It is named, and hides no other."""
    good, short, circle, odd = (put(store, k) for k in range(4))
    data = json.loads((store.folder(short) / "record.json").read_text())
    (store.folder(short) / "record.json").write_text(json.dumps({k: v for k, v in data.items() if k != "figures"}))
    (store.folder(odd) / "record.json").write_text(json.dumps({**data, "run_id": odd, "code": 7}))
    (store.folder(circle) / "record.json").unlink()
    (store.folder(circle) / "record.json").symlink_to("record.json")
    with Index(store) as index:
        assert {s.run_id: s.status for s in index.summaries()} == {
            good: "ok", short: "damaged", circle: "damaged", odd: "damaged"
        }  # fmt: skip


# ---------------------------------------------------------------- the index


def test_the_index_follows_the_directories(store):
    """New, changed and deleted runs; only what changed is read."""
    ids = [put(store, k) for k in range(5)]
    with Index(store) as index:
        assert {s.run_id for s in index.summaries()} == set(ids)
    put(store, 1, Status.FAILED, error="broke")
    subprocess.run(["rm", "-r", str(store.folder(ids[0]))], check=True)
    late = put(store, 9)
    with Index(store) as index:
        assert {s.run_id: s.status for s in index.summaries()} == {
            ids[1]: "failed", ids[2]: "ok", ids[3]: "ok", ids[4]: "ok", late: "ok",
        }  # fmt: skip
        assert [s.run_id for s in index.summaries(status="failed", task="a/task")] == [ids[1]]
        assert [s.error for s in index.summaries(status="failed")] == ["broke"]


def test_a_second_look_reads_no_record(store, monkeypatch):
    """That is what makes 10,000 runs quick."""
    ids = {put(store, k) for k in range(5)}
    Index(store).close()
    monkeypatch.setattr("sfumato.index._read", lambda path: pytest.fail("a record was read"))
    with Index(store) as index:
        assert {s.run_id for s in index.summaries()} == ids
        assert len(list(index.records())) == 5


@pytest.mark.parametrize("text", ["", "no database", "SQLite format 3\0 and then nonsense" * 100])
def test_an_index_that_is_damaged_or_foreign_is_built_again(store, text):
    """The directories are the truth."""
    run_id = put(store)
    Index(store).close()
    (store.root / "index.sqlite").write_text(text)
    with Index(store) as index:
        assert [s.run_id for s in index.summaries()] == [run_id]
    if text:
        assert (store.root / "index.sqlite.old").read_text() == text
    with Index(store) as index:
        assert [s.run_id for s in index.summaries()] == [run_id]


def test_an_index_whose_pages_are_damaged_is_put_aside_once(store):
    """It would cost reading all records each time."""
    ids = {put(store, k) for k in range(50)}
    Index(store).close()
    path = store.root / "index.sqlite"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    for _ in range(2):
        with Index(store) as index:
            assert {s.run_id for s in index.summaries()} == ids
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (50,)


OPEN = """
import sys, time
from sfumato.index import Index
from sfumato.store import Store
root, at = sys.argv[1], float(sys.argv[2])
time.sleep(max(at - time.time(), 0))
with Index(Store(root)) as index:
    print(sum(1 for _ in index.summaries()))
"""


def test_an_index_that_two_open_at_once_is_made_once(store):
    """Neither takes the other's half-made file for a foreign one; four of them, five times."""
    ids = {put(store, k) for k in range(30)}
    for _ in range(5):
        (store.root / "index.sqlite").unlink(missing_ok=True)
        words = [sys.executable, "-c", OPEN, str(store.root), str(time.time() + 0.8)]
        opened = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
        assert [(p.communicate()[0].strip(), p.returncode) for p in opened] == [(str(len(ids)), 0)] * 4
        assert {p.name for p in store.root.iterdir()} - {"lock"} == {"index.sqlite", "runs"}


def test_an_index_of_an_earlier_version_is_made_anew_in_its_place(store):
    """It is ours; no copy of it is kept."""
    run_id = put(store)
    with contextlib.closing(sqlite3.connect(store.root / "index.sqlite")) as old, old:
        old.execute("CREATE TABLE runs (run_id TEXT PRIMARY KEY, stamp TEXT NOT NULL, status, record TEXT) WITHOUT ROWID")
        old.execute("PRAGMA user_version = 1")
    for _ in range(2):
        with Index(store) as index:
            assert [(s.run_id, s.status) for s in index.summaries()] == [(run_id, "ok")]
    assert not list(store.root.glob("*.old"))


def test_somebodys_database_is_moved_aside_and_a_busy_one_is_left(store):
    """One may be of use to its owner, the other is being made right now."""
    run_id = put(store)
    with contextlib.closing(sqlite3.connect(store.root / "index.sqlite")) as theirs, theirs:
        theirs.execute("CREATE TABLE runs (name)")
        theirs.execute("INSERT INTO runs VALUES ('theirs')")
        theirs.execute("PRAGMA user_version = 7")
    with Index(store) as index:
        assert [s.run_id for s in index.summaries()] == [run_id]
    with contextlib.closing(sqlite3.connect(store.root / "index.sqlite.old")) as theirs:
        assert theirs.execute("SELECT name FROM runs").fetchall() == [("theirs",)]


def test_asking_a_folder_that_is_no_store_leaves_nothing_in_it(sfumato, tmp_path):
    """Also one that has a folder named runs."""
    for name in ("empty", "other/runs/a"):
        (tmp_path / name).mkdir(parents=True)
        root = tmp_path / name.split("/")[0]
        before = sorted(root.rglob("*"))
        assert "no such runs" in sfumato("status", "--store", str(root), check=0).stderr
        sfumato("export", "--store", str(root), check=0)
        assert sorted(root.rglob("*")) == before


def test_the_records_that_an_index_gives_are_those_of_the_files(store):
    """Each on one line, line breaks within texts included."""
    run_id = put(store, error="two\nlines  and\ttabs")
    with Index(store) as index:
        (text,) = index.texts([run_id]).values()
        (record,) = index.records()
    assert "\n" not in text
    assert json.loads(text) == record == json.loads((store.folder(run_id) / "record.json").read_text())


def test_runs_without_a_record_are_waiting_running_or_interrupted(store):
    """As their claims say."""
    ids = [run_id_of(spec_of(k)) for k in range(3)]
    for k, run_id in enumerate(ids):
        store.write_spec(run_id, spec_of(k))
    store.claim(ids[1])
    store.claim(ids[2])
    path = store.folder(ids[2]) / "claim.json"
    claim = json.loads(path.read_text())
    claim["owner"]["start_time"] += 1
    path.write_text(json.dumps(claim))
    with Index(store) as index:
        states = {s.run_id: s.status for s in index.summaries()}
    assert states == {ids[0]: "waiting", ids[1]: "running", ids[2]: "interrupted"}
    assert {i: store.status(i) for i in ids} == states


# ---------------------------------------------------------------- disks that fail


def fill(folder):
    """Fill a disk to the last byte; return the file that does."""
    path = folder / "ballast"
    with path.open("wb") as file:
        try:
            while True:
                file.write(b"\0" * 65536)
                file.flush()
        except OSError:
            pass
    return path


def test_a_disk_that_is_full_stops_the_sweep_and_nothing_is_lost(small_disk, sfumato):
    """Before: runs made are kept. Then: a clear error. After making room, the rest is done."""
    words = ["run", "toys/coin", "--solver", "toys/belief", "--shards", "3", "--store", str(small_disk / "store")]
    sfumato(*words, "--seeds", "3", check=0)
    ballast = fill(small_disk)
    done = sfumato(*words, "--instances", "3:9", check=2)
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert sfumato("status", "--store", str(small_disk / "store"), check=0).stdout.count("ok") == 4  # 3 rows and the sum
    ballast.unlink()
    sfumato(*words, "--instances", "3:9", check=0)
    assert "6 ok" in sfumato("status", "--store", str(small_disk / "store"), check=0).stdout


@pytest.mark.parametrize("isolation", ["run", "none"])
def test_a_disk_that_fills_up_during_a_run_interrupts_it_and_it_is_resumed(small_disk, make_jobs, listener, isolation):
    """The rows cannot be written: that is not the run's fault, and nobody stopped it; running again takes it up."""
    store = Store(small_disk / "store")
    store.prepare()
    jobs = make_jobs(task_settings={"seconds": 0.2, "n_steps": 2}, seeds=6)
    ended, stop = [], threading.Event()

    def go():
        try:
            ended.extend(sweep(store, plan(store, jobs), LocalExecutor(1, isolation), listener, stop))
        except StoreError as error:
            ended.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    rows = store.folder(jobs[0].run_id) / "rows.jsonl"
    while not (rows.exists() and rows.stat().st_size):
        time.sleep(0.02)
    ballast = fill(small_disk)
    thread.join(60)
    (end,) = ended
    assert "No space left on device" in str(end if isinstance(end, StoreError) else end.error)
    assert store.status(jobs[0].run_id) in ("interrupted", "waiting")
    ballast.unlink()
    (record,) = sweep(store, plan(store, jobs), LocalExecutor(1), listener, threading.Event())
    assert record.status is Status.OK
    assert len(list(store.rows(jobs[0].run_id))) == 6


def test_a_read_only_store_can_be_read_and_refuses_runs(small_disk, sfumato):
    """Permissions do not stop root; a read-only mount does."""
    root = str(small_disk / "store")
    sfumato("run", "toys/coin", "--solver", "toys/belief", "--store", root, check=0)
    (small_disk / "store" / "index.sqlite").unlink(missing_ok=True)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    shown = sfumato("status", "--store", root, check=0)
    assert "1 ok" in shown.stdout
    run_id = shown.stdout.splitlines()[1].split()[0]
    assert "return" in sfumato("show", run_id, "--store", root, check=0).stdout
    assert "promise 'bits' kept" in sfumato("replay", run_id, "--store", root, check=0).stdout
    done = sfumato("run", "toys/coin", "--solver", "toys/belief", "--store", root, "--seeds", "5", check=2)
    assert "Read-only file system" in done.stderr
    assert "--store DIR" in done.stderr



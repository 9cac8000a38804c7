"""Exported tables."""

from __future__ import annotations

import csv
import io
import threading

import pytest

from sfumato.errors import StoreError
from sfumato.executors.local import LocalExecutor
from sfumato.export import export
from sfumato.runner import plan, sweep


@pytest.fixture
def filled(store, make_jobs, listener):
    """Two runs that ended well, one that did not."""
    jobs = [
        *make_jobs("toys/coin", "toys/belief", seeds=6, shards=2),
        *make_jobs("toys/coin", "toys/best", seeds=2),
    ]
    return store, list(sweep(store, plan(store, jobs), LocalExecutor(1, "none"), listener, threading.Event()))


def test_csv_has_a_row_for_each_figure_and_one_for_a_run_without(filled, tmp_path):
    """With the values that are in the records."""
    store, records = filled
    export(store, tmp_path / "x.csv")
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    for record in records:
        mine = [r for r in rows if r["run_id"] == record.run_id]
        assert len(mine) == max(len(record.figures), 1)
        for figure, row in zip(record.figures, mine, strict=False):
            assert (row["metric"], float(row["value"]), int(row["n"])) == (figure.name, figure.value, figure.n)
        assert {r["status"] for r in mine} == {record.status.value}
        assert {r["task"] for r in mine} == {"toys/coin"}


def test_items_have_a_row_for_each_instance(filled, tmp_path):
    """Numbered across shards."""
    store, _ = filled
    export(store, tmp_path / "x.csv", per_item=True)
    rows = [r for r in csv.DictReader((tmp_path / "x.csv").open()) if r["metric"] == "return"]
    assert sorted(int(r["item"]) for r in rows) == list(range(6))


def test_filters_choose_runs(filled, tmp_path):
    """By status, task or solver."""
    store, _ = filled
    assert export(store, tmp_path / "x.csv", status="unsupported") == 1
    assert export(store, tmp_path / "x.csv", solver="none") == 0


def test_parquet_and_csv_say_the_same(filled, tmp_path):
    """Types included."""
    pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow (extra export)")
    store, _ = filled
    assert export(store, tmp_path / "x.parquet") == export(store, tmp_path / "x.csv")
    table = pq.read_table(tmp_path / "x.parquet")
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert table.column_names == list(rows[0])
    assert [v or "" for v in table.column("metric").to_pylist()] == [r["metric"] for r in rows]
    assert [v for v in table.column("value").to_pylist() if v is not None] == [float(r["value"]) for r in rows if r["value"]]
    assert str(table.schema.field("seed").type) == "int64"


def test_a_seed_of_any_size_can_be_exported(store, make_jobs, listener, tmp_path):
    """Parquet knows 64 bits: a column of seeds that has more is text."""
    pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow (extra export)")
    jobs = [*make_jobs("toys/echo", "toys/noop"), *make_jobs("toys/echo", "toys/noop", seed=2**70)]
    sweep(store, plan(store, jobs), LocalExecutor(1, "none"), listener, threading.Event())
    for per_item in (False, True):
        count = export(store, tmp_path / "x.parquet", per_item)
        table = pq.read_table(tmp_path / "x.parquet")
        assert table.num_rows == count > 0
        assert set(table.column("seed").to_pylist()) == {"0", str(2**70)}
        assert export(store, tmp_path / "x.csv", per_item) == count


def test_what_is_damaged_is_named_and_the_rest_exported(filled, sfumato, tmp_path):
    """A record, a row in the middle, rows that are missing: exit status 1, and every other run is there."""
    store, records = filled
    words = ("export", "--items", "--store", str(store.root))
    every = {r["run_id"] for r in csv.DictReader(io.StringIO(sfumato(*words, check=0).stdout))}
    first, second = (r.run_id for r in records if r.status == "ok")
    assert every == {first, second}
    rows = store.folder(first) / "rows.jsonl"
    whole = rows.read_text()
    lines = whole.splitlines(keepends=True)
    for damage, said in ((lines[0] + '{"epi\n' + lines[2], "rows.jsonl, line 2 is damaged"),
                         (lines[0], "ended ok with 3 instances, and its rows.jsonl holds 1"),
                         ("{}\n", "rows.jsonl, line 1 is damaged: a row without episode, items, metrics")):  # fmt: skip
        rows.write_text(damage)
        done = sfumato(*words, check=1)
        assert "1 run is damaged and left out:" in done.stderr
        assert said in done.stderr
        assert {r["run_id"] for r in csv.DictReader(io.StringIO(done.stdout))} == {second}
    rows.write_text(whole)
    (store.folder(first) / "record.json").write_text("{")
    for more in ((), ("--items",), ("-o", str(tmp_path / "z.csv"))):
        done = sfumato("export", *more, "--store", str(store.root), check=1)
        assert "1 run is damaged and left out:" in done.stderr
        assert f"{first}/record.json is damaged" in done.stderr
    assert {r["run_id"] for r in csv.DictReader((tmp_path / "z.csv").open())} == {r.run_id for r in records} - {first}


def test_a_file_that_cannot_be_written_leaves_nothing_behind(filled, tmp_path):
    """And names the way out."""
    store, _ = filled
    with pytest.raises(StoreError, match="-o FILE"):
        export(store, tmp_path / "absent" / "x.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        export(store, tmp_path / "folder.csv")
    assert not list(tmp_path.glob(".folder*"))


def test_the_command_prints_csv_or_writes_a_file(sfumato, tmp_path):
    """Standard output is the default."""
    sfumato("run", "toys/coin", "--solver", "toys/belief", check=0)
    rows = list(csv.DictReader(io.StringIO(sfumato("export", check=0).stdout)))
    assert {r["metric"] for r in rows} >= {"return", "length"}
    sfumato("export", "-o", "y.csv", check=0)
    assert (tmp_path / "y.csv").read_text().splitlines()[0].startswith("run_id,status,label")
    assert "ends in .csv or .parquet" in sfumato("export", "-o", "y.xls", check=2).stderr

"""The hash-chained log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato_ofs.audit import AuditLog, Head, read, verify
from sfumato_ofs.errors import AuditError


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    """A log of five lines."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    for k in range(5):
        log.append("select", {"round": k, "tau": 0.1 * k})
    log.close()
    return path


def test_the_head_of_the_file_is_the_head_of_the_log(log_file: Path) -> None:
    memory = AuditLog()
    for k in range(5):
        memory.append("select", {"round": k, "tau": 0.1 * k})
    assert verify(log_file) == memory.head
    assert [event["round"] for event in read(log_file)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("line", [0, 2, 4])
def test_a_changed_number_is_found(log_file: Path, line: int) -> None:
    """One digit of one line, wherever it is."""
    lines = log_file.read_text().splitlines()
    lines[line] = lines[line].replace(f'"round":{line}', f'"round":{line + 7}')
    log_file.write_text("\n".join(lines) + "\n")
    with pytest.raises(AuditError, match=f"line {line + 1} was altered"):
        verify(log_file)


def test_a_dropped_an_inserted_and_a_rehashed_line_are_found(log_file: Path) -> None:
    lines = log_file.read_text().splitlines()
    log_file.write_text("\n".join(lines[:2] + lines[3:]) + "\n")
    with pytest.raises(AuditError, match="line 3 does not follow"):
        verify(log_file)
    log_file.write_text("\n".join([*lines[:2], lines[1], *lines[2:]]) + "\n")
    with pytest.raises(AuditError, match="line 3 does not follow"):
        verify(log_file)
    # A line forged with a fitting hash of its own breaks the link of the next one.
    forged = AuditLog()
    for k in range(2):
        forged.append("select", {"round": k, "tau": 0.9})
    log_file.write_text("\n".join([*forged._lines, *lines[2:]]) + "\n")
    with pytest.raises(AuditError, match="line 3 does not follow"):
        verify(log_file)


def test_a_torn_last_line_is_named(log_file: Path) -> None:
    log_file.write_text(log_file.read_text()[:-10])
    with pytest.raises(AuditError, match="line 5 is cut off"):
        verify(log_file)


def test_a_log_is_continued_where_it_ended(log_file: Path) -> None:
    log = AuditLog(log_file)
    log.append("select", {"round": 5, "tau": 0.5})
    assert verify(log_file) == log.head and log.head.lines == 6


def test_a_head_can_be_signed_and_exported(log_file: Path, tmp_path: Path) -> None:
    """The signature holds for this head and key only."""
    head = verify(log_file)
    signature = head.sign(b"secret")
    assert head.verify(b"secret", signature)
    assert not head.verify(b"other", signature)
    assert not Head(head.lines + 1, head.hash).verify(b"secret", signature)
    head.export(tmp_path / "head.json", b"secret")
    assert json.loads((tmp_path / "head.json").read_text()) == {
        "lines": 5,
        "hash": head.hash,
        "hmac_sha256": signature,
    }


def test_numbers_without_json_are_refused_and_the_head_stays(log_file: Path) -> None:
    log = AuditLog(log_file)
    before = log.head
    with pytest.raises(ValueError):
        log.append("select", {"tau": float("nan")})
    assert log.head == before and verify(log_file) == before


def test_a_line_that_is_cut_off_leaves_the_log_as_it_was(tmp_path):
    """A disk that fills up takes part of a line: an error, the head stays, and the log can be read and continued."""
    import resource
    import subprocess
    import sys

    program = (
        "import resource, signal\nfrom sfumato_ofs.audit import AuditLog, read\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"log = AuditLog({str(tmp_path / 'log.jsonl')!r})\nlog.append('a', {{'x': 1}})\nhead = log.head\n"
        "size = log.path.stat().st_size\nresource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))\n"
        "try:\n    log.append('b', {'x': 2})\nexcept OSError:\n    pass\nelse:\n    raise SystemExit('taken for success')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "assert log.head == head and log.path.stat().st_size == size\nlog.append('c', {'x': 3})\n"
        "print([e['event'] for e in read(log.path)])\n"
    )
    assert resource.RLIM_INFINITY  # POSIX only, as the locks are
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "['a', 'c']", done.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"round":2', '"round": 2'),  # another spelling of the same JSON
        ('"tau":0.2', '"tau":0.20'),
        ('"event":"select"', '"event":"selec\\u0074"'),
        ('{"event"', '{"tau":0.9,"event"'),  # the later of two equal keys is what JSON readers keep
    ],
)
def test_other_bytes_of_the_same_meaning_are_found(log_file: Path, old: str, new: str) -> None:
    """Line 3 says the same to a JSON reader, and is another line to whoever signed the head."""
    lines = log_file.read_text().splitlines()
    assert old in lines[2] and json.loads(lines[2].replace(old, new)) == json.loads(lines[2])
    lines[2] = lines[2].replace(old, new)
    log_file.write_text("\n".join(lines) + "\n")
    with pytest.raises(AuditError, match="line 3 was altered"):
        verify(log_file)


def test_a_head_from_before_notices_lines_cut_off_and_another_history(log_file: Path) -> None:
    """Three of five lines verify by themselves; a head of five lines says that two are gone."""
    head = verify(log_file)
    lines = log_file.read_text().splitlines(keepends=True)
    log_file.write_text("".join(lines[:3]))
    early = verify(log_file)
    assert early.lines == 3
    with pytest.raises(AuditError, match="has 3 lines, and the head given has 5: lines were cut off"):
        verify(log_file, head)
    log = AuditLog(log_file)
    for k in range(3):
        log.append("select", {"round": k, "tau": 0.9})
    log.close()
    assert verify(log_file, early).lines == 6  # a log may grow
    with pytest.raises(AuditError, match="line 5 has hash .* another history"):
        verify(log_file, head)


def test_a_head_comes_back_from_its_file_only_with_its_signature(log_file: Path, tmp_path: Path) -> None:
    head, path = verify(log_file), tmp_path / "head.json"
    head.export(path, b"secret")
    assert Head.load(path) == Head.load(path, b"secret") == head
    with pytest.raises(AuditError, match="not made with this key"):
        Head.load(path, b"other")
    path.write_text(path.read_text().replace('"lines": 5', '"lines": 4'))
    with pytest.raises(AuditError, match="not made with this key"):
        Head.load(path, b"secret")
    head.export(path)
    with pytest.raises(AuditError, match="missing"):
        Head.load(path, b"secret")
    for text in ("", "[]", '{"lines": 5}', '{"lines": -1, "hash": "00"}', '{"lines": 5, "hash": 7}'):
        path.write_text(text)
        with pytest.raises(AuditError, match="^head: "):
            Head.load(path)


def test_two_writers_are_kept_apart(log_file: Path) -> None:
    """The second is refused while the first has the file open, and welcome afterwards; reading is free."""
    first = AuditLog(log_file)
    with pytest.raises(AuditError, match="is open for writing elsewhere"):
        AuditLog(log_file)
    assert verify(log_file) == first.head
    first.close()
    second = AuditLog(log_file)
    second.append("select", {"round": 5})
    assert verify(log_file).lines == 6


def test_a_fresh_log_is_not_written_over_an_old_one(log_file: Path) -> None:
    with pytest.raises(AuditError, match="exists already"):
        AuditLog(log_file, fresh=True)
    assert verify(log_file).lines == 5

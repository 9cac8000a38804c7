"""Directories of sessions are measured, read and removed without trusting what lies in them."""

import os

import pytest

from sfumato_sandbox import scratch


@pytest.fixture
def parent(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_removal_gets_past_depth_modes_and_links(tmp_path, parent):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("p")
    victim = tmp_path / "victim"
    victim.mkdir()
    folder = os.open(victim, os.O_RDONLY)
    for _ in range(1200):  # far deeper than a path may be long
        os.mkdir("deeper-than-a-path-may-be", dir_fd=folder)
        inner = os.open("deeper-than-a-path-may-be", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    (victim / "link").symlink_to(outside)
    (victim / "closed").mkdir()
    (victim / "closed" / "f").write_text("x")
    (victim / "closed").chmod(0)
    scratch.remove(parent, "victim")
    assert not victim.exists() and (outside / "precious").read_text() == "p"
    scratch.remove(parent, "victim")  # nothing there is no error


def test_usage_counts_blocks_entries_and_hidden_depth(tmp_path, parent):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "big").write_bytes(os.urandom(100_000))
    size, count = scratch.usage(parent, 100)
    assert size >= 100_000 and count == 2
    deep = tmp_path
    for _ in range(scratch.MAX_DEPTH + 2):
        deep = deep / "d"
        deep.mkdir()
    assert scratch.usage(parent, 100)[1] > 100


def test_what_is_saved_is_loaded_again(tmp_path, parent):
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "f").write_bytes(b"\0\xff")
    (tmp_path / "link").symlink_to("/etc/passwd")
    saved = scratch.save(parent, 1 << 20)
    assert saved == {"d": None, "d/e": None, "d/f": b"\0\xff"}
    (tmp_path / "d" / "f").write_bytes(b"changed")
    (tmp_path / "new").mkdir()
    scratch.load(parent, saved)
    assert scratch.save(parent, 1 << 20) == saved and not os.path.lexists(tmp_path / "link")


@pytest.mark.parametrize("path", ["", "/abs", "../up", "a/../b", "a//b", "./a"])
def test_a_path_that_leads_outside_is_refused(parent, path):
    with pytest.raises(ValueError, match="relative path"):
        scratch.write(parent, path, b"")


def test_writing_follows_no_link(tmp_path, parent):
    (tmp_path / "away").symlink_to("/tmp")
    (tmp_path / "file").symlink_to("/tmp/nowhere")
    for path in ("away/x", "file"):
        with pytest.raises(OSError):
            scratch.write(parent, path, b"x")
    scratch.write(parent, "new/deep/f", b"x")
    assert (tmp_path / "new/deep/f").read_bytes() == b"x"

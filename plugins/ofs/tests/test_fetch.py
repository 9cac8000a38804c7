"""Downloads: checked, and never half kept. Served from this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pooch", reason="downloading needs pooch (extra data)")
from sfumato_ofs.fetch import SOURCES, fetch_file


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server for one small file."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "file.data").write_bytes(b"A11 6 A34\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            return

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}/file.data"
    httpd.shutdown()


def test_a_good_file_arrives(server: str, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"A11 6 A34\n").hexdigest()
    path = fetch_file(server, digest, tmp_path / "fairness" / "german.data")
    assert path == tmp_path / "fairness" / "german.data"
    assert path.read_bytes() == b"A11 6 A34\n"


def test_a_wrong_hash_keeps_nothing(server: str, tmp_path: Path) -> None:
    target = tmp_path / "fairness" / "german.data"
    with pytest.raises(ValueError, match="hash"):
        fetch_file(server, "0" * 64, target)
    assert not target.exists()


def test_every_source_has_a_full_hash_and_a_fixed_address() -> None:
    for url, sha256, relative in SOURCES.values():
        assert url.startswith("https://") and len(sha256) == 64 and relative.startswith("fairness/")
    assert "/master/" not in SOURCES["compas"][0]

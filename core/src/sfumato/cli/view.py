"""`sfumato view`: the report of a store, served on this machine."""

from __future__ import annotations

import functools
import http.server
import tempfile
from pathlib import Path

import click

from sfumato.store import DEFAULT, Store


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, never lists a folder, says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal clean."""

    def list_directory(self, path: object) -> None:
        """Refuse: only pages are served."""
        self.send_error(404)

    def end_headers(self) -> None:
        """Allow no other site to frame or read the pages."""
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()


@click.command("view")
@click.option("--store", "store_dir", default=DEFAULT, type=click.Path(), envvar="SFUMATO_STORE")
@click.option("--host", default="127.0.0.1", show_default=True, help="Another address makes the pages public.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
def command(store_dir: str, host: str, port: int) -> None:
    """Serve the report of a store on loopback until Ctrl-C."""
    from sfumato.report.site import build

    with tempfile.TemporaryDirectory(prefix="sfumato-view-") as folder:
        _, count = build(Store(store_dir), Path(folder) / "site")
        handler = functools.partial(Quiet, directory=str(Path(folder) / "site"))
        with http.server.ThreadingHTTPServer((host, port), handler) as server:
            click.echo(f"http://{server.server_address[0]!s}:{server.server_address[1]}/index.html")
            click.echo(f"{count} runs; Ctrl-C ends", err=True)
            server.serve_forever()

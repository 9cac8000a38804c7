"""`sfumato view`: the report of a store, served on this machine."""

from __future__ import annotations

import functools
import http.server
import ipaddress
import socket
import tempfile
from pathlib import Path
from typing import Any

import click

from sfumato.errors import UsageError
from sfumato.store import DEFAULT, Store


class Server(http.server.ThreadingHTTPServer):
    """Serves at one address, to requests that ask for that address.

    A page of another site can make its own name point here (DNS rebinding) and would then read ours as its own; but the
    browser still says that name in `Host`. An address written as a number cannot be pointed elsewhere.
    """

    def __init__(self, host: str, port: int, handler: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), handler)
        bound = ipaddress.ip_address(str(self.server_address[0]))
        self._loopback = bound.is_loopback
        self._names = {host.lower() or "localhost", "localhost"}
        if not self._loopback:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def answers_to(self, host: str) -> bool:
        """Return whether a request's `Host`, with or without a port, means this server."""
        name = host.strip().rpartition(":")[0] if not host.endswith("]") and ":" in host else host.strip()
        name = name.strip("[]").rstrip(".").lower()
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._loopback


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, never lists a folder, says nothing."""

    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal clean."""

    def send_head(self) -> Any:
        """Refuse requests that were made to another name."""
        host = self.headers.get("Host", "")
        if not self.server.answers_to(host):
            self.send_error(421, explain="This report is served to its own address alone; sfumato view prints it.")
            return None
        return super().send_head()

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
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), envvar="SFUMATO_DATA", help="Where data files lie.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Another address makes the pages public.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
def command(store_dir: str, data_dir: Path | None, host: str, port: int) -> None:
    """Serve the report of a store on loopback until Ctrl-C."""
    from sfumato.report.site import build

    with tempfile.TemporaryDirectory(prefix="sfumato-view-") as folder:
        site = Path(folder) / "site"
        handler = functools.partial(Quiet, directory=str(site))
        try:
            server = Server(host, port, handler)
        except (OSError, UnicodeError) as error:  # no such address or name, a port that is taken or not for us
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"cannot serve at {host}, port {port}: {why}. --host takes an address of this machine (127.0.0.1 is for it "
                "alone), --port a free one (0 takes any)."
            ) from error
        with server:
            _, count = build(Store(store_dir), site, data_dir=data_dir)
            shown = f"[{server.server_address[0]!s}]" if ":" in host else server.server_address[0]
            click.echo(f"http://{shown!s}:{server.server_address[1]}/index.html")
            click.echo(f"{count} runs; Ctrl-C ends", err=True)
            server.serve_forever()

"""Commands of this plugin, mounted as `sfumato ofs …`."""

from __future__ import annotations

import os
from pathlib import Path

import click


def default_data_dir() -> Path:
    """Return where fetched files go: SFUMATO_DATA, else XDG_DATA_HOME/sfumato or ~/.local/share/sfumato."""
    named = os.environ.get("SFUMATO_DATA")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "sfumato"


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder to put them in [default: SFUMATO_DATA or the user's data folder].",
)
@click.option("--only", type=click.Choice(["german", "compas"]), default=None, help="Fetch one file only.")
def fetch(data_dir: Path | None, only: str | None) -> None:
    """Download German Credit (UCI, CC BY 4.0) and COMPAS (ProPublica), each checked against its SHA-256."""
    from sfumato_ofs.fetch import SOURCES, fetch_file

    root = data_dir or default_data_dir()
    for name in [only] if only else list(SOURCES):
        url, sha256, relative = SOURCES[name]
        click.echo(f"{name}: {url}", err=True)
        try:
            path = fetch_file(url, sha256, root / relative)
        except (ImportError, OSError, ValueError) as error:
            raise click.ClickException(
                f"{name} was not fetched from {url}: {error}. If this machine has no way there, download it elsewhere and "
                f"put it at {root / relative}"
            ) from error
        click.echo(f"{name}: {path}  SHA-256 verified")

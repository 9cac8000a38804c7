"""`sfumato new-plugin NAME`: a distribution that works at once."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("new-plugin")
@click.argument("name")
@click.option("--only", type=click.Choice(("task", "solver", "runtime")), help="Write this part alone.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder to write; default: sfumato-NAME here.")
@click.option("--author", default="", help="For the metadata.")
def command(name: str, only: str | None, output: Path | None, author: str) -> None:
    """Write a plugin of your own: task, solver, evaluator, tests, packaging."""
    from sfumato.templates import write_plugin

    folder = output or Path(f"sfumato-{name}")
    written = write_plugin(name, folder, only or "full", author)
    for path in written:
        click.echo(path)
    click.echo(f"\nNext:\n  cd {folder}\n  pip install -e '.[test]'\n  pytest\n  sfumato check {name}", err=True)

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
    from sfumato.cli import COMMANDS
    from sfumato.errors import UsageError
    from sfumato.templates import write_plugin

    if name in COMMANDS:  # `sfumato NAME …` would not reach the plugin's own commands
        raise UsageError(f"{name!r} is a reserved word of sfumato: 'sfumato {name}' is a command. Choose another name.")
    folder = output or Path(f"sfumato-{name}")
    written = write_plugin(name, folder, only or "full", author)
    for path in written:
        click.echo(path)
    click.echo(f"\nNext:\n  cd {folder}\n  pip install -e '.[test]'\n  pytest\n  sfumato check {name}", err=True)

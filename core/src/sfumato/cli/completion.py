"""`sfumato completion SHELL`."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def command(shell: str) -> None:
    """Print a completion script. For bash: eval "$(sfumato completion bash)"."""
    from click.shell_completion import get_completion_class

    from sfumato.cli import cli

    found = get_completion_class(shell)
    assert found is not None  # click knows the three shells that the option accepts
    click.echo(found(cli, {}, "sfumato", "_SFUMATO_COMPLETE").source())

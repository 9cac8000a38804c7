"""The command line: one module a command, imported only when that command is called."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Any

import click

from sfumato.errors import SfumatoError, UnknownName, did_you_mean, not_installed

COMMANDS = {
    "list": ("listing", "Show every task, solver, runtime and evaluator that is installed."),
    "info": ("info", "Show one component: settings, backends, source."),
    "doctor": ("doctor", "Check plugins, backends, devices and data on this machine."),
    "run": ("run", "Run an experiment file, or one task with one solver."),
    "status": ("status", "Show the runs of a store and how they stand."),
    "show": ("show", "Show one run: settings, figures, error, provenance."),
    "compare": ("compare", "Paired differences between solvers or runs, with intervals and tests."),
    "reproduce": ("reproduce", "Run the papers' claims: the paper's figure beside ours, with a verdict."),
    "check": ("check", "Check that a plugin keeps the promises of the protocols."),
    "replay": ("replay", "Run a finished run again and prove that it comes out the same."),
    "export": ("export", "Write the runs of a store to one table: CSV or Parquet."),
    "new-plugin": ("new_plugin", "Write a plugin of your own that works at once."),
    "report": ("report", "Write a self-contained HTML report of a store."),
    "view": ("view", "Serve the report of a store on this machine."),
    "completion": ("completion", "Print a shell's completion script."),
}


class Lazy(click.Group):
    """Knows its commands by name; a plugin's commands are found through its entry point."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])
        from sfumato.plugins import BUILTIN, Registry

        names = [n for n in Registry().plugins if n != BUILTIN]
        if names:
            with formatter.section("Commands of plugins (sfumato NAME --help)"):
                formatter.write_text(", ".join(sorted(names)))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            module = import_module(f"sfumato.cli.{COMMANDS[name][0]}")
            command: click.Command = module.command
            return command
        return plugin_group(name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from difflib import get_close_matches

            from sfumato.plugins import Registry

            known = [*COMMANDS, *Registry().plugins]
            near = get_close_matches(args[0], known, n=1)
            hint = did_you_mean(args[0], near) if near else f" If it is a plugin's: {not_installed(args[0])}."
            raise UnknownName(f"no command {args[0]!r}.{hint} 'sfumato --help' lists them.")
        return super().resolve_command(ctx, args)


def plugin_group(name: str) -> click.Group | None:
    """Return the group of a plugin's own commands, each imported when called; None when there is no such plugin."""
    from sfumato.plugins import Registry

    registry = Registry()
    plugin = registry.load(name)
    if plugin is None:
        return None
    specs = {c.name: c for c in registry.plugin_commands(name)}

    class PluginGroup(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return sorted(specs)

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            with formatter.section("Commands"):
                formatter.write_dl([(n, specs[n].help) for n in sorted(specs)] or [("none", "")])

        def get_command(self, ctx: click.Context, command: str) -> click.Command | None:
            if command not in specs:
                return None
            from sfumato.plugins import resolve

            found: click.Command = resolve(specs[command].target)
            return found

        def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
            if args and not args[0].startswith("-") and args[0] not in specs:
                raise UnknownName(
                    f"plugin {name!r} has no command {args[0]!r}.{did_you_mean(args[0], specs)} It has: "
                    f"{', '.join(sorted(specs)) or 'none'}."
                )
            return super().resolve_command(ctx, args)

    return PluginGroup(name, help=f"Commands of plugin {name} ({plugin.distribution} {plugin.version}).")


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="sfumato")
def cli() -> None:
    """Decisions and optimisation under partial information: run methods on tasks, compare them, trust the figures."""


def main() -> None:
    """Run the command line; errors that the user can mend are printed without a traceback."""
    if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited: how runs end could not be told
    if not sys.argv[1:]:  # as click does from 8.2 on; before, it called this a success
        click.echo(cli.get_help(click.Context(cli, info_name="sfumato", **cli.context_settings)), err=True)
        sys.exit(2)
    try:
        status = cli.main(standalone_mode=False, prog_name="sfumato")
    except SfumatoError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # `sfumato PLUGIN` alone: its help; click 8.1 has no such error
            error.show()
            sys.exit(2)
        from sfumato.cli.mistakes import explain

        click.echo(f"UsageError: {explain(error)}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # `sfumato list | head`
        sys.stderr.close()
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)

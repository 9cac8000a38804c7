"""What click finds wrong with a command line, said as everywhere else: what was expected, what was got, what to do."""

from __future__ import annotations

import re
from typing import Any

import click

from sfumato.errors import did_you_mean


def explain(error: click.ClickException) -> str:
    """Return an error of click's as one line of ours; one of a kind that is not known keeps its own words."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "sfumato"
    advice = f"'{path} --help' shows what it takes." if context is not None else "--help shows what a command takes."
    if isinstance(error, click.NoSuchOption):
        known = [o for p in context.command.params for o in p.opts] if context is not None else []
        return f"{path} has no option {error.option_name!r}.{did_you_mean(error.option_name, known)} {advice}"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        name, wanted = name_of(error.param), expected(error.param.type)
        return f"{path} wants {name}{f': {wanted}' if wanted and name != wanted else ''}; got nothing. {advice}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        if isinstance(error.param.type, click.Path) and (absent := re.match(r"\w+ '(.*)' does not exist", error.message)):
            return f"{name_of(error.param)} wants {expected(error.param.type)} that exists; there is no {absent[1]!r}. {advice}"
        got = _got(error.message)
        wanted = expected(error.param.type)
        if got is None or not wanted:
            return f"{name_of(error.param)}: {error.message} {advice}"
        choices = error.param.type.choices if isinstance(error.param.type, click.Choice) else ()
        return f"{name_of(error.param)} wants {wanted}; got {got!r}.{did_you_mean(got, map(str, choices))} {advice}"
    if isinstance(error, click.BadOptionUsage):
        wants = "wants a value; got none" if "requires" in error.message else "takes no value; got one"
        return f"{error.option_name} {wants}. {advice}"
    if extra := re.fullmatch(r"Got unexpected extra arguments? \((.*)\)", error.format_message()):
        names = " ".join(name_of(p) for p in context.command.params if isinstance(p, click.Argument)) if context else ""
        return f"{path} takes {names or 'no arguments'}; got {extra[1]!r} beside that. {advice}"
    message = error.format_message()
    if not isinstance(error, click.UsageError):  # a plugin's own words, about something else than its options
        return message
    return f"{message}{'' if message.endswith(('.', '!', '?')) else '.'} {advice}"


def name_of(param: click.Parameter) -> str:
    """Return a parameter's name as one writes it: the long form of an option, the metavar of an argument."""
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return param.metavar or (param.name or "").upper()


def expected(kind: Any) -> str:
    """Return what a parameter of this type of click's takes; "" for any text."""
    if isinstance(kind, click.Choice):
        *most, last = map(str, kind.choices)
        return f"{', '.join(most)} or {last}" if most else last
    noun = {"integer": "a whole number", "float": "a number"}.get(kind.name.removesuffix(" range"), "")
    if isinstance(kind, (click.IntRange, click.FloatRange)):
        if kind.min is not None and kind.max is not None:
            return f"{noun} from {kind.min} to {kind.max}"
        bound = kind.min if kind.min is not None else kind.max
        return f"{noun} of at {'least' if kind.min is not None else 'most'} {bound}"
    if isinstance(kind, click.Path):
        return "a folder" if not kind.file_okay else "a file" if not kind.dir_okay else "a path"
    return noun


def _got(message: str) -> str | None:
    """Return the value that an error's text quotes."""
    for pattern in (r"'(.*)' is not ", r"(\S+) is not ", r"\w+ '(.*)' (?:is|does|has)"):
        if match := re.match(pattern, message):
            return match[1]
    return None

"""Slips on the command line: each is answered with what was expected, what was got, and what to do."""

from __future__ import annotations

import click
import pytest

from sfumato.cli.mistakes import explain


@click.command("make")
@click.argument("name")
@click.argument("shell", required=False, type=click.Choice(("bash", "fish")))
@click.option("-c", "--colour", type=click.Choice(("red", "green", "blue")))
@click.option("--count", type=click.IntRange(1))
@click.option("--share", type=click.FloatRange(0, 1))
@click.option("--seconds", type=float)
@click.option("--folder", type=click.Path(file_okay=False, exists=True))
@click.option("--day", type=click.DateTime())
@click.option("--quiet", is_flag=True)
def make(**settings):
    """Do nothing."""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("x --colour gren", "--colour wants red, green or blue; got 'gren'. Did you mean 'green'"),
        ("x -c 7", "--colour wants red, green or blue; got '7'. 'make --help' shows"),
        ("x fsh", "SHELL wants bash or fish; got 'fsh'. Did you mean 'fish'"),
        ("x --count 0", "--count wants a whole number of at least 1; got '0'."),
        ("x --count many", "--count wants a whole number of at least 1; got 'many'."),
        ("x --share 2", "--share wants a number from 0 to 1; got '2.0'."),
        ("x --seconds soon", "--seconds wants a number; got 'soon'."),
        ("x --folder /etc/passwd", "--folder wants a folder; got '/etc/passwd'."),
        ("x --folder /nowhere", "--folder wants a folder that exists; there is no '/nowhere'."),
        ("x --day soon", "--day: 'soon' does not match the formats"),
        ("x --color red", "make has no option '--color'. Did you mean '--colour'"),
        ("x --quiet=1", "--quiet takes no value; got one."),
        ("x --colour", "--colour wants a value; got none."),
        ("", "make wants NAME; got nothing. 'make --help' shows"),
        ("x bash z", "make takes NAME SHELL; got 'z' beside that."),
    ],
)
def test_a_slip_is_answered_with_what_was_wanted_and_got(words, said):
    """On one line, with the nearest of the choices, and where the rest is told."""
    with pytest.raises(click.ClickException) as caught:
        make.main(words.split(), standalone_mode=False, prog_name="make")
    answer = explain(caught.value)
    assert answer.startswith(said)
    assert "--help" in answer
    assert "\n" not in answer


def test_a_plugins_own_words_are_left_alone():
    """They are about something else than its options; words about usage end before the advice begins."""
    assert explain(click.ClickException("no file was fetched, see /x/y.data")) == "no file was fetched, see /x/y.data"
    said = explain(click.UsageError("give one of --a and --b"))
    assert said == "give one of --a and --b. --help shows what a command takes."


def test_the_command_line_says_so_and_exits_with_2(sfumato):
    """The program's own commands, and none at all."""
    done = sfumato("completion", "fisch", check=2)
    assert done.stderr.startswith("UsageError: SHELL wants bash, zsh or fish; got 'fisch'.")
    assert "'sfumato completion --help'" in done.stderr
    assert "Commands:" in sfumato(check=2).stderr

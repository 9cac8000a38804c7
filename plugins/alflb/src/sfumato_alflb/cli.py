"""The command `sfumato alflb diagnose`."""

from __future__ import annotations

import json
from importlib.util import find_spec

import click

from .errors import AlflbError


@click.command("diagnose")
@click.argument("scores", type=click.Path(exists=True, dir_okay=False))
@click.option("-k", "k", type=int, required=True, help="Experts per token.")
@click.option("--steps", type=int, default=1000, show_default=True, help="Updates to try for each rule.")
@click.option(
    "--tokens", type=int, default=8192, show_default=True, help="Use at most this many tokens, evenly spaced."
)
@click.option("--pictures", type=click.Path(file_okay=False), help="Write pictures into this folder.")
@click.option(
    "--bias", "bias_file", type=click.Path(exists=True, dir_okay=False),
    help="The router's running bias (.npy, [experts]), to be judged on these scores.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="For the batches of the regret picture.")
@click.option("--json", "as_json", is_flag=True, help="Print the same facts for a program.")
def diagnose(
    scores: str,
    k: int,
    steps: int,
    tokens: int,
    pictures: str | None,
    bias_file: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Read router scores (.npy, or .npz with key 'scores') and print the optimum, best balance, and each rule's progress.

    SCORES holds [tokens, experts], or more leading axes, which are flattened; they are what the router
    compares: sigmoid or softmax outputs, not logits.
    """
    import numpy as np

    from .diagnosis import diagnose as examine
    from .diagnosis import lines, regrets
    from .errors import ArgumentError
    from .run import alf_run
    from .scorefiles import load_array, load_scores

    try:
        if tokens < 1:
            raise ArgumentError("--tokens", "an integer >= 1", repr(tokens))
        table = load_scores(scores)
        if len(table) > tokens:
            click.echo(f"using {tokens} of {len(table)} tokens (--tokens)", err=True)
            table = table[np.arange(tokens) * len(table) // tokens]
        engine = "compiled" if find_spec("numba") else "numpy"
        bias = None if bias_file is None else load_array(bias_file, "bias")
        found = examine(table, k, steps=steps, bias=bias, engine=engine)
        if as_json:
            click.echo(json.dumps(found.to_dict()))
        else:
            click.echo("\n".join(lines(found)))
        if pictures:
            from .pictures import save_all

            run = alf_run(
                found.problem, "sign", found.suggested_u["sign"], steps=steps, keep_loads=True, engine=engine
            )
            try:
                online = regrets(found, np.random.default_rng(seed), engine=engine)
            except ArgumentError as error:
                online = None
                click.echo(f"no picture of regret: {error}", err=True)
            for name in save_all(found, pictures, run.loads, online):
                click.echo(f"wrote {name}", err=True)
    except AlflbError as error:
        raise click.UsageError(str(error)) from error

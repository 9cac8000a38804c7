"""The command `sfumato alflb diagnose`."""

from __future__ import annotations

import json
from importlib.util import find_spec

import click

from .errors import AlflbError


@click.command("diagnose")
@click.argument("scores", type=click.Path(exists=True, dir_okay=False))
@click.option("-k", "k", type=int, help="Experts per token; a router log holds it itself.")
@click.option("--layer", help="Layer of a router log; by default the one with the largest MaxVio at the end.")
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
    k: int | None,
    layer: str | None,
    steps: int,
    tokens: int,
    pictures: str | None,
    bias_file: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Read router scores (.npy, or .npz with key 'scores') or a router log, and print the optimum, best balance, and each rule's progress.

    SCORES holds [tokens, experts], or more leading axes, which are flattened; they are what the router
    compares: sigmoid or softmax outputs, not logits. A router log, as `RouterLog` saves it, also has the loads and
    biases of training: they are summed up for every layer, and the scores sampled from one are examined.
    """
    import numpy as np

    from .diagnosis import diagnose as examine
    from .diagnosis import lines, regrets
    from .errors import ArgumentError
    from .routerlog import load_router_log, log_lines, most_violated
    from .run import alf_run
    from .scorefiles import load_array, load_scores

    try:
        if tokens < 1:
            raise ArgumentError("--tokens", "an integer >= 1", repr(tokens))
        bias = None if bias_file is None else load_array(bias_file, "bias")
        log = load_router_log(scores)
        chosen = None
        if log is None:
            if k is None:
                raise ArgumentError("-k", "the number of experts per token", "none given")
            if layer is not None:
                raise ArgumentError("--layer", "a router log", f"{scores}, which holds one matrix")
            table: np.ndarray | None = load_scores(scores)
        else:
            if layer is not None and layer not in [one.name for one in log]:
                raise ArgumentError("--layer", f"one of {', '.join(one.name for one in log)}", repr(layer))
            chosen = next((one for one in log if one.name == layer), None) or most_violated(log)
            if k is not None and k != chosen.k:
                raise ArgumentError("-k", f"{chosen.k} as in the log, or nothing", repr(k))
            k, table = chosen.k, chosen.scores
            bias = chosen.bias if bias is None else bias
            if not as_json:
                click.echo("\n".join([*log_lines(log), "", f"layer {chosen.name}"]))
        if table is None:
            assert chosen is not None
            click.echo(f"no scores of layer {chosen.name} in the log: nothing more to examine", err=as_json)
            found = None
        else:
            if len(table) > tokens:
                click.echo(f"using {tokens} of {len(table)} tokens (--tokens)", err=True)
                table = table[np.arange(tokens) * len(table) // tokens]
            engine = "compiled" if find_spec("numba") else "numpy"
            found = examine(table, k, steps=steps, bias=bias, engine=engine)
        if as_json:
            facts = {} if found is None else found.to_dict()
            if log is not None and chosen is not None:
                facts |= {"layer": chosen.name, "layers": [one.summary() for one in log]}
            click.echo(json.dumps(facts))
        elif found is not None:
            click.echo("\n".join(lines(found)))
        if pictures:
            from .pictures import load_heat_map, save_all, save_picture

            loads, steps_of, what = None, None, ""
            if chosen is not None:
                loads, steps_of, what = chosen.counts, chosen.updates, f"layer {chosen.name}, in training"
            if found is None:
                assert loads is not None
                axes = load_heat_map(loads, updates=steps_of, what=what)
                click.echo(f"wrote {save_picture(axes, pictures, 'load.png')}", err=True)
                return
            if loads is None:
                rule = found.suggested_u["sign"]
                run = alf_run(found.problem, "sign", rule, steps=steps, keep_loads=True, engine=engine)
                loads, what = run.loads, f"this batch under sign {rule:g}"
            try:
                online = regrets(found, np.random.default_rng(seed), engine=engine)
            except ArgumentError as error:
                online = None
                click.echo(f"no picture of regret: {error}", err=True)
            for name in save_all(found, pictures, loads, online, updates=steps_of, what=what):
                click.echo(f"wrote {name}", err=True)
    except AlflbError as error:
        raise click.UsageError(str(error)) from error

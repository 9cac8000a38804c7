"""Commands of the plugin, mounted as `sfumato cpto …`."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--scenes", default=5, show_default=True, help="Number of random five-lane scenes.")
@click.option("-c", "--candidates", default=2, show_default=True, help="C, candidate trajectories.")
@click.option("-m", "--obstacles", default=6, show_default=True, help="M, obstacles.")
@click.option("--seed", default=0, show_default=True, help="Seed of the scenes.")
@click.option("--ipopt/--no-ipopt", default=True, help="Also solve the full nonlinear program.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(scenes: int, candidates: int, obstacles: int, seed: int, ipopt: bool, as_json: bool) -> None:
    """Solve the same problems with other solvers and print objective, violation and time side by side."""
    from sfumato_cpto.verification import compare

    rows = compare(scenes, candidates, obstacles, seed, ipopt)
    if as_json:
        click.echo(json.dumps(rows))
        return
    click.echo(f"{scenes} scenes, C = {candidates}, M = {obstacles}, seed {seed}; medians over scenes")
    click.echo(
        f"{'problem':<10}{'solver':<12}{'solved':>8}{'rel. gap to ours':>20}{'violation':>12}{'ms':>10}{'x ours':>8}"
    )
    for row in rows:
        click.echo(
            f"{row['problem']:<10}{row['solver']:<12}{row['solved']:>5}/{row['scenes']:<2}{row['gap']:>20.2e}"
            f"{row['violation']:>12.1e}{row['ms']:>10.2f}{row['ratio']:>8.1f}"
        )


@click.command()
@click.argument(
    "family", type=click.Choice(["cruise", "racing", "noisy", "occluded-intersection", "occluded-pedestrian"])
)
@click.option(
    "-o", "--output", default="course.html", show_default=True, help="A .html page or an animated .gif."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the course.")
@click.option("--seconds", default=20.0, show_default=True, help="Length at most.")
def film(family: str, output: str, seed: int, seconds: float) -> None:
    """Drive one course and write a playable top view (HTML) or an animation (GIF)."""
    import attrs
    import numpy as np

    from sfumato_cpto.animate import animate, page, record
    from sfumato_cpto.driver import Driver
    from sfumato_cpto.simulator import scenes
    from sfumato_cpto.solver import CPTOSolver

    if not output.endswith((".html", ".gif")):
        raise click.UsageError(f"expected an output ending in .html or .gif, got {output}")
    rng = np.random.default_rng([seed, 0])
    scene = getattr(scenes, family.replace("-", "_"))(rng)
    scene = attrs.evolve(scene, max_time=min(scene.max_time, seconds))
    html = output.endswith(".html")
    frames = record(scene, Driver(CPTOSolver(), certified=True), rng, every=1 if html else 2)
    path = page(scene, frames, output) if html else animate(scene, frames, output, fps=5)
    click.echo(f"{len(frames)} frames of {scene.kind} in {path}")

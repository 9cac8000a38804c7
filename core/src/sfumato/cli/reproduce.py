"""`sfumato reproduce`: every claim of the papers, the paper's figure beside ours, with a verdict."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from sfumato import config
from sfumato.cli.text import NO_PLUGIN, folded, json_line
from sfumato.ledger import (
    CLASSES,
    TIME_LIMITS,
    Claim,
    Result,
    claims,
    committed,
    folder_of,
    markdown,
    read_result,
    write_result,
)
from sfumato.plugins import BUILTIN, Registry
from sfumato.provenance import code_digest, now
from sfumato.store import DEFAULT
from sfumato.supervisor import LACKING


@click.command("reproduce")
@click.argument("plugins", nargs=-1, metavar="[PLUGIN …]")
@click.option("--class", "machine", type=click.Choice(CLASSES), default="cpu-minutes", show_default=True,
              help="The dearest class of claims to run: cpu-hour includes cpu-minutes.")
@click.option("--claim", "ids", multiple=True, metavar="ID", help="These claims alone.")
@click.option("--ledger", is_flag=True, help="Run nothing: show the results that came with the plugins.")
@click.option("--write-ledger", is_flag=True, help="Write results into the plugins' packages, for committing.")
@click.option("--again", is_flag=True, help="Run claims whose result is there already.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the table as Markdown.")
@click.option("--data-dir", type=click.Path(file_okay=False), envvar="SFUMATO_DATA")
@click.option("--store", "store_dir", default=DEFAULT, type=click.Path(), envvar="SFUMATO_STORE")
@click.option("--json", "as_json", is_flag=True, help="One result a line.")
def command(
    plugins: Sequence[str], machine: str, ids: Sequence[str], ledger: bool, write_ledger: bool, again: bool,
    as_markdown: bool, data_dir: str | None, store_dir: str, as_json: bool,
) -> None:  # fmt: skip
    """Run what this machine can run of the papers' claims. What was run before, by the same code, is not run again.

    Exit status 1 when a claim that was run is not reproduced.
    """
    registry = Registry()
    wanted = claims(registry, plugins)
    if ids:
        from sfumato.errors import UnknownName, did_you_mean

        known = {c.id for c in wanted}
        for name in ids:
            if name not in known:
                raise UnknownName(f"no claim {name!r}.{did_you_mean(name, known)} There are: {', '.join(sorted(known))}.")
        wanted = [c for c in wanted if c.id in ids]
    if not wanted:
        nothing = registry.plugins.keys() == {BUILTIN}
        click.echo(NO_PLUGIN if nothing else f"No claims come with {', '.join(plugins) or 'what is installed'}.", err=True)
        return
    results = []
    for number, claim in enumerate(wanted, 1):
        if ledger:
            results.append(_came_with(registry, claim))
            continue
        if not ids and CLASSES.index(claim.machine) > CLASSES.index(machine):
            results.append(not_run(claim, f"needs --class {claim.machine}"))
            continue
        folded(f"[{number}/{len(wanted)}] {claim.plugin}/{claim.id}: {claim.title}", err=True)
        results.append(_reproduce(registry, claim, Path(store_dir), data_dir, again))
        if write_ledger and results[-1].value is not None:
            folder = folder_of(registry.plugins[claim.plugin].module)
            assert folder is not None  # the claim was read from it
            write_result(folder / "results" / f"{claim.id}.json", results[-1])
    if as_json:
        for result in results:
            json_line({**config.unstructure(result), "band": [str(b) for b in result.band]})
    elif as_markdown:
        click.echo(markdown(results), nl=False)
    else:
        from sfumato.cli.tables import ledger_table

        ledger_table(results)
    if any(r.verdict == "not reproduced" or r.reason.startswith("failed") for r in results):
        click.get_current_context().exit(1)


def _came_with(registry: Registry, claim: Claim) -> Result:
    """Return the result that came with a plugin, saying when its code has changed since."""
    result = committed(registry, claim)
    if result is None:
        return not_run(claim, "no committed result")
    changed = [package for package, digest in result.code.items() if digest != code_digest(package)]
    return attrs.evolve(result, reason=f"by earlier code of {', '.join(changed)}") if changed and not result.reason else result


def not_run(claim: Claim, reason: str) -> Result:
    """Return the result of a claim that was not run, and why."""
    return Result(
        claim.id, claim.plugin, claim.title, claim.source, claim.unit, claim.band, "not run", claim.paper, reason=reason,
        claim_digest=claim.digest,
    )  # fmt: skip


def _watched(words: Sequence[str], environment: Mapping[str, str], seconds: float) -> tuple[int | None, str]:
    """Run a command, passing on what it says as it says it; return its exit status, None when time ran out, and its last line.

    What it says may be what it waits for, so it is not kept until the end.
    """
    process = subprocess.Popen(words, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, errors="replace", env=environment)
    last = [""]

    def pass_on() -> None:
        for line in process.stderr or ():
            last[0] = line.strip() or last[0]
            click.echo(line, nl=False, err=True)

    reader = threading.Thread(target=pass_on, daemon=True)
    reader.start()
    try:
        status: int | None = process.wait(seconds)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        process.kill()  # nothing, where it has ended
        process.wait()
    reader.join(5.0)
    return status, last[0]


def _reproduce(registry: Registry, claim: Claim, store: Path, data_dir: str | None, again: bool) -> Result:
    """Measure a claim in a child process, or return the result that the same code gave before."""
    package = registry.plugins[claim.plugin].module.partition(".")[0]
    code = {package: code_digest(package)}
    path = store / "reproduce" / claim.plugin / f"{claim.id}.json"
    before = read_result(path)
    if before and not again and before.claim_digest == claim.digest and dict(before.code) == code:
        return before
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        job, answer = Path(folder) / "job.json", Path(folder) / "answer.json"
        job.write_text(json.dumps({"run": config.unstructure(claim.run), "store": str(store), "data_dir": data_dir}))
        environment = {**os.environ, **({"SFUMATO_DATA": data_dir} if data_dir else {})}
        words = [sys.executable, "-m", "sfumato.measure", str(job), str(answer)]
        status, last = _watched(words, environment, TIME_LIMITS[claim.machine])
        if status is None:
            return not_run(claim, f"failed: passed its time limit of {TIME_LIMITS[claim.machine]:g} s")
        got: dict[str, Any] = {"failed": last or "no message"} if status or not answer.exists() else json.loads(answer.read_text())
    if "failed" in got:
        lacking = re.search(rf"(?:{'|'.join(LACKING)}): .*", got["failed"], re.S)  # it could not be run here: no failure of its own
        return not_run(claim, lacking[0] if lacking else f"failed: {got['failed']}")
    if not math.isfinite(float(got["value"])):
        return attrs.evolve(not_run(claim, f"its figure is {got['value']}"), verdict="not reproduced", code=code)
    result = attrs.evolve(
        not_run(claim, ""),
        verdict=claim.verdict(float(got["value"])), value=float(got["value"]), low=got.get("low"), high=got.get("high"),
        n=got.get("n"), seconds=round(time.monotonic() - began, 1), when=now(), code=code,
        details=got.get("details", {}), provenance=got["provenance"],
    )  # fmt: skip
    write_result(path, result)
    return result

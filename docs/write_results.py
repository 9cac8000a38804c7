"""Writes the results page and README's tables from committed results. `python docs/write_results.py [--check]`.

Claims come from the ledgers that the plugins carry. Figures against peers come from the committed results of benchmarks: those
that docs/peers.toml points into, and `benchmarks/results/peers.json` of any plugin. Reads files alone: no plugin has to be
installed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE, README, MARK = ROOT / "docs" / "results.md", ROOT / "README.md", "<!-- ledger -->"


def figure(value: float | None) -> str:
    """Return four significant digits."""
    return "-" if value is None else f"{value:.4g}"


def digest(claim: dict[str, Any]) -> str:
    """Return what tells a claim's text from any other, as `sfumato.ledger.read_claim` does: it is checked by a test."""
    renamed = {("machine" if key == "class" else key): value for key, value in claim.items()}
    return hashlib.sha256(json.dumps(renamed, sort_keys=True, default=str).encode()).hexdigest()[:16]


def table(plugin: Path) -> list[str]:
    """Return a plugin's rows: every claim, with its committed result or none."""
    rows = []
    for path in sorted(plugin.glob("src/*/reproduce/*.toml")):
        claim = tomllib.loads(path.read_text())
        result_path = path.parent / "results" / f"{path.stem}.json"
        result = json.loads(result_path.read_text()) if result_path.exists() else {}
        here, verdict = "-", f"not run: class {claim.get('class', 'cpu-minutes')}"
        if result and result["claim_digest"] != digest(claim):
            result, verdict = {}, "not run since the claim was written anew"
        if result.get("value") is not None:
            here = figure(result["value"])
            if result.get("low") is not None and result.get("high") is not None:
                here += f" [{figure(result['low'])}, {figure(result['high'])}]"
            verdict = result["verdict"]
            beyond = (result.get("low") or 0.0) < claim["band"][0] or (result.get("high") or 0.0) > claim["band"][1]
            if verdict == "reproduced" and None not in (result.get("low"), result.get("high")) and beyond:
                verdict += ", though its interval leaves the band"
        paper = figure(claim["paper"]) if "paper" in claim else "-"
        unit = "" if claim["unit"] == "1" else f" ({claim['unit']})"
        rows.append(f"| {claim['title']}{unit} | {claim['source']} | {paper} | {here} | {result.get('n') or '-'} | {verdict} |")
    return rows


def lookup(data: Any, where: str | dict[str, Any], value: str | None) -> tuple[float, int]:
    """Return a figure and how many records it averages (0: it stands there as it is)."""
    if isinstance(where, dict):
        records = data["rows"] if isinstance(data, dict) else data
        found = [float(r[value]) for r in records if all(r.get(k) == v for k, v in where.items())]
        if not found:
            raise SystemExit(f"docs/peers.toml: no record with {where}")
        return math.fsum(found) / len(found), len(found)
    for key in where.split(" / "):
        try:
            data = data[int(key)] if isinstance(data, list) else data[key]
        except (KeyError, IndexError, TypeError):
            raise SystemExit(f"docs/peers.toml: {where!r} leads nowhere at {key!r}; the benchmark's result has another form now") from None
    return float(data), 0


def comparisons() -> list[dict[str, Any]]:
    """Return every row against a peer, plugin by plugin: what, peer, unit, better, ours, theirs, n, note."""
    rows = []
    for row in tomllib.loads((ROOT / "docs" / "peers.toml").read_text())["row"]:
        data = json.loads((ROOT / row["file"]).read_text())
        ours, n = lookup(data, row["ours"], row.get("value"))
        theirs, _ = lookup(data, row["theirs"], row.get("value"))
        found = {key: lookup(data, row[key], None)[0] for key in ("ours_least", "theirs_least", "n") if isinstance(row.get(key), str)}
        note = paired(data, row) if isinstance(data, list) else ""
        rows.append({"n": n or None, "note": note, **row, **found, "ours": ours, "theirs": theirs})
    for path in sorted(ROOT.glob("plugins/*/benchmarks/results/peers.json")):
        rows += [{"plugin": path.parents[2].name, "n": None, "note": "", **row} for row in json.loads(path.read_text())]
    return sorted(rows, key=lambda row: row["plugin"])


def paired(records: list[dict[str, Any]], row: dict[str, Any]) -> str:
    """Return ours less theirs over the instances and seeds that both have, with a standard error over instances."""
    ours, theirs = (
        {(r["instance"], r["seed"]): float(r[row["value"]]) for r in records if all(r.get(k) == v for k, v in row[side].items())}
        for side in ("ours", "theirs")
    )
    apart: dict[str, list[float]] = {}
    for instance, seed in ours.keys() & theirs.keys():
        apart.setdefault(instance, []).append(ours[instance, seed] - theirs[instance, seed])
    means = [statistics.fmean(values) for values in apart.values()]
    error = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    return f"ours less theirs, paired: {statistics.fmean(means):.2f} ± {error:.2f}"


def verdict(row: dict[str, Any]) -> str:
    """Return how ours compares: a ratio where both are positive, else a difference; worse results are said as plainly,
    and what is within the noise is called level."""
    ours, theirs, unit = row["ours"], row["theirs"], row["unit"]
    better = ours < theirs if row["better"] == "smaller" else ours > theirs
    if ours > 0 and theirs > 0 and unit not in ("%", ""):
        ratio = theirs / ours if row["better"] == "smaller" else ours / theirs
        text = f"{ratio:.1f} x" if ratio >= 1 else f"{1 / ratio:.1f} x worse"
    else:
        text = f"{abs(ours - theirs):.2g}{' ' + unit if unit else ''} {'better' if better else 'worse'}"
    if row.get("level"):
        return f"level ({text})"
    return f"**{text}**" if better else text


def peers() -> str:
    """Return the table against peers."""
    lines = ["| plugin | what | ours | peer | | n |", "|---|---|---|---|---|---|"]
    for row in comparisons():
        unit = f" {row['unit']}" if row["unit"] else ""
        note = f" ({row['note']})" if row["note"] else ""
        ours, theirs = (f"{row[s]:.3g}{unit}" + (f" (least {row[s + '_least']:.3g})" if s + "_least" in row else "") for s in ("ours", "theirs"))
        n = f"{row['n']:.0f}" if row["n"] else ""
        lines.append(f"| {row['plugin'].replace('_', '-')} | {row['what']}{note} | {ours} | {row['peer']}: {theirs} | {verdict(row)} | {n} |")
    return "\n".join(lines) + "\n"


def claims() -> str:
    """Return README's count of claims."""
    lines = ["| plugin | claims | reproduced | not reproduced | not run here |", "|---|---|---|---|---|"]
    for plugin in sorted((ROOT / "plugins").iterdir()):
        if rows := table(plugin):
            counts = Counter(row.rsplit("| ", 1)[1].removesuffix(" |").split(":")[0].split(",")[0] for row in rows)
            lines.append(
                f"| {plugin.name.replace('_', '-')} | {len(rows)} | {counts['reproduced']} | {counts['not reproduced']} "
                f"| {len(rows) - counts['reproduced'] - counts['not reproduced']} |"
            )
    return "\n".join(lines) + "\n"


def readme() -> str:
    """Return README with its generated tables."""
    text = README.read_text()
    for name, made in (("peers", peers()), ("claims", claims())):
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.S)
        if not pattern.search(text):
            raise SystemExit(f"README.md lacks the marks <!-- {name} --> and <!-- end of {name} -->")
        text = pattern.sub(lambda m, made=made: f"{m.group(1)}\n{made}\n{m.group(2)}", text)
    return text


def page() -> str:
    """Return the results page."""
    parts = [PAGE.read_text().partition(MARK)[0] + MARK + "\n\n## Against peers\n\n" + peers()]
    for plugin in sorted((ROOT / "plugins").iterdir()):
        if rows := table(plugin):
            head = ["| claim | source | paper | here (95 % interval) | n | verdict |", "|---|---|---|---|---|---|"]
            parts.append(f"\n## {plugin.name.replace('_', '-')}\n\n" + "\n".join(head + rows) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    made = {PAGE: page(), README: readme()}
    if "--check" in sys.argv:
        old = [str(path.relative_to(ROOT)) for path, text in made.items() if path.read_text() != text]
        sys.exit(f"{' and '.join(old)} out of date: python docs/write_results.py" if old else 0)
    for path, text in made.items():
        path.write_text(text)

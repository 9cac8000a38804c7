"""A model-risk report from an audit log: what was decided, on what grounds, and what the log proves.

Everything in it is read from the log after its chain has been verified and every decision replayed.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from sfumato_ofs.audit import Head, read
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.log_replay import replay
from sfumato_ofs.threshold_bandit import ThresholdBandit

PERIODS = 8
"""Slices of time in the tables."""


@attrs.frozen
class _Facts:
    """The log's events by kind; `fits` are decided batches, `warm` those learned from before going live. A batch whose
    labels came later has its reward put in."""

    settings: dict[str, Any]
    selects: list[dict[str, Any]]
    fits: list[dict[str, Any]]
    warm: list[dict[str, Any]]
    waiting: set[int]
    others: Counter[str]


def risk_report(path: str | Path, head: Head | None = None) -> str:
    """Return the report as Markdown.

    Arguments: head: one exported earlier, which the log must still hold.

    Raises: AuditError when the log does not verify or a decision does not come out again.
    """
    proof = replay(path, head)
    facts = _read(path)
    bandit = proof.bandit
    summary = bandit.report()
    certificate = bandit.certificate()
    constraints = bandit.constraints
    lines = [
        "# Threshold decisions: model-risk report",
        "",
        f"Log `{Path(path).name}`: {proof.head.lines} lines, head `{proof.head.hash}`. The chain verifies, and all "
        f"{proof.decisions} decisions come out again from the log alone.",
        "",
        "## What was decided",
        "",
        "| | |",
        "|---|---|",
        f"| learner | {summary['mode'] or 'no data yet'}{' (shadow: the incumbent was in force)' if bandit.shadow else ''} |",
        f"| decisions, batches learned from | {proof.decisions}, {len(facts.fits) + len(facts.warm)} |",
        f"| people | {sum(f['n'] for f in facts.fits)} |",
        f"| people of earlier decisions (warm start) | {sum(f['n'] for f in facts.warm)} |",
        f"| reward a person | {_reward(facts.fits)} |",
        f"| incumbent, now recommended | {summary['incumbent']:g}, {summary['recommended']:g} |",
        f"| corridor around the incumbent | {facts.settings['corridor'] if facts.settings['corridor'] is not None else 'none'} |",
        f"| margin on every constraint | {facts.settings['margin']:g} |",
        f"| cost of an accepted bad outcome | {bandit.loss:g} |",
        "",
        "## Constraints",
        "",
        f"{_words(constraints)}",
        "",
        "| constraint | batches seen | mean residual | worst batch | share of batches above 0 |",
        "|---|---|---|---|---|",
        *_constraint_rows(facts, constraints),
        "",
        "A residual at or below 0 means satisfied. Batch residuals are noisy: a batch above 0 is no violation by itself.",
        "",
        "## Over time",
        "",
        *_time_rows(facts, constraints.n_groups),
        "",
        "Reward a person of batches whose labels are all known; acceptance rates; each group's share of applicants. A share that "
        "moves with the rates is the population answering.",
        "",
        "## Feasibility map",
        "",
        "| threshold | times in force | reward a person | largest residual | bounds | verdict |",
        "|---|---|---|---|---|---|",
        *_map_rows(bandit),
        "",
        "Margin included. `certified`: the upper bound is at or below 0; `holds`: the estimate is; `open`: the estimate is above 0 "
        "and the bounds do not decide; `ruled out`: the lower bound is above 0.",
        "",
        "## Thresholds in force",
        "",
        "| threshold | decisions | share |",
        "|---|---|---|",
        *_play_rows(facts),
        "",
        "| reason | decisions |",
        "|---|---|",
        *[
            f"| {reason} | {count} |"
            for reason, count in Counter(s["reason"] for s in facts.selects).most_common()
        ],
        "",
        "## Groups",
        "",
        "| group | people | share | mean acceptance rate | lowest | highest |",
        "|---|---|---|---|---|---|",
        *_group_rows(facts, constraints.n_groups),
        "",
        "## What is certified",
        "",
        f"Bounds: {certificate['bounds']}, delta = {certificate['delta']:g}. "
        + (
            f"For a population at rest they hold together {certificate['when']} with probability 1 - delta."
            if certificate["holds"]
            else f"They carry no guarantee ({certificate['why']}): read them as indications."
        ),
        "",
        _certified(certificate),
        "",
        "## Limits",
        "",
        "* The population answers to decisions; bounds compare rounds from different states of it.",
        "* Equal acceptance rates say nothing about equal error rates; outcomes of rejected people are not known.",
        f"* Batches whose labels never arrived in full: {len(facts.waiting)}. Decisions off policy: "
        f"{sum(bool(f.get('off_policy')) for f in facts.fits)}. Batches without a rate for some group: "
        f"{sum('no_gap_seen' in f for f in facts.fits)}. Empty batches: {facts.others['empty']}.",
        "",
    ]
    return "\n".join(lines)


def _read(path: str | Path) -> _Facts:
    facts = _Facts({}, [], [], [], set(), Counter())
    by_number: dict[int, dict[str, Any]] = {}
    for event in read(path):
        kind = event["event"]
        if kind == "open":
            facts.settings.update(event["settings"])
        elif kind == "select":
            facts.selects.append(event)
        elif kind == "fit":
            (facts.warm if event.get("warm") else facts.fits).append(event)
            by_number[event["batch"]] = event
            # A warm start's unknown outcomes are not waited for: nobody said that they would come.
            if event.get("unlabelled") and not event.get("warm"):
                facts.waiting.add(event["batch"])
        else:
            facts.others[kind] += 1
            if kind == "labels" and event["complete"]:
                facts.waiting.discard(event["batch"])
                by_number[event["batch"]]["reward"] = event["reward"]
    return facts


def _words(c: Constraints) -> str:
    parity = {
        "signed": f"acceptance rates of any two groups differ by at most {c.eps:g}",
        "abs": f"acceptance rates of any two groups differ by at most {c.eps:g}",
        "to-overall": f"each group's acceptance rate is within {c.eps:g} of the overall rate",
        "ratio": f"no group's acceptance rate is below {1 - c.eps:g} times another's",
    }[c.gap]
    floor = "" if c.rho_min is None else f"; at least {c.rho_min:.0%} are accepted"
    ceiling = "" if c.rho_max is None else f"; at most {c.rho_max:.0%} are accepted"
    return f"Asked for: {parity}{floor}{ceiling}."


def _residuals(fits: list[dict[str, Any]], c: Constraints) -> np.ndarray:
    """Residuals of each batch under the threshold in force [batches, I]; NaN where not seen."""
    rows = []
    for fit in fits:
        if "residuals" in fit:
            rows.append([np.nan if g is None else g for g in fit["residuals"]])
        else:
            rates = np.array([[np.nan if r is None else r for r in fit["rates"]]])
            rows.append(c.residuals(rates, np.array([fit["accepted"] / fit["n"]]))[0].tolist())
    return np.array(rows).reshape(len(rows), c.size)


def _constraint_rows(facts: _Facts, c: Constraints) -> list[str]:
    table = _residuals(facts.fits, c)
    rows = []
    for i, name in enumerate(c.names):
        seen = table[~np.isnan(table[:, i]), i]
        if len(seen):
            rows.append(
                f"| {name} | {len(seen)} | {seen.mean():.4f} | {seen.max():.4f} | {(seen > 0).mean():.1%} |"
            )
        else:
            rows.append(f"| {name} | 0 | - | - | - |")
    return rows


def _reward(fits: list[dict[str, Any]]) -> str:
    """Mean reward a person of batches with all labels, and how many batches that is."""
    known = [(f["reward"], f["n"]) for f in fits if f.get("reward") is not None]
    if not known:
        return "- (no batch has all its labels)" if fits else "-"
    reward, n = np.array(known).T
    few = "" if len(known) == len(fits) else f" ({len(known)} of {len(fits)} batches)"
    return f"{(reward * n).sum() / n.sum():.4f}{few}"


def _time_rows(facts: _Facts, n_groups: int) -> list[str]:
    heads = [f"rate {a}" for a in range(n_groups)] + [f"share {a}" for a in range(n_groups)]
    rows = [
        f"| batches | people | threshold | reward a person | {' | '.join(heads)} |",
        "|---|---|---|---|" + "---|" * len(heads),
    ]
    edges = np.linspace(0, len(facts.fits), min(PERIODS, len(facts.fits)) + 1).round().astype(int)
    for first, last in pairwise(edges):
        fits = facts.fits[first:last]
        taus = [f["tau"] for f in fits]
        span = f"{min(taus):g}" if min(taus) == max(taus) else f"{min(taus):g} to {max(taus):g}"
        cells = [_mean_rate(fits, a) for a in range(n_groups)] + [_share(fits, a) for a in range(n_groups)]
        which = f"{first + 1} to {last}" if last > first + 1 else f"{last}"
        rows.append(
            f"| {which} | {sum(f['n'] for f in fits)} | {span} | {_reward(fits)} | {' | '.join(cells)} |"
        )
    return rows


def _mean_rate(fits: list[dict[str, Any]], a: int) -> str:
    seen = [
        (f["rates"][a], f["people"][a] if "people" in f else f["n"])
        for f in fits
        if f["rates"] is not None and f["rates"][a] is not None
    ]
    if not seen:
        return "-"
    rates, n = np.array(seen).T
    return f"{(rates * n).sum() / n.sum():.4f}"


def _share(fits: list[dict[str, Any]], a: int) -> str:
    sized = [(f["people"][a], f["n"]) for f in fits if "people" in f]
    return f"{sum(p for p, _ in sized) / sum(n for _, n in sized):.3f}" if sized else "-"


def _map_rows(bandit: ThresholdBandit) -> list[str]:
    rows = []
    for v in bandit.feasibility():
        if v.word == "unseen" and not v.allowed:
            continue
        reward = "-" if v.reward is None else f"{v.reward:.4f}"
        residual = "-" if v.residual is None else f"{v.residual:.4f}"
        bounds = f"{v.lower:.4f} to {v.upper:.4f}" if np.isfinite(v.upper) else "-"
        outside = "" if v.allowed else " (outside the corridor)"
        rows.append(f"| {v.tau:g} | {v.selected} | {reward} | {residual} | {bounds} | {v.word}{outside} |")
    return rows


def _play_rows(facts: _Facts) -> list[str]:
    counts = Counter(s["tau"] for s in facts.selects)
    return [f"| {tau:g} | {k} | {k / len(facts.selects):.1%} |" for tau, k in sorted(counts.items())]


def _group_rows(facts: _Facts, n_groups: int) -> list[str]:
    rows = []
    for a in range(n_groups):
        rates = [f["rates"][a] for f in facts.fits if f["rates"] is not None and f["rates"][a] is not None]
        people = sum(f["people"][a] for f in facts.fits if "people" in f)
        ends = f"{min(rates):.4f} | {max(rates):.4f}" if rates else "- | -"
        rows.append(f"| {a} | {people:g} | {_share(facts.fits, a)} | {_mean_rate(facts.fits, a)} | {ends} |")
    return rows


def _certified(certificate: dict[str, Any]) -> str:
    if not certificate["certified"]:
        return "No threshold's upper bounds are all at or below 0 yet."
    taus = ", ".join(f"{entry['tau']:g}" for entry in certificate["certified"])
    return f"{'Certified' if certificate['holds'] else 'Indicated'} feasible: {taus}."

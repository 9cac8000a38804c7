"""A model-risk report from an audit log: what was decided, on what grounds, and what the log proves.

Everything in it is read from the log after its chain has been verified and every decision replayed.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from sfumato_ofs.audit import read
from sfumato_ofs.log_replay import replay


@attrs.frozen
class _Facts:
    settings: dict[str, Any]
    selects: list[dict[str, Any]]
    fits: list[dict[str, Any]]
    others: Counter[str]


def risk_report(path: str | Path) -> str:
    """Return the report as Markdown.

    Raises: AuditError when the log does not verify or a decision does not come out again.
    """
    proof = replay(path)
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
        f"| decisions, batches learned from | {proof.decisions}, {len(facts.fits)} |",
        f"| people | {sum(f['n'] for f in facts.fits)} |",
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
        *_constraint_rows(facts, bandit),
        "",
        "A residual at or below 0 means satisfied. Batch residuals are noisy: a batch above 0 is no violation by itself.",
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
        "| group | people weighed | mean acceptance rate | lowest | highest |",
        "|---|---|---|---|---|",
        *_group_rows(facts, constraints.n_groups),
        "",
        "## What is certified",
        "",
        f"Bounds: {certificate['bounds']}, delta = {certificate['delta']:g}. "
        + (
            "For a population at rest they hold together with probability 1 - delta."
            if certificate["holds"]
            else "They are narrower than the full guarantee asks (beta below 1, or decayed counts): read them as indications."
        ),
        "",
        _certified(certificate),
        "",
        "## Limits",
        "",
        "* The population answers to decisions; bounds compare rounds from different states of it.",
        "* Equal acceptance rates say nothing about equal error rates; outcomes of rejected people are not known.",
        f"* Batches whose labels never arrived: {summary['waiting_for_labels']}. Decisions off policy: "
        f"{sum(bool(f.get('off_policy')) for f in facts.fits)}. Batches without a rate for some group: "
        f"{sum('no_gap_seen' in f for f in facts.fits)}. Empty batches: {facts.others['empty']}.",
        "",
    ]
    return "\n".join(lines)


def _read(path: str | Path) -> _Facts:
    facts = _Facts({}, [], [], Counter())
    for event in read(path):
        if event["event"] == "open":
            facts.settings.update(event["settings"])
        elif event["event"] == "select":
            facts.selects.append(event)
        elif event["event"] == "fit":
            facts.fits.append(event)
        else:
            facts.others[event["event"]] += 1
    return facts


def _words(c: Any) -> str:
    parity = {
        "signed": f"acceptance rates of any two groups differ by at most {c.eps:g}",
        "abs": f"acceptance rates of any two groups differ by at most {c.eps:g}",
        "to-overall": f"each group's acceptance rate is within {c.eps:g} of the overall rate",
        "ratio": f"no group's acceptance rate is below {1 - c.eps:g} times another's",
    }[c.gap]
    floor = "" if c.rho_min is None else f"; at least {c.rho_min:.0%} are accepted"
    ceiling = "" if c.rho_max is None else f"; at most {c.rho_max:.0%} are accepted"
    return f"Asked for: {parity}{floor}{ceiling}."


def _residuals(facts: _Facts, bandit: Any) -> np.ndarray:
    """Residuals of each batch under the threshold in force [batches, I]; NaN where not seen."""
    c = bandit.constraints
    rows = []
    for fit in facts.fits:
        if "residuals" in fit:
            rows.append([np.nan if g is None else g for g in fit["residuals"]])
        else:
            rates = np.array([[np.nan if r is None else r for r in fit["rates"]]])
            people = np.array(fit["counts"]["people"])
            overall = people[fit["arm"] + 1 :].sum() / max(people.sum(), 1)
            rows.append(c.residuals(rates, np.array([overall]))[0].tolist())
    return np.array(rows).reshape(len(rows), c.size)


def _constraint_rows(facts: _Facts, bandit: Any) -> list[str]:
    table = _residuals(facts, bandit)
    rows = []
    for i, name in enumerate(bandit.constraints.names):
        seen = table[~np.isnan(table[:, i]), i]
        if len(seen):
            rows.append(
                f"| {name} | {len(seen)} | {seen.mean():.4f} | {seen.max():.4f} | {(seen > 0).mean():.1%} |"
            )
        else:
            rows.append(f"| {name} | 0 | - | - | - |")
    return rows


def _play_rows(facts: _Facts) -> list[str]:
    counts = Counter(s["tau"] for s in facts.selects)
    return [f"| {tau:g} | {k} | {k / len(facts.selects):.1%} |" for tau, k in sorted(counts.items())]


def _group_rows(facts: _Facts, n_groups: int) -> list[str]:
    rows = []
    for a in range(n_groups):
        seen = [
            (f["rates"][a], f["n"])
            for f in facts.fits
            if f["rates"] is not None and f["rates"][a] is not None
        ]
        if seen:
            rates, n = np.array([r for r, _ in seen]), np.array([k for _, k in seen])
            mean = (rates * n).sum() / n.sum()
            rows.append(
                f"| {a} | in {len(seen)} batches | {mean:.4f} | {rates.min():.4f} | {rates.max():.4f} |"
            )
        else:
            rows.append(f"| {a} | none | - | - | - |")
    return rows


def _certified(certificate: dict[str, Any]) -> str:
    if not certificate["certified"]:
        return "No threshold is certified feasible yet."
    taus = ", ".join(f"{entry['tau']:g}" for entry in certificate["certified"])
    return f"Certified feasible: {taus}."

"""Figures over training seeds and the factorial's contrasts, on studies whose answers are known."""

import numpy as np
import pytest

from sfumato_opaque_knapsack import factorial

N = 40


def fake_study(size, seed, cue, losses=0.0, regimes="persistent,stateless"):
    """Missing variables in stateless unless the state was lost in training and a cue tells of it."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.001, N)

    def cell(name):
        missing = name == "P->S" and not (losses and cue != "none")
        tokens = 300 if name[0] == "P" else 750
        score = 0.0 if name == "P->S" and not losses else 0.8
        return [
            {
                "score": score + noise[k],
                "missing_strict": missing,
                "missing_any": missing,
                "failed_actions": int(missing),
                "turns": 5,
                "tokens": {"completion": tokens},
            }
            for k in range(N)
        ]

    names = ["P->P", "P->S"] + (["S->P", "S->S"] if "stateless" in regimes else [])
    return {
        "episodes": {name: cell(name) for name in names},
        "cells": {name: {"n": N} for name in names},
        "tests": {},
        "training": {},
        "provenance": {"seed": seed, "cue": cue},
        "expert_score": 1.0,
    }


@pytest.fixture(autouse=True)
def known_studies(monkeypatch):
    monkeypatch.setattr(factorial, "study_of", fake_study)


def test_figures_over_seeds_are_those_of_the_studies():
    assert factorial.over_seeds("missing_gap")["value"] == 1.0
    ratio = factorial.over_seeds("token_ratio")
    assert (ratio["value"], ratio["low"], ratio["high"], ratio["n"]) == (2.5, 2.5, 2.5, 3 * N)
    worst = factorial.over_seeds("aligned_share")
    assert worst["low"] <= worst["value"] <= worst["high"]
    assert worst["value"] == pytest.approx(0.8, abs=0.001)
    assert worst["value"] == min(worst["details"]["per_seed"].values())
    quality = factorial.over_seeds("score_equivalence")
    assert quality["value"] == 0.0
    assert quality["details"]["equivalence"]["p"] < 0.05


def test_the_cues_effect_depends_on_what_training_showed():
    """A contrast of none without losses, of -1 with them, and no difference where nothing is lost."""
    assert factorial.cue_contrast("missing")["value"] == 0.0
    assert factorial.cue_contrast("missing", losses=0.5)["value"] == -1.0
    crossing = factorial.cue_contrast("interaction", losses=0.5)
    assert (crossing["value"], crossing["low"], crossing["high"]) == (-1.0, -1.0, -1.0)
    assert crossing["details"]["sign_flip"]["p"] < 0.001
    assert crossing["details"]["table_by_seed"]["P->S, none"]["missing_strict"] == [1.0, 1.0, 1.0]
    assert factorial.cue_contrast("recovery")["value"] == pytest.approx(-0.8)


def test_the_interval_over_seeds_and_instances_is_wider_than_over_instances_alone():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (3, 50)) + np.array([[-1.0], [0.0], [1.0]])
    low, high = factorial.crossed(np.mean, values)
    within = 2 * 1.96 / np.sqrt(150)
    assert high - low > 1.5 * within
    assert low < values.mean() < high


@pytest.mark.parametrize("call", [factorial.over_seeds, factorial.cue_contrast])
def test_an_unknown_figure_is_named(call):
    with pytest.raises(ValueError, match="got 'beauty'"):
        call("beauty")

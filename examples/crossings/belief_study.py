"""The particle belief of `vopp/planner` on Opaque Knapsack against the exact one, when the inspections are spent.

python belief_study.py
"""

from __future__ import annotations

import json

import numpy as np
from sfumato_crossings.endgame import allowed_sets

from sfumato_opaque_knapsack.instances import EVAL_SEED_BASE, LEVELS, generate
from sfumato_opaque_knapsack.pomdp import ALLOWED, RankedModel
from sfumato_vopp import ParticleFilter


def study(level: str, n: int, n_particles: int) -> None:
    """Print how far apart the two beliefs are over n instances, and how often the particles are certain and wrong."""
    apart, distinct, wrong = [], [], 0
    for k in range(n):
        one = generate(level, EVAL_SEED_BASE + k)
        model = RankedModel.for_instance(one, LEVELS[level])
        kept = ParticleFilter(model, n_particles, np.random.default_rng(k))
        seen = one.items[: one.budget]
        for item in seen:
            shown = json.dumps({"class": item.label, "weight": item.weight, "value": item.value})
            kept.update(1, model.observation_of(1, {"ok": True, "value": shown}))
        masks = kept.belief.particles[:, ALLOWED]
        distinct.append(len(np.unique(masks)))
        labels = [ord(item.label) - ord("A") for item in seen]
        sets, chances = allowed_sets(LEVELS[level], one.n, one.capacity, one.classes, [i.weight for i in seen], labels)
        for label in set(labels) - {labels[0]}:
            said = float(np.mean((masks >> label) & 1))
            apart.append(abs(said - chances[(sets >> label) & 1 == 1].sum()))
            wrong += said == (chr(label + ord("A")) not in one.allowed)
    print(
        f"{level}, {n} instances, {n_particles} particles: {np.mean(distinct):.1f} sets of classes left, "
        f"{np.mean(apart):.3f} from the exact probability, {wrong} of {len(apart)} classes certain and wrong"
    )


if __name__ == "__main__":
    study("micro", 60, 500)
    study("easy", 40, 500)

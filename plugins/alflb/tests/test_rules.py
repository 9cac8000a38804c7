from __future__ import annotations

import numpy as np
import pytest

from sfumato_alflb import RULES, ArgumentError, BiasRule


@pytest.mark.parametrize(
    ("name", "n", "want"),
    [
        ("sign", 4, [-0.1, 0.0, 0.1]),
        ("sign_sqrt", 4, [-0.05, 0.0, 0.05]),
        ("sign_inv", 4, [-0.025, 0.0, 0.025]),
        ("prop", 4, [-0.05, 0.0, 0.05]),
        ("prop_sqrt", 4, [-0.025, 0.0, 0.025]),
        ("prop_inv", 4, [-0.0125, 0.0, 0.0125]),
    ],
)
def test_each_rule_by_hand(name: str, n: int, want: list[float]) -> None:
    """Loads 6, 4, 2 with mean 4 and u = 0.1."""
    assert BiasRule(name, 0.1).delta([6, 4, 2], n) == pytest.approx(want)


def test_the_theory_step_by_hand() -> None:
    """1/(mu n) times the gap in tokens."""
    assert BiasRule("ogd", mu=10.0).delta([6, 4, 2], 2) == pytest.approx([-0.1, 0.0, 0.1])


@pytest.mark.parametrize("name", RULES)
def test_no_rule_moves_on_an_empty_batch(name: str) -> None:
    """No tokens, no evidence, no update."""
    assert BiasRule(name, 0.1, mu=1.0).delta([0, 0, 0], 1).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", [r for r in RULES if r.startswith("prop")])
def test_proportional_rules_do_not_depend_on_the_batch_size(name: str) -> None:
    """u means the same whether a batch has 12 tokens or 12,000."""
    rule = BiasRule(name, 0.1)
    assert rule.delta([6, 4, 2], 3) == pytest.approx(rule.delta([6000, 4000, 2000], 3))


@pytest.mark.parametrize(
    ("settings", "argument"),
    [({"name": "sing"}, "rule"), ({"u": -1e-3}, "u"), ({"u": float("nan")}, "u"), ({"name": "ogd"}, "mu")],
)
def test_bad_settings_are_refused_by_name(settings: dict[str, object], argument: str) -> None:
    """A negative step or an unknown rule never gets as far as an update."""
    with pytest.raises(ArgumentError) as caught:
        BiasRule(**settings)  # type: ignore[arg-type]
    assert caught.value.argument == argument


def test_negative_loads_are_refused() -> None:
    """Counts cannot be negative."""
    with pytest.raises(ArgumentError, match="loads"):
        BiasRule().delta(np.array([1, -1]), 1)
    with pytest.raises(ArgumentError, match="n:"):
        BiasRule("sign_inv").delta([1, 2], 0)
    with pytest.raises(ArgumentError, match="mean_load"):
        BiasRule("prop").delta([1, 2], 1, mean_load=-2.0)

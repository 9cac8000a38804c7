"""Residuals, violations, scales."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_ofs.constraints import Constraints, reward_scale
from sfumato_ofs.errors import OfsError


def test_signed_residuals_by_hand() -> None:
    """r0 - r1 - eps, r1 - r0 - eps, rho_min - rate, in this order."""
    c = Constraints(eps=0.1, rho_min=0.3)
    r = c.residuals(np.array([[0.7, 0.5]]), np.array([0.6]))
    assert r[0] == pytest.approx([0.1, -0.3, -0.3])
    assert c.names == ("signed-gap-0-1", "signed-gap-1-0", "service-floor")


def test_the_absolute_gap_is_biased_and_the_signed_one_is_not() -> None:
    """At n = 200 split 40/60 equal groups show a mean absolute gap of about 0.057: sqrt(2/pi) of its noise."""
    rng = np.random.default_rng(0)
    rates = np.stack([rng.binomial(120, 0.5, 20000) / 120, rng.binomial(80, 0.5, 20000) / 80], axis=1)
    overall = rates @ [0.6, 0.4]
    bias = (Constraints(gap="abs").residuals(rates, overall)[:, 0] + 0.1).mean()
    assert bias == pytest.approx(np.sqrt(2 / np.pi) * np.sqrt(0.25 / 120 + 0.25 / 80), abs=0.002)
    assert abs((Constraints().residuals(rates, overall)[:, 0] + 0.1).mean()) < 0.002


def test_an_absent_group_gives_no_gap_but_a_service_observation() -> None:
    """NaN in, NaN out, for the gap only."""
    r = Constraints().residuals(np.array([[0.7, np.nan]]), np.array([0.7]))
    assert np.isnan(r[0, :2]).all() and r[0, 2] == pytest.approx(-0.4)


def test_violation_counts_each_constraint_once() -> None:
    """Gap 0.3 over eps 0.1 and rate 0.2 under the floor 0.3: 0.2 + 0.1."""
    assert Constraints().violation(np.array([[0.35, 0.05]]), np.array([0.2]))[0] == pytest.approx(0.3)


def test_four_fifths_rule_by_hand() -> None:
    """Rates 0.5 and 0.4 sit on the four-fifths boundary; 0.39 violates by 0.01."""
    c = Constraints(eps=0.2, gap="ratio", rho_min=None)
    assert c.residuals(np.array([[0.5, 0.4]]), np.array([0.45])).max() == pytest.approx(0.0)
    assert c.residuals(np.array([[0.5, 0.39]]), np.array([0.45])).max() == pytest.approx(0.01)


def test_three_groups_have_six_ordered_pairs() -> None:
    """G(G-1) signed residuals, or 2G against the overall rate."""
    rates, overall = np.array([[0.9, 0.5, 0.4]]), np.array([0.6])
    pairs = Constraints(n_groups=3, rho_min=None)
    assert pairs.size == 6
    assert pairs.residuals(rates, overall).max() == pytest.approx(0.4)
    overall_form = Constraints(n_groups=3, rho_min=None, gap="to-overall")
    assert overall_form.size == 6
    assert overall_form.residuals(rates, overall).max() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": -0.1}, "eps must lie"),
        ({"rho_min": 0.6, "rho_max": 0.5}, "rho_min must not exceed rho_max"),
        ({"rho_min": 2.0}, "rho_min must lie"),
        ({"gap": "square"}, "gap must be"),
        ({"n_groups": 1}, "demographic parity is undefined for 1 group"),
    ],
)
def test_bad_settings_name_the_argument(settings: dict, message: str) -> None:
    with pytest.raises(OfsError, match=message):
        Constraints(**settings)


def test_scales_of_the_reference_design() -> None:
    """0.5 (1 + loss)/sqrt(n), 1/sqrt(n), 0.5/sqrt(n)."""
    assert reward_scale(1.0, 200) == pytest.approx(1 / np.sqrt(200))
    assert Constraints().scales(400) == pytest.approx([0.05, 0.05, 0.025])

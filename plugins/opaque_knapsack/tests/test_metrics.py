"""Statistics: facts known by hand, and agreement with SciPy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato_opaque_knapsack.metrics import (
    bootstrap_mean,
    count_words,
    equivalence,
    holm,
    interaction,
    longest_run,
    mcnemar,
    repeated_share,
    share,
    tokens_of,
    wilcoxon,
)


def test_words_and_marks_are_counted_and_spaces_are_not():
    assert count_words("look(3)\n  x = 1") == 7


def test_the_longest_run_is_found():
    assert longest_run([True, False, True, True, False]) == 2
    assert longest_run([]) == 0


def test_cumulative_tokens_grow_with_turns_and_unique_tokens_do_not():
    """Two calls: prompts 10 and 25, completions 5 and 7."""
    tokens = tokens_of([(10, 5), (25, 7)])
    assert (tokens.cumulative, tokens.unique, tokens.completion) == (47, 32, 12)
    assert tokens.cached_cost(0.1) == pytest.approx(33.5)


def test_a_statement_sent_again_counts_as_repeated_whatever_its_spacing():
    assert repeated_share(["a = 1\nb = 2", "a  =  1\nc = 3"]) == pytest.approx(3 / 12)
    assert repeated_share(["a = 1", "a = ("]) == 0.0
    assert repeated_share([]) == 0.0


def test_the_rank_biserial_effect_reaches_both_ends():
    """All differences of one sign give plus or minus one; the released formula could not."""
    x, y = [1.0, 2.0, 3.0, 4.0], [0.5, 1.0, 1.0, 0.0]
    assert wilcoxon(x, y).effect == 1.0
    assert wilcoxon(y, x).effect == -1.0
    assert wilcoxon(x, x) == wilcoxon(y, y)


def test_wilcoxon_agrees_with_scipy():
    from scipy import stats

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=40), rng.normal(0.3, size=40)
    assert wilcoxon(x, y).p == pytest.approx(stats.wilcoxon(x, y).pvalue)


def test_equivalence_needs_a_small_difference_and_enough_pairs():
    rng = np.random.default_rng(1)
    x = rng.normal(0.8, 0.05, 100)
    assert equivalence(x, x + rng.normal(0, 0.01, 100)).p < 0.001
    assert equivalence(x, x - 0.1 + rng.normal(0, 0.01, 100)).p > 0.99
    assert equivalence(x[:3], x[:3] + rng.normal(0, 0.2, 3)).p > 0.05


def test_mcnemar_is_the_sign_test_on_discordant_pairs():
    """Five discordant pairs, all one way: p = 2 / 2^5."""
    assert mcnemar([True] * 5 + [False] * 5, [False] * 10).p == pytest.approx(2 / 32)
    assert mcnemar([True, False], [True, False]).p == 1.0


def test_interaction_is_nil_for_additive_cells_and_certain_for_a_strong_one():
    rng = np.random.default_rng(2)
    base, noise = rng.normal(size=30), lambda: rng.normal(0, 0.05, 30)
    additive = interaction(base, base + 1 + noise(), base + 2, base + 3 + noise(), resamples=2000)
    assert additive.p > 0.01
    strong = interaction(base, base + 1 + noise(), base + 2, base + noise(), resamples=2000)
    assert strong.p < 0.001
    assert strong.difference == pytest.approx(-3, abs=0.1)


def test_holm_multiplies_by_the_number_of_hypotheses_left():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=6))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= adjusted[name] <= 1 for name, p in p_values.items())
    ordered = sorted(p_values, key=p_values.get)
    assert all(adjusted[a] <= adjusted[b] for a, b in itertools.pairwise(ordered))


def test_a_bootstrap_interval_has_the_width_that_theory_says():
    """For 400 draws of unit variance the half-width is near 1.96 / 20."""
    interval = bootstrap_mean(np.random.default_rng(3).normal(size=400))
    assert interval.half_width == pytest.approx(1.96 / 20, rel=0.15)
    assert interval.low < interval.value < interval.high


def test_a_share_of_none_still_has_an_upper_limit():
    """The rule of three: no hit in 60 leaves about 1 - 0.025^(1/60) above."""
    interval = share(0, 60)
    assert interval.low == 0.0
    assert interval.high == pytest.approx(1 - math.pow(0.025, 1 / 60), rel=1e-6)

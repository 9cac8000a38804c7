"""Paired comparison: known answers, refusals, corrections."""

from __future__ import annotations

import json

import attrs
import numpy as np
import pytest
from scipy import stats as scipy_stats

from sfumato import stats
from sfumato.compare import Comparison, Side, Values, compare, holm, left_out, paired, partners
from sfumato.errors import UsageError


def side(label="a", world="w", direction="max", reduce="mean", **metrics):
    made = {n: Values(n, "1", direction, reduce, dict(enumerate(v))) for n, v in metrics.items()}
    return Side(label, "toys/x", world, ("0",), made)


def test_a_constant_difference_is_found_exactly():
    """Second is better by 1 on each of ten items."""
    x = np.arange(10.0)
    (made,) = compare(side(score=x), side("b", score=x + 1))
    assert (made.difference, made.low, made.high) == (1.0, 1.0, 1.0)
    assert (made.wins, made.ties, made.losses) == (10, 0, 0)
    assert made.effect == 1.0
    assert made.p == pytest.approx(2 / 2**10)


def test_direction_decides_who_wins():
    """Smaller cost is better."""
    (made,) = compare(side(direction="min", cost=[3, 3, 3]), side("b", direction="min", cost=[2, 3, 4]))
    assert (made.wins, made.ties, made.losses) == (1, 1, 1)
    assert made.effect == 0.0


def test_lines_that_cannot_differ_have_no_p_and_cost_the_others_nothing():
    """All ties: no sign could make such a line significant, so the correction is over the others."""
    up = np.arange(1.0, 11.0)
    made = holm(compare(side(score=[1] * 10, flat=[1] * 10, still=up), side("b", score=1 + up, flat=[1] * 10, still=up)))
    score, flat, still = made
    assert (flat.p, flat.p_holm, flat.effect, flat.difference, flat.ties) == (None, None, 0.0, 0.0, 10)
    assert still.p is None
    assert score.p_holm == score.p == pytest.approx(2 / 2**10)
    assert [c.n_family for c in made] == [1, 1, 1]


def test_p_is_scipys_wilcoxon_and_the_interval_covers_the_mean_difference():
    """Agreement with the library, and a bootstrap interval of the right width."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = x + 0.3 + 0.5 * rng.normal(size=60)
    (made,) = compare(side(score=x), side("b", score=y))
    assert made.p == pytest.approx(scipy_stats.wilcoxon(y - x).pvalue)
    width = 2 * 1.96 * np.std(y - x, ddof=1) / np.sqrt(60)
    assert made.high - made.low == pytest.approx(width, rel=0.15)
    assert made.low < made.difference < made.high


@pytest.mark.parametrize("gap", [[1] * 15 + [-1] * 5, [2] * 9 + [-1] * 3 + [3, -4], [1] * 60 + [-1] * 40, [1] * 4 + [0] * 90])
def test_p_of_tied_differences_is_that_of_all_permutations(gap):
    """As of successes and failures, where the normal approximation promises too much; by counting sums of ranks."""
    (made,) = compare(side(score=[0] * len(gap)), side("b", score=gap))
    moved = np.array([g for g in gap if g])
    ranks = (2 * scipy_stats.rankdata(np.abs(moved))).astype(int)  # twice, to be whole
    ways = np.zeros(ranks.sum() + 1)
    ways[0] = 1.0
    for rank in ranks:
        ways[rank:] = (ways[rank:] + ways[:-rank]) / 2
        ways[:rank] /= 2
    far = abs(2 * ranks[moved > 0].sum() - ranks.sum())
    exact = ways[np.abs(2 * np.arange(len(ways)) - ranks.sum()) >= far].sum()
    assert made.p == pytest.approx(exact, rel=0.05)


def test_infinite_values_make_no_noise(recwarn):
    """Their difference is no number, said once and in the table."""
    (made,) = compare(side(score=[1, np.inf]), side("b", score=[2, np.inf]))
    assert np.isnan(made.difference)
    assert made.p is None
    assert not recwarn.list


def test_other_instances_are_refused_and_named():
    """Which items only one side has."""
    a = Values("score", "1", "max", "mean", {0: 1.0, 1: 1.0, 2: 1.0})
    b = Values("score", "1", "max", "mean", {2: 1.0, 5: 1.0})
    with pytest.raises(UsageError, match="only a has instances 0-1; only b has instances 5"):
        compare(Side("a", "t", "w", (), {"score": a}), Side("b", "t", "w", (), {"score": b}))


def test_another_world_is_refused_and_named():
    """Seed or settings of the task differ."""
    first, second = (json.dumps(["t", 1, {"n": n}, 0, None, {}]) for n in (1, 2))
    with pytest.raises(UsageError, match=r'task settings \{"n": 1\} against \{"n": 2\}'):
        compare(side(world=first, score=[1]), side("b", world=second, score=[1]))


def test_an_unknown_metric_is_named_with_the_nearest():
    """And which side lacks it."""
    with pytest.raises(UsageError, match="'a' has no metric 'scor'. Did you mean 'score'"):
        compare(side(score=[1]), side("b", score=[1]), ["scor"])


def test_nan_makes_no_test():
    """A broken figure is shown as such, never tested."""
    made = paired(side(), side("b"), Values("s", "1", "max", "mean", {}), [1, np.nan, np.inf, 4], [1, 2, 3, np.inf])
    assert np.isnan(made.difference)
    assert made.p is None
    assert made.n_not_finite == 3


def test_holm_is_the_step_down_of_the_textbook():
    """p = .01, .04, .03, .005 become .03, .06, .06, .02 (Holm 1979, four hypotheses)."""
    blank = Comparison("t", "m", "1", "max", "mean", "a", "b", 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, None)
    made = holm([attrs.evolve(blank, p=p) for p in (0.01, 0.04, 0.03, 0.005)] + [blank])
    assert [c.p_holm for c in made[:4]] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert made[4].p_holm is None


def test_the_interquartile_mean_is_the_trimmed_mean():
    """The definition of Agarwal et al. 2021: 25 % off each end."""
    values = np.random.default_rng(1).normal(size=40)
    assert stats.interquartile_mean(values) == pytest.approx(scipy_stats.trim_mean(values, 0.25))
    table = values.reshape(4, 10)
    np.testing.assert_allclose(stats.interquartile_mean(table, axis=1), scipy_stats.trim_mean(table, 0.25, axis=1))


def test_shards_and_batches_pair_by_item(sfumato):
    """One side ran whole, the other in shards: the same items meet."""
    sfumato("run", "toys/bandit", "--solver", "toys/greedy", "--seeds", "30", check=0)
    sfumato("run", "toys/bandit", "--solver", "toys/trained", "--seeds", "30", "--shards", "3", check=0)
    done = sfumato("compare", "toys/greedy", "toys/trained", "--metric", "return", "--json", check=0)
    (made,) = map(json.loads, done.stdout.splitlines())
    assert made["n"] == 30
    assert made["wins"] + made["ties"] + made["losses"] == 30
    assert "95 % interval" in sfumato("compare", "toys/greedy", "toys/trained", check=0).stdout


def test_comparing_different_instances_is_an_error_of_usage(sfumato):
    """Twenty seeds against thirty."""
    sfumato("run", "toys/bandit", "--solver", "toys/greedy", "--seeds", "20", check=0)
    sfumato("run", "toys/bandit", "--solver", "toys/trained", "--seeds", "30", check=0)
    done = sfumato("compare", "toys/greedy", "toys/trained", check=2)
    assert "only toys/trained has instances 20-29" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [(("toys/greedy",), "two names or more"), (("toys/greedy", "toys/none"), "no finished run named 'toys/none'")],
)
def test_compare_explains_what_it_lacks(sfumato, words, message):
    """Usage errors."""
    sfumato("run", "toys/bandit", "--solver", "toys/greedy", check=0)
    assert message in sfumato("compare", *words, check=2).stderr


def test_runs_under_another_step_limit_are_another_world(sfumato):
    """They are never mixed into one side, and never compared in silence."""
    for limit in ((), ("--step-limit", "5")):
        sfumato("run", "toys/bandit", "--solver", "toys/greedy", "--seeds", "30", *limit, check=0)
    sfumato("run", "toys/bandit", "--solver", "toys/trained", "--seeds", "30", check=0)
    done = sfumato("compare", "toys/trained", "toys/greedy", "--metric", "length", "--json", check=0)
    (made,) = map(json.loads, done.stdout.splitlines())
    assert made["value_second"] == 50


def test_two_seeds_of_one_pair_are_compared_apart(sfumato):
    """A world each, a comparison each."""
    for seed in ("0", "1"):
        for solver in ("toys/greedy", "toys/trained"):
            sfumato("run", "toys/bandit", "--solver", solver, "--seeds", "10", "--seed", seed, check=0)
    done = sfumato("compare", "toys/greedy", "toys/trained", "--metric", "return", "--json", check=0)
    assert len(done.stdout.splitlines()) == 2


def test_figures_that_every_run_has_are_compared_when_they_are_named(sfumato):
    """Else they neither stand in the table nor make the other lines' correction dearer."""
    for solver in ("toys/greedy", "toys/trained"):
        sfumato("run", "toys/bandit", "--solver", solver, "--seeds", "6", check=0)
    words = ("compare", "toys/greedy", "toys/trained")
    made = [json.loads(line) for line in sfumato(*words, "--json", check=0).stdout.splitlines()]
    assert not {"decision_cpu_seconds", "act_seconds_max"} & {c["metric"] for c in made}
    tested = [c for c in made if c["p"] is not None]
    assert min(c["p_holm"] for c in tested) == pytest.approx(min(1, len(tested) * min(c["p"] for c in tested)))
    assert "act_seconds_max" in sfumato(*words, "--metric", "act_seconds_max", check=0).stdout


def test_runs_of_different_code_are_compared_and_it_is_said(sfumato, tmp_path):
    """Whether what was changed makes the instances cannot be told from the records."""
    for solver in ("toys/greedy", "toys/trained"):
        sfumato("run", "toys/bandit", "--solver", solver, "--seeds", "4", check=0)
    words = ("compare", "toys/greedy", "toys/trained", "--metric", "return")
    assert sfumato(*words, check=0).stderr == ""
    path = next((tmp_path / "store" / "runs").glob("*/record.json"))
    record = json.loads(path.read_text())
    record["code"]["sfumato_toys"] = "another"
    path.write_text(json.dumps(record))
    assert "made by different code of sfumato_toys" in sfumato(*words, check=0).stderr


def test_two_worlds_of_one_pair_have_a_title_each(sfumato):
    """It says what sets them apart, and so does JSON; a single world needs no such words."""
    def both(*words):
        for solver in ("toys/greedy", "toys/trained"):
            sfumato("run", "toys/bandit", "--solver", solver, "--seeds", "4", *words, check=0)

    both("-t", "n_rounds=20")
    assert "toys/bandit: toys/trained minus toys/greedy, n = 4" in sfumato("compare", "toys/greedy", "toys/trained", check=0).stdout
    both("--seed", "7")
    out = sfumato("compare", "toys/greedy", "toys/trained", check=0).stdout
    assert out.count("95 % interval") == 2
    assert "toys/bandit (n_rounds = 20, seed = 0): toys/trained minus toys/greedy" in out
    assert "toys/bandit (n_rounds = 50, seed = 7): toys/trained minus toys/greedy" in out
    lines = sfumato("compare", "toys/greedy", "toys/trained", "--json", check=0).stdout.splitlines()
    assert {json.loads(line)["setting"] for line in lines} == {"n_rounds = 20, seed = 0", "n_rounds = 50, seed = 7"}
    out = sfumato("compare", "toys/greedy", "toys/trained", "--preset", "return", check=0).stdout
    assert out.count("95 % interval") == 2
    assert "toys/bandit (n_rounds = 20, seed = 0): toys/trained minus toys/greedy" in out
    out = sfumato("compare", "toys/greedy", "toys/trained", "--preset", "learning", "--metric", "return", check=0).stdout
    assert "toys/bandit (n_rounds = 20, seed = 0), toys/bandit (n_rounds = 50, seed = 7): toys/trained minus" in " ".join(out.split())


def worlds(label, *seeds, task="toys/x"):
    """Sides of one name, one for each seed."""
    return [Side(label, task, json.dumps([task, 1, {"n": 5}, seed, None, {}]), ("0",), {}) for seed in seeds]


def test_the_order_of_names_does_not_decide_what_meets():
    """Either may have met more worlds than the other: those in common meet, the others are named."""
    many, one = worlds("a", 0, 7, 8), worlds("b", 7)
    for first, second in ((many, one), (one, many)):
        assert [json.loads(x.world)[3] for pair in partners(first, second) for x in pair] == [7, 7]
        assert left_out(first, second) == ["a alone met toys/x with seed = 0; seed = 8: left out"]
    assert len(left_out(worlds("a", *range(20)), one)[0].split(";")) == 7  # six, and how many more


def test_worlds_none_of_which_is_in_common_are_refused_in_either_order():
    """On the task that is meant; what another task has in common does not hide it."""
    a = worlds("a", 0) + worlds("a", 1, task="toys/y")
    b = worlds("b", 7) + worlds("b", 1, task="toys/y")
    for first, second, said in ((a, b, "seed 0 against 7"), (b, a, "seed 7 against 0")):
        assert left_out(first, second) == []
        with pytest.raises(UsageError, match=said):
            [compare(x, y) for x, y in partners(first, second)]


def test_what_one_side_alone_met_is_said_beside_the_table(sfumato):
    """Named first or second."""
    for solver, seed in (("toys/greedy", "0"), ("toys/greedy", "7"), ("toys/trained", "7")):
        sfumato("run", "toys/bandit", "--solver", solver, "--seeds", "4", "--seed", seed, check=0)
    for names in (("toys/greedy", "toys/trained"), ("toys/trained", "toys/greedy")):
        done = sfumato("compare", *names, "--metric", "return", check=0)
        assert done.stdout.count("n = 4 pairs") == 1
        assert done.stderr == "Note: toys/greedy alone met toys/bandit with seed = 0: left out.\n"


def test_pairs_that_are_no_finite_numbers_are_counted_below_the_table(sfumato):
    """One NaN makes a mean NaN: how many there are, and that the test is missing for that."""
    for solver in ("toys/noop", "toys/noisy"):
        sfumato("run", "toys/echo", "--solver", solver, "--seeds", "6", "--evaluator", "toys/half", check=0)
    for columns in ("70", "140"):
        out = " ".join(sfumato("compare", "toys/noop", "toys/noisy", env={"COLUMNS": columns}, check=0).stdout.split())
        assert "half: 1 of 6 pairs is not finite" in out
        assert "Holm over the" in out
        assert "lines that have one" in out
    out = sfumato("compare", "toys/noop", "toys/noisy", "--preset", "return", "--metric", "half", check=0).stdout
    assert "half: 1 of 6 items is not finite, so it has no interval" in " ".join(out.split())
    said = sfumato("status", "--solver", "toys/noop", "--json", check=0).stdout
    assert "half: 1 of 6 values not finite (item 0)" in sfumato("show", json.loads(said)["run_id"], check=0).stdout


def test_a_name_of_two_methods_is_refused_with_what_sets_them_apart(sfumato):
    """By the setting, and which run has which."""
    ids = {}
    for epsilon in ("0.1", "0.2"):
        words = ("run", "toys/bandit", "--solver", "toys/greedy", "-s", f"epsilon={epsilon}", "--seeds", "2", "--json")
        ids[epsilon] = json.loads(sfumato(*words, check=0).stdout)["run_id"]
    said = " ".join(sfumato("compare", "toys/greedy", "toys/greedy", check=2).stderr.split())
    assert "means 2 different methods on toys/bandit" in said
    assert all(f"{run_id} with solver.epsilon = {epsilon}" in said for epsilon, run_id in ids.items())
    sfumato("run", "toys/coin", "--solver", "toys/belief", "--seeds", "2", check=0)
    said = sfumato("compare", "toys/greedy", "toys/belief", "--task", "toys/coin", check=2).stderr  # what another task holds is no matter
    assert "nothing in common: toys/greedy ran on toys/bandit; toys/belief ran on toys/coin" in " ".join(said.split())

"""The streaming interface: decisions, labels that come late, state, and errors that change nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfumato_ofs import ThresholdBandit, replay, resume
from sfumato_ofs.audit import verify
from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import AuditError, OfsError
from sfumato_ofs.loops import threshold_grid


def applicants(rng: np.random.Generator, n: int = 200) -> dict[str, np.ndarray]:
    """Calibrated scores: group 1 (40%) scores lower."""
    groups = (rng.random(n) < 0.4).astype(int)
    mean = np.where(groups == 1, 0.45, 0.60)
    scores = rng.beta(8 * mean, 8 * (1 - mean))
    return {"groups": groups, "scores": scores, "labels": (rng.random(n) < scores).astype(float)}


def decide(
    bandit: ThresholdBandit, people: dict[str, np.ndarray], hide: bool = False, late: bool = False
) -> int | None:
    """Select a threshold, accept by it, and report what can be seen."""
    tau = bandit.select()
    accepted = people["scores"] >= tau
    labels = np.where(accepted & (not late), people["labels"], np.nan)
    return bandit.partial_fit(
        tau,
        groups=people["groups"],
        accepted=accepted,
        labels=labels,
        scores=None if hide else people["scores"],
    )


def run(bandit: ThresholdBandit, rounds: int, seed: int = 0, hide: bool = False) -> list[float]:
    rng = np.random.default_rng(seed)
    taus = []
    for _ in range(rounds):
        decide(bandit, applicants(rng), hide)
        taus.append(bandit.log.last["tau"])
    return taus


def test_scores_decide_the_mode() -> None:
    """With scores the first batch makes it observed-scores, without them bandit feedback."""
    for hide, mode in ((False, "observed-scores"), (True, "ofs")):
        bandit = ThresholdBandit()
        assert bandit.mode is None and bandit.recommend() == 0.5
        run(bandit, 3, hide=hide)
        assert bandit.mode == mode


def test_learning_starts_at_the_incumbent_and_stays_in_the_corridor() -> None:
    """Never a sweep from accept-all: first 0.5, then within 0.1 of it, scores hidden or not."""
    for hide in (False, True):
        bandit = ThresholdBandit(corridor=0.1)
        taus = [bandit.select(), *run(bandit, 60, hide=hide)]
        assert taus[0] == 0.5
        assert min(taus) >= 0.4 and max(taus) <= 0.6


def test_with_scores_the_feasible_threshold_is_found_at_once() -> None:
    """A frozen population: the gap is 0.078 at 0.225 and 0.103 at 0.25, so 0.225 is best; found within ten batches."""
    bandit = ThresholdBandit(corridor=None)
    taus = run(bandit, 60)
    assert set(taus[10:]) <= {0.2, 0.225, 0.25}
    assert bandit.recommend() == 0.225


def test_hidden_scores_reach_the_same_place_by_trying() -> None:
    bandit = ThresholdBandit(corridor=None, horizon=2500, settings=OptimisticFeasibleConfig(beta=0.25))
    run(bandit, 2500, hide=True)
    assert 0.2 <= bandit.recommend() <= 0.3


def test_shadow_mode_plays_the_incumbent_and_notes_the_proposal() -> None:
    bandit = ThresholdBandit(corridor=None, shadow=True)
    taus = run(bandit, 30)
    assert set(taus) == {0.5}
    assert bandit.proposal is not None and bandit.proposal <= 0.3


def test_late_labels_end_where_prompt_ones_do() -> None:
    """Bandit feedback: rates at once and rewards later give the same means as all at once."""
    rng = np.random.default_rng(3)
    people = [applicants(rng) for _ in range(30)]
    prompt, late = (ThresholdBandit(policy="ofs", corridor=0.05) for _ in range(2))
    for batch in people:
        for bandit, hold in ((prompt, False), (late, True)):
            bandit._search._swept = True  # one fixed sequence of arms: only the labels' time differs
            tau = 0.5
            accepted = batch["scores"] >= tau
            labels = np.where(accepted & (not hold), batch["labels"], np.nan)
            bandit.partial_fit(tau, groups=batch["groups"], accepted=accepted, labels=labels)
    for number, batch in enumerate(people):
        assert late.add_labels(number, np.where(batch["scores"] >= 0.5, batch["labels"], np.nan))
    a, b = prompt._search.statistics, late._search.statistics
    assert a.mean_reward[0, 20] == pytest.approx(b.mean_reward[0, 20])
    assert a.rewarded[0, 20] == b.rewarded[0, 20] == 30


def test_labels_may_come_in_parts_and_not_change() -> None:
    bandit = ThresholdBandit()
    number = bandit.partial_fit(
        0.5,
        groups=[0] * 5 + [1] * 5,
        accepted=[True] * 10,
        labels=[1.0] * 5 + [np.nan] * 5,
        scores=[0.7] * 10,
    )
    assert number is not None
    assert not bandit.add_labels(number, [np.nan] * 5 + [1.0] * 3 + [np.nan] * 2)
    with pytest.raises(OfsError, match="labels must not change"):
        bandit.add_labels(number, [0.0] + [np.nan] * 9)
    assert bandit.add_labels(number, [np.nan] * 8 + [0.0, 1.0])
    with pytest.raises(OfsError, match="number must be that of a batch that waits"):
        bandit.add_labels(number, [1.0] * 10)
    assert bandit._scored._counts["labelled"].sum() == 10 and bandit._scored._counts["good"].sum() == 9


def test_batches_of_another_size_weigh_by_their_size() -> None:
    """A batch of 400 counts twice one of 200."""
    bandit = ThresholdBandit(policy="ofs")
    bandit.partial_fit_stats(0.5, 0.2, [0.0, -0.2, -0.3], 200)
    bandit.partial_fit_stats(0.5, 0.5, [0.3, -0.5, -0.3], 400)
    s = bandit._search.statistics
    assert s.plays[0, 20] == 3.0
    assert s.mean_reward[0, 20] == pytest.approx(0.4)
    assert s.mean_residuals[0, 20, 0] == pytest.approx(0.2)


@pytest.mark.parametrize("hide", [False, True])
def test_resuming_from_a_state_continues_bit_for_bit(hide: bool) -> None:
    """40 rounds, state out, another bandit: the next 40 decisions and the final state are identical."""
    first = ThresholdBandit(corridor=None, settings=OptimisticFeasibleConfig(reprobe_every=9))
    run(first, 40, hide=hide)
    second = ThresholdBandit(corridor=None, settings=OptimisticFeasibleConfig(reprobe_every=9))
    second.load_state_dict(first.state_dict())
    assert run(first, 40, seed=1, hide=hide) == run(second, 40, seed=1, hide=hide)
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.pop("head") != theirs.pop("head")  # the second log is another one
    assert same(ours, theirs)


def test_a_state_of_other_settings_is_refused() -> None:
    with pytest.raises(OfsError, match="state belongs to a bandit with another loss"):
        ThresholdBandit().load_state_dict(ThresholdBandit(loss=2.0).state_dict())


@pytest.mark.parametrize("hide", [False, True])
def test_a_log_replays_and_goes_on(tmp_path: Path, hide: bool) -> None:
    """Every decision comes out again; the rebuilt bandit decides on as the first would have."""
    path = tmp_path / "audit.jsonl"
    bandit = ThresholdBandit(corridor=None, log=path)
    run(bandit, 50, hide=hide)
    result = replay(path)
    assert result.decisions == 50 and result.head == bandit.head == verify(path)
    bandit.log.close()
    again = resume(path)
    twin = ThresholdBandit(corridor=None)
    run(twin, 50, hide=hide)
    assert run(again, 20, seed=2, hide=hide) == run(twin, 20, seed=2, hide=hide)
    assert replay(path).decisions == 70


def test_late_labels_replay(tmp_path: Path) -> None:
    for hide in (False, True):
        path = tmp_path / f"audit-{hide}.jsonl"
        bandit = ThresholdBandit(corridor=None, log=path)
        rng = np.random.default_rng(0)
        people = [applicants(rng) for _ in range(30)]
        for k, batch in enumerate(people):
            decide(bandit, batch, hide, late=True)
            if k >= 5:
                accepted = bandit._waiting[k - 5].batch.accepted
                bandit.add_labels(k - 5, np.where(accepted, people[k - 5]["labels"], np.nan))
        assert replay(path).decisions == 30


def test_a_decision_that_does_not_come_out_again_is_named(tmp_path: Path) -> None:
    """A forged history with fitting hashes fails on replay, because the decision does not follow from it."""
    from sfumato_ofs.audit import AuditLog, read

    bandit = ThresholdBandit(corridor=None, log=tmp_path / "true.jsonl")
    run(bandit, 10)
    forged = AuditLog(tmp_path / "forged.jsonl")
    for event in read(tmp_path / "true.jsonl"):
        facts = {k: v for k, v in event.items() if k not in ("event", "prev", "seq", "hash")}
        if event["event"] == "select" and facts["round"] == 7:
            facts["tau"] = 0.9
        forged.append(event["event"], facts)
    with pytest.raises(AuditError, match="does not come out again: tau"):
        replay(tmp_path / "forged.jsonl")


def test_the_same_seed_gives_the_same_log_hash() -> None:
    heads = []
    for _ in range(2):
        bandit = ThresholdBandit(corridor=None)
        run(bandit, 30, hide=True)
        heads.append(bandit.head)
    assert heads[0] == heads[1]


def test_certificates_hold_the_truth_on_a_frozen_population() -> None:
    """With the full guarantee every certified threshold satisfies parity and the floor."""
    from scipy.stats import beta

    bandit = ThresholdBandit(
        corridor=None,
        policy="ofs",
        horizon=4000,
        settings=OptimisticFeasibleConfig(beta=1.0),
        constraints=Constraints(eps=0.2),
    )
    run(bandit, 1500, hide=True)
    certificate = bandit.certificate()
    assert certificate["holds"] and len(certificate["certified"]) > 0
    for entry in certificate["certified"]:
        rates = [1 - beta(8 * m, 8 * (1 - m)).cdf(entry["tau"]) for m in (0.60, 0.45)]
        assert abs(rates[0] - rates[1]) <= 0.2 and rates @ np.array([0.6, 0.4]) >= 0.3


def test_a_warm_start_makes_the_first_choice_informed() -> None:
    rng = np.random.default_rng(0)
    people = applicants(rng, 5000)
    bandit = ThresholdBandit(corridor=None)
    accepted = rng.random(5000) < people["scores"]  # the past followed no threshold
    bandit.warm_start(
        scores=people["scores"],
        groups=people["groups"],
        accepted=accepted,
        labels=np.where(accepted, people["labels"], np.nan),
    )
    assert 0.2 <= bandit.select() <= 0.25


def test_an_empty_batch_and_a_missing_group_are_logged_and_harmless() -> None:
    bandit = ThresholdBandit()
    assert (
        bandit.partial_fit(0.5, groups=np.zeros(0, int), accepted=np.zeros(0, bool), scores=np.zeros(0))
        is None
    )
    assert bandit.log.last["event"] == "empty" and bandit.mode is None
    hidden = ThresholdBandit(policy="ofs")
    hidden.partial_fit(0.5, groups=[0] * 10, accepted=[True] * 10, labels=[1.0] * 10)
    assert "group 1" in hidden.log.last["no_gap_seen"]
    assert hidden._search.statistics.seen[0, 20].tolist() == [0.0, 0.0, 10 / 200]


def test_a_threshold_never_selected_is_flagged_off_policy() -> None:
    bandit = ThresholdBandit(policy="ofs")
    bandit.partial_fit_stats(0.3, 0.2, [0.0, -0.2, -0.3], 200)
    assert bandit.log.last["off_policy"]
    tau = bandit.select()
    bandit.partial_fit_stats(tau, 0.2, [0.0, -0.2, -0.3], 200)
    assert not bandit.log.last["off_policy"]


def test_a_full_disk_leaves_learner_and_log_as_they_were() -> None:
    """The log is written first; when that fails nothing has been learned."""
    bandit = ThresholdBandit(policy="ofs")
    run(bandit, 10, hide=True)
    before = bandit.state_dict()

    def full(event: str, facts: object) -> None:
        raise OSError(28, "No space left on device")

    append, bandit.log.append = bandit.log.append, full  # type: ignore[method-assign]
    for call in (lambda: bandit.select(), lambda: bandit.partial_fit_stats(0.5, 0.1, [0.0] * 3, 200)):
        with pytest.raises(OSError):
            call()
    bandit.log.append = append  # type: ignore[method-assign]
    assert same(before, bandit.state_dict())


def test_a_horizon_below_the_grid_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="the first sweep never ends"):
        ThresholdBandit(horizon=5, corridor=None)


def test_an_existing_log_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    ThresholdBandit(log=path).log.close()
    with pytest.raises(OfsError, match="exists already"):
        ThresholdBandit(log=path)


def test_the_default_grid_has_41_thresholds() -> None:
    assert (ThresholdBandit().grid == threshold_grid(41)).all()


def same(a: Any, b: Any) -> bool:
    """Deep equality that looks into arrays."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=True)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if hasattr(a, "__attrs_attrs__"):
        return same(
            {f.name: getattr(a, f.name) for f in a.__attrs_attrs__},
            {f.name: getattr(b, f.name) for f in a.__attrs_attrs__},
        )
    if isinstance(a, np.random.Generator):
        return copy.deepcopy(a.bit_generator.state) == b.bit_generator.state
    return bool(a == b) or (a != a and b != b)


def test_three_intersecting_groups_under_the_four_fifths_rule() -> None:
    """Groups overlap, the third is too small for a rate until its people add up; the rule holds where it is known."""
    rng = np.random.default_rng(0)
    constraints = Constraints(eps=0.2, gap="ratio", n_groups=3)
    bandit = ThresholdBandit(constraints=constraints, corridor=None, min_count=20)
    for _ in range(40):
        first = rng.random(200) < 0.5
        second = rng.random(200) < 0.5
        groups = np.stack([first, ~first, first & second & (rng.random(200) < 0.1)], axis=1)
        mean = np.where(first, 0.45, 0.60)
        scores = rng.beta(8 * mean, 8 * (1 - mean))
        tau = bandit.select()
        accepted = scores >= tau
        labels = np.where(accepted, rng.random(200) < scores, np.nan)
        bandit.partial_fit(tau, groups=groups, accepted=accepted, labels=labels, scores=scores)
        if bandit._next_batch == 1:
            assert bandit.log.last["rates"][2] is None and "group 2" in bandit.log.last["no_gap_seen"]
    _, residuals, rates = bandit._scored.estimates()
    arm = bandit._index[bandit.recommend()]
    assert (residuals[arm] <= 0).all() and rates[arm, :2].min() >= 0.8 * rates[arm, :2].max()


def test_probable_membership_gives_the_rates_of_certain_membership_on_average() -> None:
    """Groups known only by probability: estimated rates lie between the groups' own, nearer the likelier one."""
    bandit = ThresholdBandit(corridor=None)
    scores = np.array([0.2] * 50 + [0.8] * 50)
    chance = np.where(scores > 0.5, 0.2, 0.8)
    bandit.partial_fit(
        0.5, groups=np.stack([1 - chance, chance], axis=1), accepted=scores >= 0.5, scores=scores
    )
    rates = bandit._scored.estimates()[2][bandit._index[0.5]]
    assert rates == pytest.approx([0.8, 0.2])


def test_a_random_first_sweep_follows_the_seed() -> None:
    """The same seed tries thresholds in the same order, another seed in another; the log knows the seed."""
    orders = []
    for seed in (1, 1, 2):
        settings = OptimisticFeasibleConfig(order="random")
        bandit = ThresholdBandit(policy="ofs", corridor=None, seed=seed, settings=settings)
        orders.append(run(bandit, 41, hide=True))
        assert next(bandit.log.events())["settings"]["seed"] == seed
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == threshold_grid(41).tolist()


@pytest.mark.parametrize(
    ("settings", "rounds", "why"),
    [
        ({"settings": OptimisticFeasibleConfig(beta=1.0)}, 5, ""),
        ({"settings": OptimisticFeasibleConfig(beta=0.5)}, 5, "beta is below 1"),
        (
            {"settings": OptimisticFeasibleConfig(beta=1.0, gap_weight="equal")},
            5,
            "group sizes were not used",
        ),
        ({"settings": OptimisticFeasibleConfig(beta=1.0, discount=0.99)}, 5, "forgetting is not covered"),
        ({"settings": OptimisticFeasibleConfig(beta=1.0, window=50)}, 5, "forgetting is not covered"),
        ({"settings": OptimisticFeasibleConfig(beta=1.0, detect=20.0)}, 5, "forgetting is not covered"),
        (
            {"settings": OptimisticFeasibleConfig(beta=1.0), "horizon": 10},
            11,
            "the horizon of 10 rounds is over",
        ),
        (
            {"settings": OptimisticFeasibleConfig(beta=1.0), "constraints": Constraints(gap="to-overall")},
            5,
            "move with each batch's own mix",
        ),
        (
            {"settings": OptimisticFeasibleConfig(beta=1.0), "constraints": Constraints(gap="abs")},
            5,
            "average above the true gap",
        ),
    ],
    ids=lambda x: str(x)[:40],
)
def test_a_certificate_says_whether_it_holds_and_if_not_why(settings: dict, rounds: int, why: str) -> None:
    bandit = ThresholdBandit(policy="ofs", **settings)
    run(bandit, rounds, hide=True)
    certificate = bandit.certificate()
    assert certificate["holds"] == (not why) and why in certificate["why"]
    when = "in all of the first 10 rounds" if "horizon" in settings else "in all rounds"
    assert certificate["when"] == when


def test_fixed_time_bounds_are_called_so() -> None:
    """Observed scores: bounds for one look, and none while decayed counts mix old and new people."""
    bandit = ThresholdBandit()
    run(bandit, 3)
    assert bandit.certificate()["when"] == "at one moment fixed beforehand"
    assert not bandit.certificate()["holds"] and "decayed" in bandit.certificate()["why"]


def test_statistics_without_group_sizes_carry_no_certificate() -> None:
    """The same batches with and without the sizes of the groups: wider bounds with them, and only these hold."""
    settings = OptimisticFeasibleConfig(beta=1.0)
    with_sizes, without = (ThresholdBandit(policy="ofs", settings=settings) for _ in range(2))
    for _ in range(10):
        with_sizes.partial_fit_stats(0.5, 0.2, [-0.1, -0.1, -0.3], 200, group_counts=[190, 10])
        without.partial_fit_stats(0.5, 0.2, [-0.1, -0.1, -0.3], 200)
    assert with_sizes.certificate()["holds"] and not without.certificate()["holds"]
    width = [(b.bounds()[1] - b.bounds()[0])[20] for b in (with_sizes, without)]
    assert width[0][0] / width[1][0] == pytest.approx(1 / np.sqrt(4 * 0.95 * 0.05))
    assert width[0][2] == width[1][2]


def test_probable_groups_weigh_by_their_effective_size() -> None:
    """Everybody half in each group: the two rates are equal, the gap is known for certain, and the log stays finite."""
    bandit = ThresholdBandit(policy="ofs")
    bandit.partial_fit(
        0.5, groups=np.full((100, 2), 0.5), accepted=np.arange(100) % 2 == 0, labels=np.ones(100)
    )
    event = bandit.log.last
    assert event["people"] == [50.0, 50.0] and event["effective"] == [100.0, 100.0]
    assert event["residuals"][:2] == pytest.approx([-0.1, -0.1]) and event["weights"] == [2.0, 2.0, 0.5]

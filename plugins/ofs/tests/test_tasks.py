"""The loops as tasks of the runner, with the learners as solvers and the evaluator: one path through all."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sfumato.context", reason="needs the core")
from sfumato.context import RunContext
from sfumato.errors import DataMissing
from sfumato_ofs.config import (
    CompasConfig,
    EpsilonGreedyConfig,
    FixedConfig,
    GermanConfig,
    ObservedScoresConfig,
    OptimisticFeasibleConfig,
    RandomConfig,
    SyntheticConfig,
)
from sfumato_ofs.errors import OfsError
from sfumato_ofs.evaluators import ClosedLoopEvaluator
from sfumato_ofs.solvers import (
    EpsilonGreedySolver,
    FixedSolver,
    ObservedScoresSolver,
    OptimisticFeasibleSolver,
    RandomSolver,
)
from sfumato_ofs.tasks import CompasTask, GermanTask, SyntheticTask


def episode_of(task, n_items: int, **context):
    ctx = RunContext(indices=range(n_items), **context)
    (instance,) = list(task.instances(ctx))
    return task.start(instance, ctx, ctx.stream("world", 0)), instance, ctx


def test_an_episode_ends_after_its_rounds_and_shows_only_the_chosen_threshold() -> None:
    task = SyntheticTask(SyntheticConfig(rounds=3, n_thresholds=5))
    episode, _, _ = episode_of(task, 4)
    start = episode.reset()
    assert set(start.public) == task.offers
    for t in range(3):
        step = episode.step(np.array([0, 1, 2, 3]))
        assert step.reward.shape == (4,) and step.observation["residuals"].shape == (4, 3)
        assert step.over == (t == 2)


@pytest.mark.parametrize(
    "action", [np.array([0, 1]), np.array([0.5, 0.5, 0.5]), np.array([0, 1, 5]), np.array([0, 1, -1])]
)
def test_an_action_outside_the_space_is_refused(action: np.ndarray) -> None:
    episode, _, _ = episode_of(SyntheticTask(SyntheticConfig(rounds=3, n_thresholds=5)), 3)
    episode.reset()
    with pytest.raises(OfsError, match="action must"):
        episode.step(action)


def test_an_item_lives_in_the_same_world_alone_and_in_a_batch() -> None:
    """Items 0..3 in one batch or in chunks of two: the same rewards, bit for bit."""
    task = SyntheticTask(SyntheticConfig(rounds=40))
    together, _, _ = episode_of(task, 4)
    ctx = RunContext(indices=range(4), batch_size=2)
    apart = [task.start(i, ctx, ctx.stream("world", i.items[0])) for i in task.instances(ctx)]
    for episode in (together, *apart):
        episode.reset()
    for t in range(40):
        joined = np.concatenate([e.step(np.full(2, t)).reward for e in apart])
        assert (together.step(np.full(4, t)).reward == joined).all()


def test_missing_data_names_the_fetch_command(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("SFUMATO_DATA", raising=False)
    for task in (CompasTask(CompasConfig()), GermanTask(GermanConfig())):
        with pytest.raises(DataMissing, match="sfumato ofs fetch"):
            next(iter(task.instances(RunContext(data_dir=tmp_path))))


def test_a_policy_gets_nothing_but_public_facts() -> None:
    """The start holds arms, constraints and sizes, never the loop or the oracle."""
    episode, _, _ = episode_of(SyntheticTask(SyntheticConfig(rounds=3)), 2)
    for value in episode.reset().public.values():
        assert (
            type(value).__module__.split(".")[0] in ("builtins", "numpy")
            or type(value).__name__ == "Constraints"
        )


def test_a_solver_declines_a_task_without_a_grid() -> None:
    class Other:
        offers = frozenset({"pomdp_model"})

    refusal = OptimisticFeasibleSolver(OptimisticFeasibleConfig()).supports(Other(), None)
    assert refusal is not None and "arms" in refusal.reason


def test_compas_runs_through_the_protocols(data_dir) -> None:
    """A short run on the real data keeps what the policy recommends for the evaluator."""
    pytest.importorskip("sklearn", reason="the score model needs scikit-learn (extra data)")
    task = CompasTask(CompasConfig(rounds=60))
    episode, instance, ctx = episode_of(task, 3, data_dir=data_dir)
    policy = OptimisticFeasibleSolver(OptimisticFeasibleConfig()).solve(task, ctx)
    start = episode.reset()
    policy.reset(start, ctx.stream("policy", 0))
    observation, over = start.observation, False
    while not over:
        step = episode.step(policy.act(observation))
        policy.observe(step)
        observation, over = step.observation, step.over
    assert policy.notes()["recommended"].shape == (3,)
    assert episode.truth()["plays"].sum() == 180
    assert instance.oracle.feasible


def play_through(task, solver, n_items: int = 2):
    episode, instance, ctx = episode_of(task, n_items)
    assert solver.supports(task, None) is None
    policy = solver.solve(task, ctx)
    start = episode.reset()
    policy.reset(start, ctx.stream("policy", 0))
    observation, over, rewards = start.observation, False, []
    while not over:
        step = episode.step(policy.act(observation))
        policy.observe(step)
        observation, over = step.observation, step.over
        rewards.append(step.reward)
    return policy, episode, instance, np.array(rewards)


def test_delayed_rewards_are_the_same_rewards_later() -> None:
    """With a delay of 7 rounds and a fixed arm the rewards shift by 7 and the first 7 are nothing."""
    prompt = play_through(SyntheticTask(SyntheticConfig(rounds=40)), FixedSolver(FixedConfig()))[3]
    task = SyntheticTask(SyntheticConfig(rounds=40, label_delay=7))
    late = play_through(task, FixedSolver(FixedConfig()))[3]
    assert (late[:7] == 0).all() and (late[7:] == prompt[:-7]).all()


def test_a_learner_takes_late_rewards_for_the_arm_they_belong_to() -> None:
    """Each arm's rewarded count lags its plays by at most the delay."""
    task = SyntheticTask(SyntheticConfig(rounds=100, label_delay=5))
    policy, *_ = play_through(task, OptimisticFeasibleSolver(OptimisticFeasibleConfig()))
    s = policy._learner.statistics
    assert s.plays.sum() == 200 and s.rewarded.sum() == 190


def test_observed_scores_declines_hidden_scores_and_plays_seen_ones() -> None:
    """The refusal names the setting that helps; with delay the labels come later."""
    solver = ObservedScoresSolver(ObservedScoresConfig())
    refusal = solver.supports(SyntheticTask(SyntheticConfig()), None)
    assert refusal is not None and "scores=observed" in refusal.advice
    task = SyntheticTask(SyntheticConfig(rounds=60, scores="observed", label_delay=10))
    policy, _, instance, _ = play_through(task, solver)
    assert policy._learner.labelled.sum() < policy._learner.applicants.sum()
    assert instance.oracle.is_feasible[policy.notes()["recommended"]].all()


def test_every_baseline_plays() -> None:
    task = SyntheticTask(SyntheticConfig(rounds=50))
    for solver in (
        EpsilonGreedySolver(EpsilonGreedyConfig()),
        RandomSolver(RandomConfig()),
        FixedSolver(FixedConfig(tau=0.275)),
    ):
        _, episode, _, rewards = play_through(task, solver)
        assert rewards.shape == (50, 2) and episode.truth()["plays"].sum() == 100


def test_a_jump_moves_the_world_and_the_oracle() -> None:
    """After the drift group 1 is ahead; the evaluator measures against the later oracle and gives a re-adaptation time."""
    task = SyntheticTask(SyntheticConfig(rounds=400, drift="jump", drift_at=100))
    _, episode, instance, _ = play_through(task, FixedSolver(FixedConfig(tau=0.275)))
    truth = episode.truth()
    assert truth["curve_rates"][:, 20, 0].mean() > truth["curve_rates"][:, 20, 1].mean()
    assert truth["curve_rates"][:, -1, 0].mean() < truth["curve_rates"][:, -1, 1].mean()
    assert instance.later is not None and instance.later.best != instance.oracle.best
    trace = SimpleNamespace(truth=truth, notes=None)
    figures = {m.name: m.value for m in ClosedLoopEvaluator().score(instance, trace)}
    assert (figures["readaptation"] >= 0).all() and (figures["readaptation"] <= 300).all()


def test_drift_after_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="drift_at must come before the end"):
        SyntheticConfig(rounds=100, drift="jump", drift_at=100)


@pytest.mark.parametrize(
    "settings",
    [
        {"groups": 3},
        {"gap": "to-overall", "groups": 3},
        {"gap": "ratio", "eps": 0.2},
        {"gap": "abs"},
        {"fairness": "odds", "labels": "explore"},
        {"fairness": "opportunity", "labels": "full"},
        {"fairness": "predictive-parity"},
        {"thresholds": "per-group", "n_thresholds": 5},
        {"preset": "A-slow"},
        {"rho_max": 0.9},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:BetaLoop", "ignore:horizon")
def test_every_form_of_the_loop_plays(settings: dict) -> None:
    """Sixty rounds, finite figures; residuals as many as the constraints name."""
    task = SyntheticTask(SyntheticConfig(**{"rounds": 60, "n_thresholds": 11, **settings}))
    config = OptimisticFeasibleConfig(monotone="gap" not in settings and "fairness" not in settings)
    policy, episode, instance, _ = play_through(task, OptimisticFeasibleSolver(config))
    trace = SimpleNamespace(truth=episode.truth(), notes=policy.notes())
    figures = {m.name: np.asarray(m.value) for m in ClosedLoopEvaluator().score(instance, trace)}
    assert all(np.isfinite(v).all() for v in figures.values())
    assert (figures["violation"] >= 0).all()
    assert len(instance.constraints.names) == instance.constraints.size == instance.oracle.residuals.shape[1]


def test_a_score_model_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner then ends with the status for a missing backend, and a check of promises does not call them broken."""
    import importlib.metadata

    from sfumato.errors import BackendUnavailable
    from sfumato_ofs import tasks

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(BackendUnavailable, match=r"pip install 'sfumato-ofs\[data\]'"):
        tasks.pool_loop(None, None, None, "german", "")  # type: ignore[arg-type]

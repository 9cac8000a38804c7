"""The task in both interpreters, built by name through the core; skipped where the runtimes are not installed."""

import functools
import json
import time

import numpy as np
import pytest

from sfumato.context import RunContext
from sfumato.driver import drive, run_episode
from sfumato.errors import SfumatoError
from sfumato_opaque_knapsack.config import ExpertConfig, InjectorConfig, ReplayConfig, TaskConfig
from sfumato_opaque_knapsack.evaluators import AgentEvaluator, ScoreEvaluator
from sfumato_opaque_knapsack.experts import FAULTS
from sfumato_opaque_knapsack.metrics import share
from sfumato_opaque_knapsack.solvers import ExpertSolver, InjectorSolver
from sfumato_opaque_knapsack.tasks import EasyTask, HardTask, MicroTask
from sfumato_opaque_knapsack.traces import TraceSettings, make_pairs, write_jsonl

REGIMES = ("persistent", "stateless")


@functools.cache
def _runtime(regime, settings):
    return RunContext().component(f"runtime-{regime}/python", dict(settings), kind="runtime")


def runtime_of(regime, **settings):
    """The runtime of a regime; one for all tests, since starting an interpreter's zygote takes a while."""
    try:
        return _runtime(regime, tuple(sorted(settings.items())))
    except SfumatoError as error:
        pytest.skip(f"the runtimes are not installed: {error}")


def play(task, solver, regime, n=1, *, concurrency=1, **settings):
    """Drive a shard; return one mapping of metrics an episode."""
    evaluators = {"score": ScoreEvaluator(), "agent": AgentEvaluator()}
    runtime = runtime_of(regime, **settings)
    assert solver.supports(task, runtime) is None
    result = drive(task, solver, runtime, evaluators, RunContext(indices=range(n)), concurrency=concurrency)
    return [{m["name"]: m["values"][0] for m in row["metrics"]} for row in result.rows], result.digest


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("policy", ["dp-known", "dp", "greedy", "inspect-10", "oracle-greedy"])
def test_a_reference_policy_earns_through_an_interpreter_what_it_earns_natively(policy, regime):
    """The interpreter is invisible to a policy that only relays calls: episode by episode the same score."""
    task = HardTask(TaskConfig(reveal_allowed=True, reveal_items=True))
    runtime_of(regime)
    evaluators = {"score": ScoreEvaluator()}
    ctx = RunContext(indices=range(2))
    from sfumato.runtimes import Direct

    native = drive(task, ExpertSolver(ExpertConfig(policy=policy)), Direct(), evaluators, ctx)
    scores = [next(m["values"][0] for m in row["metrics"] if m["name"] == "score") for row in native.rows]
    rows, _ = play(task, ExpertSolver(ExpertConfig(policy=policy, writer="calls")), regime, 2)
    assert [row["score"] for row in rows] == scores
    assert all(row["finished"] == 1.0 and row["failed_actions"] == 0 for row in rows)


@pytest.mark.parametrize("regime", REGIMES)
def test_an_expert_of_the_interpreters_own_regime_never_fails(regime):
    rows, _ = play(EasyTask(), ExpertSolver(), regime, 5)
    assert all(row["finished"] == 1.0 and row["failed_actions"] == 0 for row in rows)
    assert np.mean([row["score"] for row in rows]) > 0.75


def test_persistent_code_in_a_stateless_interpreter_misses_its_variables_and_the_reverse_does_not():
    """The paper's asymmetry, with scripted agents: one cross cell breaks, the other only says more."""
    broken, _ = play(EasyTask(), ExpertSolver(ExpertConfig(writer="persistent")), "stateless", 3)
    assert all(row["missing_var_strict"] == 1.0 for row in broken)
    wordy, _ = play(EasyTask(), ExpertSolver(ExpertConfig(writer="stateless")), "persistent", 3)
    lean, _ = play(EasyTask(), ExpertSolver(ExpertConfig(writer="persistent")), "persistent", 3)
    assert all(row["missing_var_any"] == 0.0 for row in wordy + lean)
    assert [row["score"] for row in wordy] == [row["score"] for row in lean]
    assert sum(row["completion_words"] for row in wordy) > 2 * sum(row["completion_words"] for row in lean)


def test_an_injected_rate_of_missing_variables_is_recovered():
    """40 stateless episodes, struck with probability 0.3: the rate lies in the binomial interval."""
    config = InjectorConfig(faults="stale-name", rate=0.3, per="episode", style="plain")
    rows, _ = play(MicroTask(), InjectorSolver(config), "stateless", 40)
    interval = share(int(sum(row["missing_var_strict"] for row in rows)), 40, level=0.999)
    assert interval.low <= 0.3 <= interval.high
    assert all(row["finished"] == 1.0 for row in rows)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in ("finish-first", "rederive")])
@pytest.mark.parametrize("regime", REGIMES)
def test_every_fault_is_a_normal_observation_and_the_episode_goes_on(fault, regime):
    """The record is kept and the host lives; the expert finishes where the fault left it something to stand on."""
    config = InjectorConfig(faults=fault, rate=1.0, per="episode", style="plain")
    begun = time.perf_counter()
    (row,), _ = play(
        MicroTask(TaskConfig(max_turns=12)), InjectorSolver(config), regime, 1, timeout_seconds=0.5
    )
    assert time.perf_counter() - begun < 20
    assert 0.0 <= row["score"] <= 1.0
    if regime == "stateless":
        assert row["finished"] == 1.0
    quiet = ("no-block", "big-output", "not-utf8", "write-file", "bad-arguments")
    if fault not in quiet and not (fault == "stale-name" and regime == "persistent"):
        assert row["failed_actions"] >= 1


def test_finishing_first_scores_nothing():
    config = InjectorConfig(faults="finish-first", rate=1.0, per="episode")
    (row,), _ = play(MicroTask(), InjectorSolver(config), "persistent", 1)
    assert (row["score"], row["finished"], row["turns"]) == (0.0, 1.0, 1)


class _Thief:
    """Sends attacks on the score, then finishes."""

    attacks = (
        "inspect.__closure__",
        "import gc\nprint([o for o in gc.get_objects() if type(o).__name__ in ('World', 'KnapsackEpisode')])",
        "import sys\nprint([m for m in sys.modules if 'knapsack' in m])",
        "take_item = lambda i: 10**9\nlist_items = inspect = finish = take_item\ntake_item('x')",
        "import builtins\nbuiltins.sum = lambda *a: 10**9",
        "for f in (list_items, inspect, take_item, finish):\n    print(getattr(f, '__globals__', {}).keys())",
        "finish()",
    )

    def reset(self, start, rng):
        self._k = 0
        self.seen = []

    def act(self, observation):
        self.seen.append(observation)
        self._k += 1
        return {"message": f"```python\n{self.attacks[self._k - 1]}\n```"}

    def observe(self, step):
        self.seen.append(step.observation)

    def notes(self):
        return None


@pytest.mark.parametrize("regime", REGIMES)
def test_the_score_and_the_hidden_items_cannot_be_reached_from_the_code(regime):
    """Attacks on tools, modules and the heap find no world and change no score."""
    task, thief = EasyTask(), _Thief()
    ctx = RunContext()
    (instance,) = task.instances(ctx)
    trace = run_episode(task, thief, runtime_of(regime), instance, ctx)
    metrics = {m.name: m.value for m in ScoreEvaluator().score(instance, trace)}
    assert metrics["score"] == 0.0
    shown = json.dumps(thief.seen[1:])
    assert "World object" not in shown
    assert "sfumato_opaque_knapsack" not in shown
    assert not any(item.id in shown for item in instance.items)


def test_eight_episodes_at_a_time_give_the_rows_of_one_at_a_time():
    rows, digest = play(EasyTask(), ExpertSolver(), "stateless", 8)
    again, same = play(EasyTask(), ExpertSolver(), "stateless", 8, concurrency=8)
    drop = ("decision_seconds",)
    assert [{k: v for k, v in r.items() if k not in drop} for r in rows] == [
        {k: v for k, v in r.items() if k not in drop} for r in again
    ]
    assert digest == same


def test_a_recording_plays_again_to_the_same_score(tmp_path):
    """The replay backend says what the traces' assistant said, through a runtime and the chat policy."""
    pytest.importorskip("httpx", reason="needs httpx")
    from sfumato_opaque_knapsack.chat import ReplaySolver
    from sfumato_opaque_knapsack.instances import EVAL_SEED_BASE

    path = tmp_path / "t.jsonl"
    records = list(make_pairs(TraceSettings(level="micro"), range(EVAL_SEED_BASE, EVAL_SEED_BASE + 4)))
    write_jsonl(path, records)
    solver = ReplaySolver(ReplayConfig(traces=str(path), regime="persistent"))
    rows, _ = play(MicroTask(), solver, "persistent", 4)
    assert [row["score"] for row in rows] == pytest.approx(
        [r["meta"]["score"] for r in records[::2]], abs=1e-6
    )
    assert all(row["claimed_completion_tokens"] > 0 for row in rows)

"""Other people's bandits on the same tasks, and fairlearn's offline answers to compare with.

mabwiser and Vowpal Wabbit know no constraints. They play the reward alone, or a scalarised reward
R - c * sum_i max(g_i, 0) on the noisy residuals they see. One learner an item, so an item does not depend on its
batch. Extra `peers`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato.protocols import Context, Policy
from sfumato.records import Refusal, Start, Step
from sfumato_ofs.config import MabwiserConfig, VowpalWabbitConfig
from sfumato_ofs.errors import need
from sfumato_ofs.solvers import GridSolver

Observation = Mapping[str, NDArray[Any]]
Actions = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class OneBandit(Protocol):
    """A peer's learner for one item."""

    def choose(self) -> int: ...

    def learn(self, arm: int, reward: float) -> None: ...


class PeerPolicy(Policy[Observation, Actions]):
    """Plays one peer bandit an item."""

    def __init__(
        self, make: Callable[[int, np.random.Generator], OneBandit], penalty: float, ctx: Context
    ) -> None:
        self._make = make
        self._penalty = penalty
        self._ctx = ctx

    def reset(self, start: Start[Observation], rng: np.random.Generator) -> None:
        n_arms = len(start.public["arms"])
        self._bandits = [self._make(n_arms, self._ctx.stream("policy", k)) for k in start.public["items"]]
        self._plays = np.zeros((len(self._bandits), n_arms), dtype=np.int64)
        self._arm: Actions = np.zeros(len(self._bandits), dtype=np.int64)

    def act(self, observation: Observation) -> Actions:
        self._arm = np.array([bandit.choose() for bandit in self._bandits], dtype=np.int64)
        self._plays[np.arange(len(self._arm)), self._arm] += 1
        return self._arm

    def observe(self, step: Step[Observation]) -> None:
        over = np.nansum(np.maximum(step.observation["residuals"], 0.0), axis=1)
        for bandit, arm, value in zip(
            self._bandits, self._arm, step.reward - self._penalty * over, strict=True
        ):
            bandit.learn(int(arm), float(value))

    def notes(self) -> Mapping[str, Any]:
        # Peers recommend nothing; what they play most is the fair reading of their advice.
        return {"recommended": self._plays.argmax(axis=1)}


class PeerSolver(GridSolver):
    """What the two peers share: prompt rewards only."""

    def supports(self, task: Any, runtime: Any) -> Refusal | None:
        refusal = super().supports(task, runtime)
        if refusal is None and task.config.label_delay:
            return Refusal(
                f"{self.name} takes its reward at once, and this task delays labels", "Use -t label_delay=0."
            )
        return refusal


class MabwiserSolver(PeerSolver):
    """mabwiser's context-free bandits."""

    name = "ofs/mabwiser"

    def __init__(self, config: MabwiserConfig) -> None:
        self.config = config

    def solve(self, task: Any, ctx: Context) -> PeerPolicy:
        try:
            mab = importlib.import_module("mabwiser.mab")
        except ImportError as error:
            raise need("mabwiser", "peers", self.name) from error
        return PeerPolicy(
            lambda n_arms, rng: _Mabwiser(mab, self.config, n_arms, rng), self.config.penalty, ctx
        )


class _Mabwiser:
    def __init__(self, mab: Any, config: MabwiserConfig, n_arms: int, rng: np.random.Generator) -> None:
        policy = {
            "ucb1": lambda: mab.LearningPolicy.UCB1(alpha=config.alpha),
            "softmax": lambda: mab.LearningPolicy.Softmax(tau=config.temperature),
            "thompson": lambda: mab.LearningPolicy.ThompsonSampling(_above_zero),
        }[config.policy]()
        self._mab = mab.MAB(list(range(n_arms)), policy, seed=int(rng.integers(2**31)))
        self._untried = list(range(n_arms))
        self._fitted = False

    def choose(self) -> int:
        return self._untried.pop(0) if self._untried else int(self._mab.predict())

    def learn(self, arm: int, reward: float) -> None:
        (self._mab.partial_fit if self._fitted else self._mab.fit)([arm], [reward])
        self._fitted = True


def _above_zero(arm: int, reward: float) -> bool:
    return reward > 0.0


class VowpalWabbitSolver(PeerSolver):
    """Vowpal Wabbit's contextual bandit without context."""

    name = "ofs/vowpal-wabbit"

    def __init__(self, config: VowpalWabbitConfig) -> None:
        self.config = config

    def solve(self, task: Any, ctx: Context) -> PeerPolicy:
        try:
            vw = importlib.import_module("vowpalwabbit")
        except ImportError as error:
            raise need("vowpalwabbit", "peers", self.name) from error
        return PeerPolicy(lambda n_arms, rng: _Vowpal(vw, self.config, n_arms, rng), self.config.penalty, ctx)


class _Vowpal:
    def __init__(self, vw: Any, config: VowpalWabbitConfig, n_arms: int, rng: np.random.Generator) -> None:
        options = (
            f"--cb_explore {n_arms} {config.exploration} --quiet --random_seed {int(rng.integers(2**31))}"
        )
        self._vw = vw.Workspace(options)
        self._rng = rng
        self._chance = 1.0

    def choose(self) -> int:
        chances = np.asarray(self._vw.predict("| always"), dtype=np.float64)
        arm = int(self._rng.choice(len(chances), p=chances / chances.sum()))
        self._chance = float(chances[arm])
        return arm

    def learn(self, arm: int, reward: float) -> None:
        self._vw.learn(f"{arm + 1}:{-reward}:{self._chance} | always")


# ---------------------------------------------------------------------------- offline references


@attrs.frozen
class OfflineAnswer:
    """An offline rule at its closed-loop steady state: reward a round, signed gap r0 - r1, overall rate, share of group 1."""

    name: str
    reward: float
    gap: float
    rate: float
    share: float


def at_steady_state(
    name: str,
    chance: FloatArray,
    good: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    loss: float = 1.0,
    memory: float = 0.9,
    gain: float = 0.10,
) -> OfflineAnswer:
    """Return what a (possibly randomised) rule earns once the composition of a two-group pool has answered to it.

    Arguments: chance [R] of each person being accepted, outcomes [R], groups [R].
    """
    rates = np.array([chance[groups == a].mean() for a in (0, 1)])
    value = np.array([(chance * good)[groups == a].mean() for a in (0, 1)])
    base = float(groups.mean())
    share = float(np.clip(base + gain * (rates[1] - rates[0]) / (1.0 - memory), 0.05, 0.95))
    weights = np.array([1.0 - share, share])
    reward = float(weights @ ((1.0 + loss) * value - loss * rates))
    return OfflineAnswer(name, reward, float(rates[0] - rates[1]), float(weights @ rates), share)


def fairlearn_answers(
    scores: FloatArray,
    good: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    eps: float = 0.10,
    grid_size: int = 41,
) -> list[OfflineAnswer]:
    """Return fairlearn's ThresholdOptimizer and GridSearch on a scored pool, at their closed-loop steady states.

    With loss 1 the reward is accuracy up to a constant, so accuracy is what both maximise. ThresholdOptimizer sets a
    (possibly randomised) threshold for each group and equalises rates exactly; GridSearch reweighs a logistic model of
    score and group and the best point within eps is taken.
    """
    try:
        post = importlib.import_module("fairlearn.postprocessing")
        reductions = importlib.import_module("fairlearn.reductions")
        linear = importlib.import_module("sklearn.linear_model")
    except ImportError as error:
        raise need("fairlearn", "peers", "the offline reference") from error
    x = scores[:, None]
    optimizer = post.ThresholdOptimizer(
        estimator=linear.LogisticRegression(),
        constraints="demographic_parity",
        objective="accuracy_score",
        predict_method="predict_proba",
    )
    optimizer.fit(x, good, sensitive_features=groups)
    chance = optimizer._pmf_predict(x, sensitive_features=groups)[:, 1]
    answers = [at_steady_state("fairlearn ThresholdOptimizer", np.asarray(chance), good, groups)]
    both = np.column_stack([scores, groups])
    search = reductions.GridSearch(
        linear.LogisticRegression(),
        reductions.DemographicParity(difference_bound=eps),
        grid_size=grid_size,
        grid_limit=2.0,
    )
    search.fit(both, good, sensitive_features=groups)
    found = [
        at_steady_state("fairlearn GridSearch", np.asarray(p.predict(both), dtype=np.float64), good, groups)
        for p in search.predictors_
    ]
    within = [answer for answer in found if abs(answer.gap) <= eps]
    if within:
        answers.append(max(within, key=lambda answer: answer.reward))
    return answers

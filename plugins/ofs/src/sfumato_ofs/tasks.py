"""The three closed loops as tasks. A batch of seeds is one instance; item k lives on its own stream.

What a policy sees of a round: the batch's reward, the constraint residuals, the groups' sizes and acceptance rates
under the threshold in use; nothing of other thresholds, unless `scores = observed`. Actions are arm indices,
int array [B]. With `label_delay` the reward of a round arrives later, `rewarded` saying whose arm it was.

Promise: the world of item k depends on the seed and k alone, not on which other items share its batch.
"""

from __future__ import annotations

import importlib.metadata
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato.errors import BackendUnavailable, DataMissing
from sfumato.protocols import Context, Episode, Task
from sfumato.records import Start, Step
from sfumato_ofs import data
from sfumato_ofs.config import CompasConfig, GermanConfig, LoopConfig, SyntheticConfig
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import OfsError, need
from sfumato_ofs.loops import BetaLoop, ClosedLoop, PoolLoop, product_arms, shared_arms, threshold_grid
from sfumato_ofs.oracle import Sweep, sweep
from sfumato_ofs.score_model import out_of_fold_scores
from sfumato_ofs.scored import Cells
from sfumato_ofs.simulate import World

FETCH = "sfumato ofs fetch"
BASE_MEANS = (0.60, 0.45)
Observation = Mapping[str, NDArray[Any]]
Actions = NDArray[np.int64]


@attrs.frozen(eq=False)
class LoopInstance:
    """A batch of items in one loop: `items` are their indices; `oracle` is the sweep of all arms.

    Under drift `oracle` holds before round `drift_at` and `later` at the end.
    """

    items: tuple[int, ...]
    loop: ClosedLoop
    constraints: Constraints
    rounds: int
    oracle: Sweep
    later: Sweep | None = None
    drift_at: int = 0


class FairTask(Task[LoopInstance, Observation, Actions]):
    """A closed loop of acceptance: choose a threshold, see the batch, the population answers."""

    batched: ClassVar[bool] = True
    offers: ClassVar[frozenset[str]] = frozenset(
        {"arms", "lattice", "constraints", "applicants", "rounds", "loss", "items", "label_delay", "scores"}
    )

    n_groups: int = 2

    def __init__(self, config: LoopConfig) -> None:
        self.config = config
        self.max_steps = config.rounds
        self.constraints = Constraints(
            eps=config.eps,
            rho_min=config.rho_min,
            rho_max=config.rho_max if config.rho_max < 1.0 else None,
            gap=config.gap,
            n_groups=self.n_groups,
            measure=config.fairness,
            explore_rate=config.explore_rate if config.labels == "explore" else 1.0,
        )

    @cached_property
    def lattice(self) -> tuple[int, ...]:
        """Arms along each axis: (M,) for a shared threshold, (M, M) for one a group."""
        m = self.config.n_thresholds
        return (m,) if self.config.thresholds == "shared" else (m,) * self.constraints.n_groups

    @cached_property
    def arms(self) -> NDArray[np.float64]:
        """Group thresholds of each arm, float array [M, G]."""
        grid = threshold_grid(self.config.n_thresholds)
        n_groups = self.constraints.n_groups
        return (
            shared_arms(grid, n_groups)
            if self.config.thresholds == "shared"
            else product_arms([grid] * n_groups)
        )

    @abstractmethod
    def make_loop(self, ctx: Context) -> ClosedLoop:
        """Return the loop that all instances share."""

    def instances(self, ctx: Context) -> Iterator[LoopInstance]:
        loop = self.make_loop(ctx)
        oracle = sweep(loop, self.constraints)
        loop.profile(loop.rest(1))  # fills the loop's tables now, so that a run finds and leaves it the same
        for items in ctx.chunks():
            yield LoopInstance(tuple(items), loop, self.constraints, self.config.rounds, oracle)

    def start(self, instance: LoopInstance, ctx: Context, rng: np.random.Generator) -> FairEpisode:
        return FairEpisode(self, instance, [ctx.stream("world", k) for k in instance.items])


class FairEpisode(Episode[Observation, Actions]):
    """B items living through the loop for T rounds; all end together."""

    def __init__(
        self,
        task: FairTask,
        instance: LoopInstance,
        generators: list[np.random.Generator],
        base_means: Callable[[int], NDArray[np.float64]] | None = None,
    ) -> None:
        self._task = task
        self._instance = instance
        final = instance.later or instance.oracle
        self._world = World(
            instance.loop,
            instance.constraints,
            instance.rounds,
            generators,
            ~final.is_feasible,
            scores_seen=task.config.scores == "observed",
            base_means=base_means,
        )
        self._delay = task.config.label_delay
        self._waiting: deque[tuple[Actions, NDArray[np.float64], Cells | None]] = deque()

    def reset(self) -> Start[Observation]:
        n_items = len(self._instance.items)
        constraints, loop = self._instance.constraints, self._instance.loop
        unseen: dict[str, NDArray[Any]] = {
            "residuals": np.full((n_items, constraints.size), np.nan),
            "rates": np.full((n_items, constraints.n_groups), np.nan),
            "people": np.zeros((n_items, constraints.n_groups), dtype=np.int64),
            "rewarded": np.full(n_items, -1),
        }
        if self._task.config.scores == "observed":
            none = np.zeros((n_items, loop.n_groups, len(loop.grid) + 1), dtype=np.int64)
            unseen.update(applicants=none, labelled=none, good=none)
        public = {
            "arms": self._task.arms,
            "lattice": self._task.lattice,
            "constraints": constraints,
            "applicants": loop.n,
            "rounds": self._instance.rounds,
            "loss": loop.loss,
            "items": self._instance.items,
            "label_delay": self._delay,
            "scores": self._task.config.scores,
        }
        return Start(unseen, public)

    def step(self, action: Actions) -> Step[Observation]:
        arm = np.asarray(action)
        n_arms = self._instance.loop.n_arms
        if arm.shape != (len(self._instance.items),) or arm.dtype.kind not in "iu":
            raise OfsError(
                f"action must be an integer array of shape ({len(self._instance.items)},), one arm an item; got "
                f"dtype {arm.dtype} and shape {arm.shape}"
            )
        outside = (arm < 0) | (arm >= n_arms)
        if outside.any():
            raise OfsError(f"action must hold arm indices 0..{n_arms - 1}, got {int(arm[outside][0])}")
        seen = self._world.step(arm)
        done = np.full(len(arm), self._world.t >= self._instance.rounds)
        # Outcomes, and the reward they decide, arrive `label_delay` rounds after the decision.
        self._waiting.append((arm.copy(), seen.reward, seen.cells))
        rewarded, reward, labels = np.full(len(arm), -1), np.zeros(len(arm)), None
        if len(self._waiting) > self._delay:
            rewarded, reward, labels = self._waiting.popleft()
        observation = {
            "residuals": seen.residuals,
            "rates": seen.rates,
            "people": seen.counts.applicants,
            "rewarded": rewarded,
        }
        if seen.cells is not None:
            nothing = np.zeros_like(seen.cells.applicants)
            observation["applicants"] = seen.cells.applicants
            observation["labelled"] = nothing if labels is None else labels.labelled
            observation["good"] = nothing if labels is None else labels.good
        return Step(observation, reward, done, np.zeros_like(done))

    def truth(self) -> Mapping[str, Any]:
        return self._world.sums.truth()


class SyntheticTask(FairTask):
    """Beta scores whose means drift with acceptance; the calibrated reference loop."""

    config: SyntheticConfig

    def __init__(self, config: SyntheticConfig) -> None:
        self.n_groups = config.groups
        super().__init__(config)

    def _loop(self, base_means: tuple[float, ...]) -> BetaLoop:
        return BetaLoop(
            self.arms,
            n=self.config.applicants,
            loss=self.config.loss,
            kappa=0.8 if self.config.preset == "A" else 0.9,
            base_means=base_means,
            base_shares=(0.60, 0.40) if len(base_means) == 2 else (0.40, 0.30, 0.30),
        )

    def make_loop(self, ctx: Context) -> ClosedLoop:
        return self._loop(BASE_MEANS if self.n_groups == 2 else (0.60, 0.52, 0.45))

    def instances(self, ctx: Context) -> Iterator[LoopInstance]:
        later = None
        if self.config.drift != "none":
            later = sweep(self._loop(self.config.drift_means), self.constraints)
        for instance in super().instances(ctx):
            yield attrs.evolve(instance, later=later, drift_at=self.config.drift_at if later else 0)

    def base_means(self, t: int) -> NDArray[np.float64]:
        """Return the groups' base means in round t, float array [G]."""
        config = self.config
        before, after = np.array(BASE_MEANS), np.array(config.drift_means)
        if t < config.drift_at:
            return before
        if config.drift == "jump":
            return after
        share = (t - config.drift_at + 1) / (config.rounds - config.drift_at)
        value: NDArray[np.float64] = before + share * (after - before)
        return value

    def start(self, instance: LoopInstance, ctx: Context, rng: np.random.Generator) -> FairEpisode:
        drift = None if self.config.drift == "none" else self.base_means
        return FairEpisode(self, instance, [ctx.stream("world", k) for k in instance.items], drift)


class GermanTask(FairTask):
    """German Credit: lend at or above a score; composition follows acceptance."""

    config: GermanConfig

    def make_loop(self, ctx: Context) -> ClosedLoop:
        path = ctx.data_file(data.GERMAN_FILE, sha256=data.GERMAN_SHA256, fetch=FETCH)
        table = data.load_german(path, group=self.config.group, verify=False)
        return pool_loop(table, self, ctx, f"german by {self.config.group}", data.GERMAN_SHA256)


class CompasTask(FairTask):
    """COMPAS: release at or above a score of not reoffending; composition follows acceptance."""

    config: CompasConfig

    def make_loop(self, ctx: Context) -> ClosedLoop:
        try:
            path = ctx.data_file(data.COMPAS_MINIMAL_FILE, sha256=data.COMPAS_MINIMAL_SHA256, fetch=FETCH)
        except DataMissing:
            path = ctx.data_file(data.COMPAS_FILE, sha256=data.COMPAS_SHA256, fetch=FETCH)
        # Both files hold the same people, so one digest stands for both.
        return pool_loop(data.load_compas(path, verify=False), self, ctx, "compas", data.COMPAS_SHA256)


def pool_loop(table: data.Table, task: FairTask, ctx: Context, name: str, digest: str) -> PoolLoop:
    """Return the loop over a data set's people, scored out of fold; the scores are kept as an artifact."""
    try:
        library = importlib.metadata.version("scikit-learn")
    except importlib.metadata.PackageNotFoundError as error:
        absent = need("scikit-learn", "data", "the score model of German Credit and COMPAS")
        raise BackendUnavailable(str(absent)) from error

    def build(folder: Path) -> None:
        np.save(folder / "scores.npy", out_of_fold_scores(table))

    settings = {"table": name, "sha256": digest, "scikit-learn": library, "model": 1}
    folder = ctx.artifacts.get_or_build("ofs/out-of-fold-scores", settings, build)
    return PoolLoop(
        task.arms,
        np.load(folder / "scores.npy"),
        table.good,
        table.groups,
        n=task.config.applicants,
        loss=task.config.loss,
    )

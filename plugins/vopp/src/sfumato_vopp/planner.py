"""``VOPP(model, config).plan(belief)``: choose an action from a belief, within a deadline.

Source: Hoerger, Sudrajat, Kurniawati, "Vectorized Online POMDP Planning", 2025 (arXiv:2510.27191).
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import attrs
import numpy as np

from sfumato_vopp.belief import Belief
from sfumato_vopp.config import DESPOTConfig, POMCPConfig, PORPPConfig, SearchConfig
from sfumato_vopp.errors import BeliefError, ModelError
from sfumato_vopp.model import Array, Model

__all__ = ["DESPOT", "POMCP", "PORPP", "VOPP", "Decision", "OnlinePlanner", "PlanStats"]

Backend = Literal["numpy", "numba", "torch"]
#: Episodes of the first iteration while the cost of a model step is unknown, so that a slow model cannot eat the deadline.
_PILOT = 32
#: Share of the time left that an iteration may be predicted to need; the rest covers the spread of the prediction.
_MARGIN = 0.9


@attrs.frozen
class PlanStats:
    """What one search did.

    Attributes:
        iterations, episodes, steps: done in this decision; ``steps`` counts simulated model steps.
        n_beliefs, n_actions: nodes in the tree.
        depth_histogram: int64 [D+1], belief nodes at each depth.
        seconds: wall-clock time of the whole call.
        bytes: held by the tree.
        overflow: True when the tree reached ``max_nodes`` and the search stopped early.
        stop_reason: "deadline", "episodes", "steps", "capacity", "cancelled" or "converged" (bounds met).
        root_entropy: of the root policy, in nats.
        eta: inverse temperature used.
        backend, storage: what ran; storage is "dense", "sparse", or "fixed" where a capacity was given.
        reused: belief nodes kept from the search before.
    """

    iterations: int
    episodes: int
    steps: int
    n_beliefs: int
    n_actions: int
    depth_histogram: Array
    seconds: float
    bytes: int
    overflow: bool
    stop_reason: str
    root_entropy: float
    eta: float
    backend: str
    storage: str
    reused: int = 0


@attrs.frozen
class Decision:
    """The outcome of one search.

    Attributes:
        action: the action of the highest preference among those tried.
        preferences: float64 [A], Ψ at the root.
        policy: float64 [A], softmax(η Ψ).
        values: float64 [A], mean value of each action, NaN where it was not tried.
        visits: int64 [A].
        value: V at the root.
        stats: what the search did.
    """

    action: int
    preferences: Array
    policy: Array
    values: Array
    visits: Array
    value: float
    stats: PlanStats


class OnlinePlanner:
    """What all online planners share: checks, the clock, cancelling, and the shape of a decision.

    A subclass provides a tree with ``begin``, ``iterate`` and ``root``.
    """

    model: Model
    config: Any
    backend: str
    eta: float
    _tree: Any
    _rng: np.random.Generator

    def _init(self, model: Model, config: Any, rng: np.random.Generator | None) -> None:
        self.model, self.config = model, config
        self._rng = np.random.default_rng(0) if rng is None else rng
        self._cancelled = threading.Event()
        self._step_seconds: float | None = None
        self._now = time.perf_counter

    def reseed(self, rng: np.random.Generator) -> None:
        """Draw the seeds of later decisions from this generator."""
        self._rng = rng

    def warmup(self) -> None:
        """Compile and touch everything a decision needs, so that the first deadline is met like any other."""
        rng = np.random.default_rng(0)
        now = time.thread_time if self.config.clock == "cpu" else time.perf_counter
        particles = self.model.initial(64, rng)
        step_seconds: float | None = None
        # Steps of fixed shape are readied depth by depth, at the second pass from captured graphs.
        deepest = self.config.max_depth
        depths = [deepest] * 4 if self._fixed else [min(deepest, 1 + i) for i in range(4)]
        for weights in (None, np.full(64, 1.0 / 64)):
            self._start(Belief(particles, weights), 0)
            for iteration, depth in enumerate(depths):
                before, steps = now(), self._tree.steps
                self._tree.iterate(iteration, 64, 64 * iteration, depth)
                step_seconds = (now() - before) / self._places(depth, steps)
        self._tree.root(), self._tree.depth_histogram()
        if hasattr(self._tree, "reserve"):
            self._tree.reserve(1 << 17)
        self._step_seconds = step_seconds

    @property
    def _fixed(self) -> int:
        """Places that every iteration simulates, whatever it is asked for; 0 where that is not so."""
        return int(getattr(self._tree, "fixed_batch", 0))

    def _places(self, depth: int, steps: int) -> int:
        """Return the model steps that an iteration was charged with, given those counted before it."""
        return self._fixed * (depth + 1) or max(1, self._tree.steps - steps)

    def cancel(self) -> None:
        """Ask a running ``plan`` to stop after its iteration and return what it has; call it from any thread."""
        self._cancelled.set()

    def plan(
        self,
        belief: Any,
        *,
        deadline: float | None = None,
        horizon: int | None = None,
        max_episodes: int | None = None,
        max_steps: int | None = None,
    ) -> Decision:
        """Choose an action.

        Arguments:
            belief: a :class:`Belief`, a pair (particles [N, state_width], weights [N]), or particles alone.
            deadline: seconds from now; overrides ``config.seconds``.
            horizon: longest episode; overrides ``config.max_depth``.
            max_episodes, max_steps: override the settings of the same names.

        Raises:
            BeliefError: the belief is empty, impossible, or of the wrong shape.
            ModelError: the model returned something that breaks its contract.
            ValueError: a budget that is not positive.

        Notes: with no clock in the budget the decision is determined by the generator's state, bit by bit on CPU. With
            one, at least one iteration of a few episodes is run however short the time is.
        """
        started = time.perf_counter()
        self._now = time.thread_time if self.config.clock == "cpu" else time.perf_counter
        opened = self._now()
        limits = self._limits(deadline, horizon, max_episodes, max_steps)
        root = self._checked(belief)
        self._cancelled.clear()
        reused = self._start(root, int(self._rng.integers(2**63)))
        iterations, episodes, reason = self._search(opened, *limits)
        return self._decision(started, iterations, episodes, reason, reused)

    def _limits(
        self, deadline: float | None, horizon: int | None, episodes: int | None, steps: int | None
    ) -> tuple[float | None, int, int | None, int | None]:
        c = self.config
        seconds = c.seconds if deadline is None else deadline
        if deadline is None and (episodes is not None or steps is not None):
            seconds = None
        for name, value in (("deadline", seconds), ("horizon", horizon), ("max_episodes", episodes), ("max_steps", steps)):
            if value is not None and not value > 0:
                raise ValueError(f"expected {name} > 0, got {value}; leave it out to use the settings")
        return (
            seconds,
            c.max_depth if horizon is None else int(horizon),
            c.max_episodes if episodes is None else int(episodes),
            c.max_steps if steps is None else int(steps),
        )

    def _checked(self, belief: Any) -> Belief:
        root = Belief.of(belief, self.model.state_width)
        dead = self.model.is_terminal(root.particles)
        if dead is not None and dead.any():
            alive = ~dead
            if not alive.any():
                raise BeliefError(
                    f"expected a state to plan from, got {len(dead)} terminal ones: the episode is over under this belief"
                )
            root = Belief.of((root.particles[alive], None if root.weights is None else root.weights[alive]), self.model.state_width)
        return root

    def _start(self, root: Belief, seed: int) -> int:
        cumulative = None if root.weights is None else np.cumsum(root.weights)
        self._tree.begin(root.particles, cumulative, seed)
        return 0

    def _search(
        self, opened: float, seconds: float | None, horizon: int, max_episodes: int | None, max_steps: int | None
    ) -> tuple[int, int, str]:
        c, tree = self.config, self._tree
        iteration = episodes = 0
        while True:
            depth = c.depth(iteration, horizon)
            n = c.n_episodes
            if seconds is not None:
                n = self._affordable(n, depth, seconds - (self._now() - opened), iteration)
            if max_episodes is not None:
                n = min(n, max_episodes - episodes)
            if n < 1:
                return iteration, episodes, "deadline" if seconds is not None and episodes != max_episodes else "episodes"
            before, steps = self._now(), tree.steps
            done = tree.iterate(iteration, n, episodes, depth)
            cost = (self._now() - before) / self._places(depth, steps)
            self._step_seconds = cost if self._step_seconds is None else 0.7 * self._step_seconds + 0.3 * cost
            episodes += done
            iteration += 1
            if tree.overflow:
                return iteration, episodes, "capacity"
            if getattr(tree, "converged", False):
                return iteration, episodes, "converged"
            if max_episodes is not None and episodes >= max_episodes:
                return iteration, episodes, "episodes"
            if max_steps is not None and tree.steps >= max_steps:
                return iteration, episodes, "steps"
            if self._cancelled.is_set():
                return iteration, episodes, "cancelled"

    def _affordable(self, n: int, depth: int, left: float, iteration: int) -> int:
        """Return the episodes of this length that fit in the time left; at least a few in the first iteration."""
        if self._step_seconds is None:
            return min(n, _PILOT)
        if self._fixed:
            return n if iteration == 0 or self._step_seconds * self._fixed * (depth + 1) <= _MARGIN * left else 0
        fitting = int(_MARGIN * left / (self._step_seconds * depth))
        if iteration == 0:
            return max(1, min(n, _PILOT), min(n, fitting)) if left > 0 else 1
        return min(n, fitting) if fitting >= min(n, _PILOT) else 0

    def _decision(
        self, started: float, iterations: int, episodes: int, reason: str, reused: int, root: tuple[Any, ...] | None = None
    ) -> Decision:
        tree = self._tree
        psi, visits, values, value = tree.root() if root is None else root
        if not np.any(visits > 0):
            raise ModelError("the search ended before any action was tried; give max_nodes or the budget more room")
        if np.isnan(psi[visits > 0]).any():
            which = int(np.flatnonzero((visits > 0) & np.isnan(psi))[0])
            raise ModelError(
                f"expected finite values, got NaN for action {which}: the model's value hint, or a state it returned, is not a "
                "number; check_model(model, rng) may say more"
            )
        policy = self._policy(psi, visits)
        positive = policy[policy > 0]
        action = int(np.argmax(np.where(visits > 0, psi, -np.inf)))
        stats = PlanStats(
            iterations, episodes, tree.steps, tree.n_beliefs, tree.n_action_nodes, tree.depth_histogram(),
            time.perf_counter() - started, tree.nbytes, tree.overflow, reason, float(-(positive * np.log(positive)).sum()),
            self.eta, self.backend, tree.storage, reused,
        )  # fmt: skip
        return Decision(action, psi, policy, values, visits, value, stats)

    def _policy(self, preferences: Array, visits: Array) -> Array:
        raise NotImplementedError


def _pinner() -> Callable[[], None]:
    """Return what a thread calls at its start to keep to one core, the next of those this process may use."""
    if not hasattr(os, "sched_setaffinity"):
        raise ModelError("pin_threads needs a system that can pin a thread to a core, as Linux can; leave it out here")
    cores = itertools.cycle(sorted(os.sched_getaffinity(0)))
    return lambda: os.sched_setaffinity(0, {next(cores)})


class VOPP(OnlinePlanner):
    """Vectorised online planner for one model.

    Arguments:
        model: what to plan with; see :class:`sfumato_vopp.Model`.
        config: how to search.
        rng: seeds the search of each decision; ``numpy.random.default_rng(0)`` when not given.
        backend: "numba" (fused CPU code, needs ``model.compiled()``), "numpy", or "torch". None: numba when the model has
            compiled functions, else numpy.
        device: for torch, "cpu" or "cuda".

    One planner serves one thread at a time; ``cancel`` may be called from any other.
    """

    def __init__(
        self,
        model: Model,
        config: SearchConfig | None = None,
        rng: np.random.Generator | None = None,
        backend: Backend | None = None,
        device: str = "cpu",
    ) -> None:
        from sfumato_vopp.backends import make_tree

        self._init(model, SearchConfig() if config is None else config, rng)
        self.eta = self.config.resolve_eta(model.reward_range)
        self._tree, self.backend = make_tree(model, self.config, self.eta, backend, device)

        self._step_taken: tuple[int, int] | None = None
        self._device = device
        self._crew: list[VOPP] = []
        self._pool: Any = None
        self._pool_size = 0
        if self.config.reuse_tree and not hasattr(self._tree, "reroot"):
            raise ModelError(f"reuse_tree needs backend 'numba', got {self.backend!r}")
        if self.config.n_threads > 1:
            if self.backend != "numba":
                raise ModelError(f"n_threads > 1 needs backend 'numba', whose search runs outside the interpreter; got {self.backend!r}")
            if self.config.reuse_tree:
                raise ModelError("reuse_tree works with n_threads = 1 only: each thread has a tree of its own")
            self._hire(self.config.n_threads)

    def _hire(self, n: int) -> None:
        """Have n planners with a tree each, one a thread; the generators are set at each call."""
        alone = attrs.evolve(self.config, n_threads=1)
        while len(self._crew) < n:
            self._crew.append(VOPP(self.model, alone, None, self.backend, self._device))  # type: ignore[arg-type]
        if self._pool_size < n:
            begin = _pinner() if self.config.pin_threads else None
            self._pool, self._pool_size = ThreadPoolExecutor(n, thread_name_prefix="vopp", initializer=begin), n

    def warmup(self) -> None:
        """Compile and touch everything a decision needs, on every thread's tree."""
        super().warmup()
        for planner in self._crew:
            planner.warmup()

    def cancel(self) -> None:
        """Ask a running ``plan`` or ``plan_many`` to stop after its iteration; call it from any thread."""
        super().cancel()
        for planner in self._crew:
            planner.cancel()

    def plan(
        self,
        belief: Any,
        *,
        deadline: float | None = None,
        horizon: int | None = None,
        max_episodes: int | None = None,
        max_steps: int | None = None,
    ) -> Decision:
        """Choose an action; see :meth:`OnlinePlanner.plan`.

        With ``config.n_threads`` = T > 1, T trees with seeds of their own search at once, budgets of episodes and steps
        shared out evenly, and their roots are pooled: preferences and values averaged, visits added.
        """
        if self.config.n_threads == 1:
            return super().plan(belief, deadline=deadline, horizon=horizon, max_episodes=max_episodes, max_steps=max_steps)
        started = time.perf_counter()
        seconds, depth, episodes, steps = self._limits(deadline, horizon, max_episodes, max_steps)
        crew = self._crew[: self.config.n_threads]
        root = self._checked(belief)
        # Making and pooling the threads costs a little: half a millisecond is kept for it.
        left = None if seconds is None else max(0.5 * seconds, seconds - 5e-4)
        share = [None if total is None else -(-total // len(crew)) for total in (episodes, steps)]
        for planner, seed in zip(crew, self._rng.integers(2**63, size=len(crew)), strict=True):
            planner.reseed(np.random.default_rng(int(seed)))
        jobs = [
            self._pool.submit(p.plan, root, deadline=left, horizon=depth, max_episodes=share[0], max_steps=share[1]) for p in crew
        ]
        return self._pooled([job.result() for job in jobs], time.perf_counter() - started)

    def _pooled(self, decisions: list[Decision], seconds: float) -> Decision:
        """Return one decision from those of several trees on one root."""
        visits = np.sum([d.visits for d in decisions], axis=0)
        psi = np.mean([d.preferences for d in decisions], axis=0)
        total = np.nansum([d.values * d.visits for d in decisions], axis=0)
        values = np.where(visits > 0, total / np.maximum(visits, 1), np.nan)
        policy = self._policy(psi, visits)
        stats = [d.stats for d in decisions]
        width = max(len(s.depth_histogram) for s in stats)
        histogram = np.sum([np.pad(s.depth_histogram, (0, width - len(s.depth_histogram))) for s in stats], axis=0)
        positive = policy[policy > 0]
        pooled = attrs.evolve(
            stats[0],
            iterations=sum(s.iterations for s in stats), episodes=sum(s.episodes for s in stats),
            steps=sum(s.steps for s in stats), n_beliefs=sum(s.n_beliefs for s in stats),
            n_actions=sum(s.n_actions for s in stats), bytes=sum(s.bytes for s in stats), depth_histogram=histogram,
            seconds=seconds, overflow=any(s.overflow for s in stats),
            root_entropy=float(-(positive * np.log(positive)).sum()),
        )  # fmt: skip
        action = int(np.argmax(np.where(visits > 0, psi, -np.inf)))
        return Decision(action, psi, policy, values, visits, float(np.mean([d.value for d in decisions])), pooled)

    def plan_many(
        self,
        beliefs: Sequence[Any],
        *,
        deadline: float | None = None,
        horizon: int | None = None,
        max_episodes: int | None = None,
        max_steps: int | None = None,
    ) -> list[Decision]:
        """Choose an action for each of R beliefs, all within one deadline.

        Arguments: as for :meth:`plan`; the budgets are those of the whole call.

        Notes: with backends "numpy" and "torch" the R roots stand in one tree and every batch of episodes is shared out
            among them, so that R small decisions fill one wide batch; ``stats`` are then those of the whole call. With
            "numba" the roots are planned one after the other on ``config.n_threads`` threads, each with an equal share.

        Raises: as :meth:`plan`; nothing is planned when one of the beliefs is bad.
        """
        started = time.perf_counter()
        seconds, depth, episodes, steps = self._limits(deadline, horizon, max_episodes, max_steps)
        roots = [self._checked(belief) for belief in beliefs]
        if not roots:
            return []
        if hasattr(self._tree, "begin_many"):
            return self._plan_batched(started, roots, seconds, depth, episodes, steps)
        threads = min(self.config.n_threads, len(roots))
        self._hire(threads)
        left = None if seconds is None else seconds * threads / len(roots)
        share = [None if total is None else max(1, total // len(roots)) for total in (episodes, steps)]
        seeds = self._rng.integers(2**63, size=len(roots))

        def work(which: int) -> list[Decision]:
            planner, out = self._crew[which], []
            for r in range(which, len(roots), threads):
                planner.reseed(np.random.default_rng(int(seeds[r])))
                out.append(planner.plan(roots[r], deadline=left, horizon=depth, max_episodes=share[0], max_steps=share[1]))
            return out

        parts = list(self._pool.map(work, range(threads)))
        return [parts[r % threads][r // threads] for r in range(len(roots))]

    def _plan_batched(
        self, started: float, roots: list[Belief], seconds: float | None, depth: int, episodes: int | None, steps: int | None
    ) -> list[Decision]:
        self._now = time.thread_time if self.config.clock == "cpu" else time.perf_counter
        opened = self._now()
        self._cancelled.clear()
        self._step_taken = None
        pairs = [(r.particles, None if r.weights is None else np.cumsum(r.weights)) for r in roots]
        self._tree.begin_many(pairs, int(self._rng.integers(2**63)))
        iterations, done, reason = self._search(opened, seconds, depth, episodes, steps)
        return [self._decision(started, iterations, done, reason, 0, self._tree.root(r)) for r in range(len(roots))]

    def advance(self, action: int, observation: int) -> None:
        """Say what was done and seen since the last decision, so that with ``reuse_tree`` the next search goes on there."""
        self._step_taken = (int(action), int(observation))

    def reseed(self, rng: np.random.Generator) -> None:
        """Draw the seeds of later decisions from this generator, and forget the tree."""
        super().reseed(rng)
        self._step_taken = None

    def _start(self, root: Belief, seed: int) -> int:
        taken, self._step_taken = self._step_taken, None
        if self.config.reuse_tree and taken is not None:
            cumulative = None if root.weights is None else np.cumsum(root.weights)
            kept = self._tree.reroot(*taken, root.particles, cumulative, seed)
            if kept > 0:
                return int(kept)
        return super()._start(root, seed)

    def _policy(self, preferences: Array, visits: Array) -> Array:
        weights = np.exp(self.eta * (preferences - preferences.max()))
        return weights / weights.sum()


class POMCP(OnlinePlanner):
    """Partially observable UCT on the same models, as a baseline; needs ``model.compiled()``.

    Arguments: as for :class:`VOPP`. ``Decision.preferences`` are the mean values, ``policy`` the shares of visits.

    Source: Silver and Veness, "Monte-Carlo planning in large POMDPs", NeurIPS 2010.
    """

    def __init__(self, model: Model, config: POMCPConfig | None = None, rng: np.random.Generator | None = None) -> None:
        from sfumato_vopp.backends import compiled_or_raise
        from sfumato_vopp.pomcp_numba import POMCPTree

        self._init(model, POMCPConfig() if config is None else config, rng)
        self.eta, self.backend = float("nan"), "numba"
        self._tree = POMCPTree(model, compiled_or_raise(model), self.config)

    def _policy(self, preferences: Array, visits: Array) -> Array:
        return visits / visits.sum()


class DESPOT(OnlinePlanner):
    """Anytime search under determinised scenarios with bounds, as a baseline; needs ``model.compiled()``.

    Arguments: as for :class:`VOPP`. ``Decision.preferences`` and ``values`` are lower bounds; an "episode" is a trial.

    Source: Ye, Somani, Hsu, Lee, "DESPOT: online POMDP planning with regularization", JAIR 2017; without regularisation.
    """

    def __init__(self, model: Model, config: DESPOTConfig | None = None, rng: np.random.Generator | None = None) -> None:
        from sfumato_vopp.backends import compiled_or_raise
        from sfumato_vopp.despot_numba import DESPOTTree

        self._init(model, DESPOTConfig() if config is None else config, rng)
        self.eta, self.backend = float("nan"), "numba"
        self._tree = DESPOTTree(model, compiled_or_raise(model), self.config)

    def warmup(self) -> None:
        """Compile and touch everything a decision needs; what a trial costs is learnt from the first real ones."""
        super().warmup()
        self._step_seconds = None

    def _affordable(self, n: int, depth: int, left: float, iteration: int) -> int:
        """Return the trials that fit in the time left, judged by the mean cost of those made so far."""
        if iteration == 0 or self._step_seconds is None:
            return 1
        each = self._step_seconds * self._tree.steps / max(1, iteration)
        return min(n, int(_MARGIN * left / each)) if each > 0 else n

    def _policy(self, preferences: Array, visits: Array) -> Array:
        policy = np.zeros(len(preferences))
        policy[int(np.argmax(preferences))] = 1.0
        return policy


class PORPP(OnlinePlanner):
    """The sequential method, in plain Python: slow, and there to compare with.

    Arguments: as for :class:`VOPP`.

    Source: Kim and Kurniawati, "Partially Observable Reference Policy Programming", IJCAI 2025.
    """

    def __init__(self, model: Model, config: PORPPConfig | None = None, rng: np.random.Generator | None = None) -> None:
        from sfumato_vopp.porpp import PORPPTree

        self._init(model, PORPPConfig() if config is None else config, rng)
        self.eta, self.backend = self.config.resolve_eta(model.reward_range), "python"
        self._tree = PORPPTree(model, self.config, self.eta)

    def _policy(self, preferences: Array, visits: Array) -> Array:
        weights = np.exp(self.eta * (preferences - preferences.max()))
        return weights / weights.sum()

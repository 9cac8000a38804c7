"""Settings of the planners: frozen, typed, with the defaults that our measurements chose."""

from __future__ import annotations

from typing import Any, Literal

import attrs
from attrs import validators as v

__all__ = ["DESPOTConfig", "POMCPConfig", "PORPPConfig", "SearchConfig"]

_positive: Any = v.gt(0)
_optional: Any = v.optional(_positive)
_count: Any = v.optional([v.instance_of(int), _positive])


def _default_seconds(budget: Any) -> float | None:
    return 0.1 if budget.max_episodes is None and budget.max_steps is None else None


@attrs.frozen(kw_only=True)
class _Budget:
    """What ends a search; the planners' settings build on it.

    Attributes:
        seconds: wall-clock budget of one decision; a deadline given to ``plan`` goes before it. None: no clock. Left out: 0.1
            where no other budget is given either, else none, so that a budget of episodes is not cut short in silence.
        max_episodes: episode budget of one decision; without seconds the search is deterministic.
        max_steps: budget of simulated model steps of one decision; the iteration that reaches it is the last.
        max_nodes: belief nodes a tree may hold; a search that reaches it stops early and says so.
        clock: "wall" for real deadlines; "cpu" counts this thread's processor time, for comparisons on a shared machine.
    """

    max_episodes: int | None = attrs.field(default=None, validator=_count)
    max_steps: int | None = attrs.field(default=None, validator=_count)
    seconds: float | None = attrs.field(default=attrs.Factory(_default_seconds, takes_self=True), validator=_optional)
    max_nodes: int = attrs.field(default=20_000_000, validator=[v.instance_of(int), v.ge(16)])
    clock: Literal["wall", "cpu"] = attrs.field(default="wall", validator=v.in_(("wall", "cpu")))

    def __attrs_post_init__(self) -> None:
        if self.seconds is None and self.max_episodes is None and self.max_steps is None:
            raise ValueError(
                "expected at least one of seconds, max_episodes, max_steps; without a budget a search would never end"
            )


@attrs.frozen(kw_only=True)
class SearchConfig(_Budget):
    """How VOPP searches.

    Attributes:
        n_episodes: episodes simulated side by side in one iteration (n).
        seconds, max_episodes, max_steps, max_nodes, clock: what ends a decision; seconds are those of the wall or, with
            clock "cpu", of this thread's processor time, and a deadline given to ``plan`` goes before them. None: no such
            limit; without seconds the search is deterministic. The iteration that reaches ``max_steps`` is the last.
            A tree that holds ``max_nodes`` beliefs stops early and says so.
        eta: inverse temperature η of the reference-policy objective, 1/reward. None: ``eta_scale`` over the width of the
            model's ``reward_range``.
        eta_scale: see ``eta``; dimensionless.
        max_depth: D_max, longest episode.
        depth_power, depth_factor: α and β of the depth schedule D_i = min(D_max, ⌊β·i^α + 1⌋).
        backup: "visited" updates a node only in iterations that pass through it; "tree" updates all, as the authors' code.
        denominator: visits that divide the sum of an action's successor values: "all" (unbiased), or "survivors" as in the
            authors' code, which over-values actions that may end the episode.
        log_sum: actions over which L_η runs: "all", or "children": only those tried at the node, as in sequential PORPP.
        subtract: V_old is subtracted from the preference of "tried" actions only, or of "all".
        initial_preference: "leaf" starts a node's preferences at its leaf estimate less log|A|/η, so that its value does
            not jump when it is expanded; "constant" starts all at ``initial_constant`` (the authors' code: 1/|A|).
        initial_constant: see ``initial_preference``; reward.
        root_mixing: probability of a uniform action at the root. Without any, an action that costs now and pays later is
            judged by the first, shortest episodes, which see only the cost, and may never be tried again.
        clip: preferences are kept within clip/η of the node's best, so that no exponential underflows to NaN.
        storage: "dense" keeps a row of |A| at each expanded node, "sparse" only the actions tried; None: dense up to 64
            actions.
        reuse_tree: after ``advance(action, observation)`` the next search goes on in the subtree below them (backend numba).
        n_threads: trees searched at once, one a thread, and pooled at the root (backend numba).
        pin_threads: keep each of those threads to a core of its own (Linux). On a machine that others use too, two threads that
            have just waited for each other are often put on one core while the other works for somebody else.
        capacity: with it the search runs on tensors of fixed shape (backend torch): most beliefs, and most actions tried,
            that one depth may hold. None: tables that grow, and a count read back at every level.
        capture: how those steps are launched: "none" op by op, "graph" from captured CUDA graphs, "compile" compiled; None:
            "graph" on CUDA, else "none".
    """

    n_episodes: int = attrs.field(default=2000, validator=[v.instance_of(int), _positive])
    eta: float | None = attrs.field(default=None, validator=_optional)
    eta_scale: float = attrs.field(default=10.0, validator=_positive)
    max_depth: int = attrs.field(default=40, validator=[v.instance_of(int), v.ge(1), v.le(1000)])
    depth_power: float = attrs.field(default=0.5, validator=v.ge(0))
    depth_factor: float = attrs.field(default=1.0, validator=v.ge(0))
    backup: Literal["visited", "tree"] = attrs.field(default="visited", validator=v.in_(("visited", "tree")))
    denominator: Literal["all", "survivors"] = attrs.field(default="all", validator=v.in_(("all", "survivors")))
    log_sum: Literal["all", "children"] = attrs.field(default="all", validator=v.in_(("all", "children")))
    subtract: Literal["tried", "all"] = attrs.field(default="tried", validator=v.in_(("tried", "all")))
    initial_preference: Literal["leaf", "constant"] = attrs.field(default="leaf", validator=v.in_(("leaf", "constant")))
    initial_constant: float = 0.0
    root_mixing: float = attrs.field(default=0.05, validator=[v.ge(0), v.le(1)])
    clip: float = attrs.field(default=80.0, validator=_positive)
    storage: Literal["dense", "sparse"] | None = attrs.field(default=None, validator=v.optional(v.in_(("dense", "sparse"))))
    n_threads: int = attrs.field(default=1, validator=[v.instance_of(int), v.ge(1), v.le(256)])
    pin_threads: bool = attrs.field(default=False, validator=v.instance_of(bool))
    capacity: int | None = attrs.field(default=None, validator=_count)
    capture: Literal["none", "graph", "compile"] | None = attrs.field(
        default=None, validator=v.optional(v.in_(("none", "graph", "compile")))
    )
    reuse_tree: bool = attrs.field(default=False, validator=v.instance_of(bool))

    def resolve_eta(self, reward_range: tuple[float, float]) -> float:
        """Return η, from the model's reward range when it is not set."""
        if self.eta is not None:
            return self.eta
        width = reward_range[1] - reward_range[0]
        return self.eta_scale / (width if width > 0 else 1.0)

    def depth(self, iteration: int, horizon: int | None = None) -> int:
        """Return D_i, the length of the episodes of iteration i (counted from 0); ``horizon`` stands in for ``max_depth``."""
        longest = self.max_depth if horizon is None else horizon
        return max(1, min(longest, int(self.depth_factor * iteration**self.depth_power + 1.0)))


@attrs.frozen(kw_only=True)
class POMCPConfig(_Budget):
    """How the POMCP baseline searches.

    Attributes:
        n_episodes: simulations between two looks at the clock.
        seconds, max_episodes, max_steps, max_nodes, clock: as in :class:`SearchConfig`.
        max_depth: longest simulation, rollout included.
        exploration: c of UCB1, in reward; the width of the model's ``reward_range`` when None.
        leaf: "rollout" follows uniform actions to the horizon, "hint" asks the model's value hint.
    """

    n_episodes: int = attrs.field(default=200, validator=[v.instance_of(int), _positive])
    max_depth: int = attrs.field(default=90, validator=[v.instance_of(int), v.ge(1), v.le(1000)])
    exploration: float | None = attrs.field(default=None, validator=v.optional(v.ge(0)))
    leaf: Literal["rollout", "hint"] = attrs.field(default="hint", validator=v.in_(("rollout", "hint")))

    def depth(self, iteration: int, horizon: int | None = None) -> int:
        """Return the horizon; it does not grow here."""
        return self.max_depth if horizon is None else horizon


@attrs.frozen(kw_only=True)
class PORPPConfig(POMCPConfig):
    """How sequential PORPP searches; what is not named here is as in :class:`POMCPConfig`.

    Attributes:
        eta, eta_scale: as in :class:`SearchConfig`.
        k_a, alpha_a: an action is proposed at a history with N visits while it has fewer than k_a·N^alpha_a.
        initial_preference: Ψ of a proposed action.
    """

    n_episodes: int = attrs.field(default=20, validator=[v.instance_of(int), _positive])
    eta: float | None = attrs.field(default=None, validator=_optional)
    eta_scale: float = attrs.field(default=10.0, validator=_positive)
    k_a: float = attrs.field(default=2.0, validator=_positive)
    alpha_a: float = attrs.field(default=0.5, validator=v.ge(0))
    initial_preference: float = 0.0

    def resolve_eta(self, reward_range: tuple[float, float]) -> float:
        """Return η, from the model's reward range when it is not set."""
        width = reward_range[1] - reward_range[0]
        return self.eta if self.eta is not None else self.eta_scale / (width if width > 0 else 1.0)


@attrs.frozen(kw_only=True)
class DESPOTConfig(_Budget):
    """How the DESPOT-like baseline searches.

    Attributes:
        n_scenarios: K, determinised scenarios drawn from the belief.
        xi: ξ, share of the root's gap that a trial aims to leave.
        voters: scenarios of a node that are asked what the default policy should do there.
        max_depth: D, depth of the tree; rollout_depth: depth at which the default policy stops, counted from the root.
        n_episodes: trials between two looks at the clock.
        seconds, max_episodes (trials), max_steps, max_nodes, clock: as in :class:`SearchConfig`.
    """

    n_scenarios: int = attrs.field(default=500, validator=[v.instance_of(int), _positive])
    xi: float = attrs.field(default=0.95, validator=[v.gt(0), v.le(1)])
    voters: int = attrs.field(default=5, validator=[v.instance_of(int), _positive])
    n_episodes: int = attrs.field(default=1, validator=[v.instance_of(int), _positive])
    max_depth: int = attrs.field(default=90, validator=[v.instance_of(int), v.ge(1), v.le(1000)])
    rollout_depth: int = attrs.field(default=90, validator=[v.instance_of(int), v.ge(1), v.le(1000)])

    def depth(self, iteration: int, horizon: int | None = None) -> int:
        """Return the depth of the tree; it does not grow here."""
        return self.max_depth if horizon is None else horizon

"""Exact optimum of the balanced assignment, by linear programming or by minimum-cost flow.

The constraints are those of a bipartite graph, hence totally unimodular: the linear program has an
integral optimum, and its solution is an assignment.
"""

from __future__ import annotations

import time
from typing import Any

import attrs
import numpy as np

from .certificates import Certificate, certificate
from .errors import AlflbError, ArgumentError, MissingExtraError
from .problem import AlfProblem, Bools, Floats, Ints, affinity

METHODS = ("highs", "highs-ds", "highs-ipm", "flow")


@attrs.frozen(eq=False)
class LpSolution:
    """An optimal balanced assignment.

    objective: sum of the chosen scores. chosen: bool [T, E]. prices: float [E], the optimal bias (None
    for 'flow', which has no dual to read). certificate: the assignment at those prices; it is checked
    with our own arithmetic, so the solver need not be trusted. seconds: wall time. n_columns: variables
    that the last linear program held.
    """

    objective: float
    chosen: Bools
    prices: Floats | None
    certificate: Certificate | None
    method: str
    seconds: float
    n_columns: int


def lp_reference(problem: AlfProblem, method: str = "highs") -> LpSolution:
    """Solve `max sum g*x, sum_k x = K, sum_i x <= ceil(T*K/E)` exactly.

    method: 'highs' prices columns in: it solves the program over the pairs that a short run of the bias
    rule leaves plausible, then adds every pair that could still improve it until none can, so the answer
    is that of the full program. 'highs-ds' and 'highs-ipm' hand the full program to HiGHS's dual
    simplex or interior point. 'flow' is OR-Tools' minimum-cost flow (extra `flow`) on scores rounded to
    multiples of 2**-30 times the largest range of a token's scores.
    Solvers have absolute tolerances, so they are given scores whose rows end at 0 and whose largest range
    is 1; the choice is the same.
    Raises AlflbError when a solver ends otherwise than with a solution that is proved optimal.
    Cost: seconds to tens of seconds at T*E = 262,144; 'highs' is the fastest of the linear programs.
    """
    if method not in METHODS:
        raise ArgumentError("method", f"one of {', '.join(METHODS)}", repr(method))
    begin = time.perf_counter()
    if problem.n_tokens == 0:
        raise ArgumentError("problem", "at least one token", "an empty batch")
    unit, scaled = _scaled(problem)
    prices: Floats | None = None
    n_columns = problem.scores.size
    if method == "flow":
        chosen = _min_cost_flow(scaled)
    elif method == "highs":
        chosen, prices, n_columns = _priced(scaled)
    else:
        everything = np.ones_like(problem.scores, dtype=np.bool_)
        chosen, prices = _solve_columns(scaled, everything, method)
    proof = None
    if prices is not None:
        prices = prices * unit
        proof = certificate(problem, prices, chosen)
        if not proof.is_optimal(1e-6):
            raise AlflbError(
                f"the answer of method={method!r} has a gap of {proof.gap:.3g} where {proof.at_stake:.3g} is "
                "at stake, so it is not proved optimal. Try another method."
            )
    return LpSolution(
        objective=affinity(problem, chosen),
        chosen=chosen,
        prices=prices,
        certificate=proof,
        method=method,
        seconds=time.perf_counter() - begin,
        n_columns=n_columns,
    )


def _scaled(problem: AlfProblem) -> tuple[float, AlfProblem]:
    """Return the largest range of a token's scores, and the problem with rows that end at 0, divided by it."""
    below = problem.scores - problem.scores.max(axis=1, keepdims=True)
    unit = float(-below.min()) or 1.0
    return unit, AlfProblem(below / unit, problem.k)


def _solve_columns(problem: AlfProblem, columns: Bools, method: str) -> tuple[Bools, Floats]:
    """Solve the program over the pairs in `columns` [T, E]; return the choice and the experts' prices."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix

    token, expert = np.nonzero(columns)
    n = token.size
    ones, column = np.ones(n), np.arange(n)
    per_token = csr_matrix((ones, (token, column)), shape=(problem.n_tokens, n))
    per_expert = csr_matrix((ones, (expert, column)), shape=(problem.n_experts, n))
    result = linprog(
        -problem.scores[token, expert],
        A_ub=per_expert,
        b_ub=np.full(problem.n_experts, float(problem.capacity)),
        A_eq=per_token,
        b_eq=np.full(problem.n_tokens, float(problem.k)),
        bounds=(0.0, 1.0),
        method=method,
    )
    if result.status != 0:
        raise AlflbError(f"HiGHS ended with status {result.status}: {result.message}")
    if np.abs(result.x - np.rint(result.x)).max() > 1e-6:
        raise AlflbError(
            "HiGHS returned a fractional point, which no vertex of this program is. "
            "Try method='highs-ds', whose answer is always a vertex."
        )
    chosen = np.zeros_like(columns)
    chosen[token, expert] = result.x > 0.5
    return chosen, np.asarray(result.ineqlin.marginals)


def _priced(problem: AlfProblem) -> tuple[Bools, Floats, int]:
    """Column generation, warm started by the bias rule's prices.

    A pair outside the program can improve it only if g + p exceeds the token's dual, which the K-th
    largest g + p of the pairs inside bounds. With prices near the optimum very few do, so two or three
    rounds over a tenth of the columns settle what the whole program would.
    """
    from .run import alf_run

    warm = alf_run(problem, "prop_inv", 0.5, steps=60).bias
    total = problem.scores + warm
    kth = np.partition(total, problem.n_experts - problem.k, axis=1)[:, problem.n_experts - problem.k]
    columns = total >= kth[:, None] - 0.02
    columns |= _feasible(problem)
    while True:
        chosen, prices = _solve_columns(problem, columns, "highs-ds")
        inside = certificate(problem, prices, chosen)
        if inside.is_optimal(1e-10):
            return chosen, prices, int(columns.sum())
        better = problem.route(prices).chosen & ~columns
        if not better.any():
            raise AlflbError(
                f"pricing ended with a gap of {inside.gap:.3g}; use method='highs-ds' on this problem."
            )
        total = problem.scores + prices
        kth = np.partition(total, problem.n_experts - problem.k, axis=1)[:, problem.n_experts - problem.k]
        columns |= total >= kth[:, None] - 0.005


def _feasible(problem: AlfProblem) -> Bools:
    """Return some assignment that meets the loads, so that the restricted program has a solution."""
    slots = (np.arange(problem.n_tokens)[:, None] * problem.k + np.arange(problem.k)) % problem.n_experts
    chosen = np.zeros_like(problem.scores, dtype=np.bool_)
    np.put_along_axis(chosen, slots, True, axis=1)
    return chosen


def _min_cost_flow(problem: AlfProblem) -> Bools:
    try:
        from ortools.graph.python import min_cost_flow
    except ImportError as error:
        raise MissingExtraError("method='flow'", "flow") from error
    n_tokens, n_experts = problem.scores.shape
    costs: Ints = -np.rint(problem.scores * 2.0**30).astype(np.int64)
    token, expert = (a.ravel() for a in np.indices(problem.scores.shape))
    sink = n_tokens + n_experts
    flow: Any = min_cost_flow.SimpleMinCostFlow()
    pairs = flow.add_arcs_with_capacity_and_unit_cost(
        token, n_tokens + expert, np.ones(token.size, dtype=np.int64), costs.ravel()
    )
    flow.add_arcs_with_capacity_and_unit_cost(
        n_tokens + np.arange(n_experts),
        np.full(n_experts, sink),
        np.full(n_experts, problem.capacity, dtype=np.int64),
        np.zeros(n_experts, dtype=np.int64),
    )
    flow.set_nodes_supplies(np.arange(n_tokens), np.full(n_tokens, problem.k, dtype=np.int64))
    flow.set_nodes_supplies(np.array([sink]), np.array([-n_tokens * problem.k], dtype=np.int64))
    status = flow.solve()
    if status != flow.OPTIMAL:
        raise AlflbError(f"OR-Tools' minimum-cost flow ended with {status}")
    return np.asarray(flow.flows(pairs)).reshape(problem.scores.shape) > 0

"""Write solutions: TSPLIB `.tour`, CVRPLIB `.sol`, OPLib sequence, knapsack item list."""

from __future__ import annotations

import os
from pathlib import Path

from .instances import Instance, Plan


def solution_text(instance: Instance, solution: Plan, objective: float) -> str:
    """The solution in the form that its problem's library uses; nodes count from 1 except in CVRPLIB routes."""
    value = f"{objective:.10g}"
    if instance.problem in ("cvrp", "cvrptw"):
        lines = [f"Route #{k}: {' '.join(map(str, route))}" for k, route in enumerate(solution, 1)]
        return "\n".join([*lines, f"Cost {value}", ""])
    if instance.problem == "kp":
        return "\n".join([f"Value {value}", *(str(i + 1) for i in sorted(solution)), ""])
    head = [f"NAME : {instance.name}"]
    if instance.problem == "op":
        body = ["TYPE : OP", f"DIMENSION : {instance.n}", f"ROUTE_SCORE : {value}", "NODE_SEQUENCE_SECTION"]
        nodes = [0, *solution]
    else:
        body = [f"COMMENT : length {value}", "TYPE : TOUR", f"DIMENSION : {instance.n}", "TOUR_SECTION"]
        nodes = solution
    return "\n".join([*head, *body, *(str(v + 1) for v in nodes), "-1", "EOF", ""])


def write_solution(path: str | Path, instance: Instance, solution: Plan, objective: float) -> None:
    """Write `solution_text` to `path` in one rename, so that an interrupted write leaves the old file."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(solution_text(instance, solution, objective), encoding="utf-8")
    temporary.replace(path)

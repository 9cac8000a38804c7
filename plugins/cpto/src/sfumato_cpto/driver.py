"""The agent in closed loop: interpret, plan, drive the shared segment or the fall-back, keep notes.

Free of any framework: `reset(public)`, then `act(observation)` once per control period.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from sfumato_cpto.admm import Array
from sfumato_cpto.config import PlannerSettings
from sfumato_cpto.hypotheses import Interpreter, Situation
from sfumato_cpto.solver import CPTOSolver, Plan


class Driver:
    """Drives with `CPTOSolver`.

    Attributes:
        log: one dict per cycle since `reset`: status, seconds, segment [2, N] planned, gap, programs, iterations.
        plan, situation: those of the last cycle.
    """

    def __init__(
        self, solver: CPTOSolver, n_obstacles: int = 6, n_candidates: int = 3, deadline: float | None = None
    ):
        self.solver, self.deadline = solver, deadline
        self.n_obstacles, self.n_candidates = n_obstacles, n_candidates
        self.log: list[dict[str, Any]] = []
        self.plan: Plan | None = None
        self.situation: Situation | None = None

    def reset(self, public: Mapping[str, Any]) -> None:
        """Forget the last course."""
        self.interpreter = Interpreter(
            public, self.solver.settings.bounds, self.n_obstacles, self.n_candidates
        )
        self.log = []
        self.plan = None
        self._driven: Plan | None = None
        self._elapsed = 0
        self._acceleration: float | None = None

    def question(self, situation: Situation) -> Situation:
        """Change what is asked before it is planned; baselines override this."""
        return situation

    def act(self, observation: Mapping[str, Array]) -> tuple[float, float]:
        """Return (speed m/s, yaw rate rad/s) to hold for one period."""
        begun = time.perf_counter()
        situation = self.question(self.interpreter.interpret(observation, self._acceleration))
        self._elapsed += 1
        plan = self.solve(situation, self._driven)
        command = self._command(plan, situation)
        self.plan, self.situation = plan, situation
        self.log.append(
            {
                "status": plan.status.name,
                "seconds": time.perf_counter() - begun,
                "plan_seconds": plan.seconds,
                "segment": plan.shared.astype(np.float32) if len(plan.position) else None,
                "gap": plan.gap,
                "programs": plan.programs,
                "iterations": plan.iterations,
                "candidates": len(plan.position),
                "driven": command,
            }
        )
        return command

    def solve(self, situation: Situation, previous: Plan | None) -> Plan:
        """Plan one cycle; baselines override this."""
        return self.solver.plan(
            situation.state, situation.obstacles, situation.hypotheses, bounds=situation.bounds, previous=previous,
            elapsed=self._elapsed, deadline=self.deadline,
        )  # fmt: skip

    def _command(self, plan: Plan, situation: Situation) -> tuple[float, float]:
        state = situation.state
        settings: PlannerSettings = self.solver.settings
        if plan.status.is_feasible:
            self._driven, self._elapsed = plan, 0
            weight = np.full(len(plan.position), 1.0 / len(plan.position))
            a = np.einsum("c,ca->a", weight, plan.acceleration[:, :, 1])
            v = np.einsum("c,ca->a", weight, plan.velocity[:, :, 1])
            speed = float(np.hypot(*v))
            self._acceleration = float(a @ v / speed) if speed > 0.1 else float(a[0])
            return plan.command
        # No plan to drive: the verified fall-back along the path of the last good plan.
        if plan.fallback is not None:
            speed, yaw_rate = plan.fallback.command
        else:
            speed, yaw_rate = max(state.speed - settings.brake * settings.dt, 0.0), 0.0
        self._acceleration = (speed - state.speed) / settings.dt
        return speed, yaw_rate

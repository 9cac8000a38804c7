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
from sfumato_cpto.fallback import Fallback, along_path
from sfumato_cpto.hypotheses import Interpreter, Situation
from sfumato_cpto.picture import Picture, picture
from sfumato_cpto.problem import InputError
from sfumato_cpto.safety import Assumptions, Certificate, Monitor, certify
from sfumato_cpto.solver import CPTOSolver, Plan
from sfumato_cpto.statuses import Status


class Driver:
    """Drives with `CPTOSolver`.

    Attributes:
        certified: whether a plan is released only with a fall-back that is clear of every user's reachable occupancy.
        log: one dict per cycle since `reset`: status, seconds, segment [2, N] planned, gap, programs, iterations, picture.
        plan, situation: those of the last cycle.
    """

    def __init__(
        self,
        solver: CPTOSolver,
        n_obstacles: int = 6,
        n_candidates: int = 3,
        deadline: float | None = None,
        certified: bool = False,
    ):
        self.solver, self.deadline, self.certified = solver, deadline, certified
        self.n_obstacles, self.n_candidates = n_obstacles, n_candidates
        self.log: list[dict[str, Any]] = []
        self.plan: Plan | None = None
        self.situation: Situation | None = None

    def reset(self, public: Mapping[str, Any]) -> None:
        """Forget the last course."""
        settings = self.solver.settings
        self.interpreter = Interpreter(
            public, settings.bounds, self.n_obstacles, self.n_candidates, n_samples=settings.n_samples
        )
        self.log = []
        self.plan = None
        self._driven: Plan | None = None
        self._elapsed = 0
        self._acceleration: float | None = None
        self._manoeuvre = ""
        self.monitor = Monitor(Assumptions(brake=self.solver.settings.brake), public)
        self._public = public

    def question(self, situation: Situation) -> Situation:
        """Change what is asked before it is planned; baselines override this."""
        return situation

    def act(self, observation: Mapping[str, Array]) -> tuple[float, float]:
        """Return (speed m/s, yaw rate rad/s) to hold for one period."""
        begun = time.perf_counter()
        fault = fault_of(observation)
        if fault:
            return self._blind(fault, begun)
        self.monitor.watch(observation)
        situation = self.question(self.interpreter.interpret(observation, self._acceleration))
        self._elapsed += 1
        plan = self.solve(situation, self._driven)
        certificate = self.certify(plan, situation) if self.certified else None
        command = self._command(plan, situation, certificate)
        self.monitor.tell(float(observation["ego"][3]), command[0])
        self.plan, self.situation = plan, situation
        self._note(plan, command, certificate, begun, picture(plan, situation))
        return command

    def _blind(self, fault: str, begun: float) -> tuple[float, float]:
        # Nothing that can be planned on was observed: brake straight on from what was last commanded, and go on.
        settings = self.solver.settings
        plan = self.solver.without_curves(Status.BAD_INPUT, fault, None, time.monotonic())
        last = self.log[-1]["driven"][0] if self.log else 0.0
        command = (max(last - settings.brake * settings.dt, 0.0), 0.0)
        self._elapsed += 1
        self._acceleration = -settings.brake
        self.plan = plan
        self._note(plan, command, None, begun)
        return command

    def _note(
        self,
        plan: Plan,
        command: tuple[float, float],
        certificate: Certificate | None,
        begun: float,
        seen: Picture | None = None,
    ) -> None:
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
                "certified": None if certificate is None else certificate.clear,
                "picture": seen,
            }
        )

    def solve(self, situation: Situation, previous: Plan | None) -> Plan:
        """Plan one cycle; baselines override this."""
        return self.solver.plan(
            situation.state, situation.obstacles, situation.hypotheses, bounds=situation.bounds, previous=previous,
            elapsed=self._elapsed, deadline=self.deadline,
        )  # fmt: skip

    def certify(self, plan: Plan, situation: Situation) -> Certificate:
        """Check the fall-back along the plan's shared curve against what everybody known, seen or hidden, can reach."""
        size = np.asarray(self._public["size"], dtype=float)
        known = situation.known
        if known is None:
            raise TypeError("expected a situation that says who is known, got none; set Situation.known")
        sizes = np.array([self.interpreter.size_of(int(j), situation) for j in known.user]).reshape(-1, 2)
        if len(plan.position):
            path = plan.shared
            step = np.diff(path, axis=1)
            heading = np.arctan2(step[1], np.maximum(step[0], 1e-9))
            heading = np.concatenate([[situation.state.heading], heading])
        else:
            direction = np.array([[np.cos(situation.state.heading)], [np.sin(situation.state.heading)]])
            path = np.array([[situation.state.x], [situation.state.y]]) + direction * np.linspace(
                0.0, 40.0, 50
            )
            heading = np.full(50, situation.state.heading)
        speed = plan.command[0] if plan.status.is_feasible else situation.state.speed
        return certify(
            path, heading, float(speed), size, known.position, known.velocity, sizes, self.monitor.assumptions,
            self.solver.settings.dt, depth=known.depth, breadth=known.breadth,
        )  # fmt: skip

    def _command(
        self, plan: Plan, situation: Situation, certificate: Certificate | None
    ) -> tuple[float, float]:
        state = situation.state
        settings: PlannerSettings = self.solver.settings
        if plan.status.is_feasible and (certificate is None or certificate.clear):
            self._manoeuvre = certificate.manoeuvre if certificate is not None else ""
            self._driven, self._elapsed = plan, 0
            weight = _weights(situation, len(plan.position))
            position, velocity, a = (
                weight @ v[:, :, 1] for v in (plan.position, plan.velocity, plan.acceleration)
            )
            speed = float(np.hypot(*velocity))
            self._acceleration = float(a @ velocity / speed) if speed > 0.1 else float(a[0])
            if situation.frame is not None and situation.world is not None:
                return situation.frame.command(situation.world, position, velocity, settings.dt)
            return plan.command
        # No plan to drive: the verified fall-back along the path of the last good plan.
        back = self._carry_on(situation) if self._manoeuvre else plan.fallback
        if back is None:
            self._acceleration = -settings.brake
            return max(state.speed - settings.brake * settings.dt, 0.0), 0.0
        self._acceleration = (back.command[0] - state.speed) / settings.dt
        if situation.frame is not None and situation.world is not None:
            speed = float(back.speed[1])
            direction = state.heading + back.command[1] * settings.dt
            velocity = speed * np.array([np.cos(direction), np.sin(direction)])
            return situation.frame.command(situation.world, back.position[:, 1], velocity, settings.dt)
        return back.command

    def _carry_on(self, situation: Situation) -> Fallback | None:
        # The manoeuvre that was clear of everything reachable when the last plan was released, along that plan's path.
        try:
            problem = self.solver.build(
                situation.state, situation.obstacles, situation.hypotheses, situation.bounds
            )
        except InputError:
            return None
        path = None
        if self._driven is not None:
            path = self._driven.shared
            direction = np.array([np.cos(problem.heading), np.sin(problem.heading)])
            path = path[:, direction @ (path - problem.start[:, :1]) > 0.05]
        rates = {"brake": -self.solver.settings.brake, "hard brake": -8.0, "keep": 0.0, "clear zone": 2.0}
        return along_path(
            self.solver.settings, problem, path, rates[self._manoeuvre], float(problem.speed_cap.max())
        )


def fault_of(observation: Mapping[str, Array]) -> str:
    """Return what makes an observation unfit to plan on, or "" when nothing does."""
    if not isinstance(observation, Mapping):
        return f"expected an observation as a mapping of arrays, got {observation!r}; a missing one is not an empty one"
    for name in ("ego", "time", "detected", "position", "velocity", "size"):
        if observation.get(name) is None:
            return f"expected {name} in the observation, got none; a missing measurement is not an empty one"
    try:
        ego, now = np.asarray(observation["ego"], dtype=float), np.asarray(observation["time"], dtype=float)
        seen = np.asarray(observation["detected"], dtype=bool)
        rows = {
            name: np.asarray(observation[name], dtype=float)[seen]
            for name in ("position", "velocity", "size")
        }
    except (TypeError, ValueError, IndexError) as error:
        return f"expected arrays of numbers in the observation, got {error}"
    if ego.shape != (6,) or not np.isfinite(ego).all() or not np.isfinite(now).all():
        return f"expected six finite numbers for ego and a finite time, got {ego} at {now}"
    for name, values in rows.items():
        if values.shape != (int(seen.sum()), 2) or not np.isfinite(values).all():
            return f"expected finite pairs for the {name} of every detected user, got {values.tolist()}"
    if (rows["size"] <= 0.0).any():
        return f"expected positive sizes, got {rows['size'].min()}"
    return ""


def _weights(situation: Situation, n_candidates: int) -> Array:
    weight = situation.hypotheses.weight
    if weight is None or len(np.asarray(weight)) != n_candidates:
        return np.full(n_candidates, 1.0 / n_candidates)
    return np.asarray(weight, dtype=float)

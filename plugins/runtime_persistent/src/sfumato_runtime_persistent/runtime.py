"""The runtime: an episode whose actions are tool calls becomes one whose actions are Python code."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sfumato.errors import ProtocolError
from sfumato.protocols import Context, Episode
from sfumato.records import Start, Step
from sfumato_runtime_persistent.config import PersistentConfig
from sfumato_sandbox.interpreter import Interpreter
from sfumato_sandbox.turns import Turns

NAME = "runtime-persistent/python"
PERSISTENT = True


class PersistentPython:
    """One Python process for an episode: what an action binds, the next one finds.

    Fits any task whose `Start.public` holds "tools" (name → {"signature", "doc"}) and whose steps take one
    tool call {"tool", "args", "kwargs"} and answer {"ok": True, "value"} or {"ok": False, "kind", "message"}.
    One warmed interpreter serves all episodes of a run, those that run at the same time included.

    Source: V. May, A. Salgarkar, Y. Wang, D. Misra, H. Nguyen, "Agents Learn Their Runtime", arXiv:2603.01209, 2026.
    """

    def __init__(self, config: PersistentConfig = PersistentConfig()) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._interpreter: Interpreter | None = None

    @contextmanager
    def open(self, episode: Episode[Any, Any], ctx: Context) -> Iterator[Episode[Any, Any]]:
        """Yield the episode as code sees it; its process ends with the context.

        Raises IsolationUnavailable with `strict` when the machine permits less than `level`.
        """
        with self._lock:
            if self._interpreter is None:
                self._interpreter = self.config.interpreter(PERSISTENT)
        seed = int(ctx.stream("runtime").integers(1 << 62))
        session = CodeEpisode(episode, self._interpreter, self.config, seed)
        try:
            yield session
        finally:
            session.close()

    def close(self) -> None:
        """End the warmed interpreter; the next `open` starts another. It also ends with this object."""
        with self._lock:
            if self._interpreter is not None:
                self._interpreter.close()
                self._interpreter = None


class CodeEpisode(Episode[str, Any]):
    """One episode played in code. An action is Python source, or {"message": text with one fenced block}."""

    def __init__(
        self, native: Episode[Any, Any], interpreter: Interpreter, config: PersistentConfig, seed: int
    ) -> None:
        self._native = native
        self._interpreter = interpreter
        self._config = config
        self._seed = seed
        self._turns: Turns | None = None
        self._max_turns: int | None = None
        self._last: Step[Any] | None = None
        self._reward = 0.0
        self._over = False

    def reset(self) -> Start[str]:
        """Begin; what the runtime adds to `public` is under "runtime", the first visibility cue under "cue".

        Raises TypeError when the task offers no tools.
        """
        start = self._native.reset()
        public = start.public
        if not isinstance(public, Mapping) or "tools" not in public:
            raise TypeError(
                f"runtime {NAME} needs a task whose Start.public holds 'tools', got {type(public).__name__}. Use a "
                "code-acting task, or the runtime 'direct'."
            )
        self._max_turns = public.get("max_turns")
        self.close()  # of a first reset, where the task allows a second
        self._turns = Turns(
            self._interpreter,
            self._config,
            PERSISTENT,
            NAME,
            public["tools"],
            self._call,
            public.get("tool_calls_per_action"),
            tuple(public.get("modules", ())),
            self._seed,
        )
        cue = "" if self._config.cues == "none" else "Variables that exist now: none."
        return Start(start.observation, {**public, "runtime": self._turns.public, "cue": cue})

    def step(self, action: Any) -> Step[str]:
        """Run one action. The reward is the sum of what its tool calls earned.

        Raises ProtocolError after the end: code that is run then could reach nothing.
        """
        if self._turns is None:
            raise RuntimeError("step was called before reset")
        if self._over:
            raise ProtocolError(f"runtime {NAME}: step was called after the episode was over. Open a new one.")
        self._reward = 0.0
        turn = self._turns.act(action)
        last = self._last
        terminated = last is not None and bool(last.terminated)
        truncated = last is not None and bool(last.truncated)
        if not terminated and self._max_turns is not None and len(self._turns.account) >= self._max_turns:
            truncated = True
        self._over = terminated or truncated
        return Step(turn.observation, self._reward, terminated, truncated, turn.info)

    def truth(self) -> Mapping[str, Any] | None:
        """Return what the runtime saw of each action: errors, missing names, state, output cut."""
        return None if self._turns is None else self._turns.truth()

    def close(self) -> None:
        """End the episode's process."""
        if self._turns is not None:
            self._turns.close()

    def _call(self, call: dict[str, Any]) -> Mapping[str, Any]:
        if self._last is not None and self._last.over:
            return {"ok": False, "kind": "failed", "message": "the episode is over"}
        self._last = self._native.step(call)
        self._reward += float(self._last.reward)
        answer: Mapping[str, Any] = self._last.observation
        return answer

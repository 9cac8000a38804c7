"""Scripted agents that write code: the expert in two regimes, and one that fails in known ways at a known rate."""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from sfumato_opaque_knapsack import styles
from sfumato_opaque_knapsack.ladder import LADDER, Answer, Batch, Row
from sfumato_opaque_knapsack.styles import COMPACT, STYLES, Style, Turn

REGIMES = ("persistent", "stateless")
# Primes above the largest number of items: coprime to every list length, so that the stride visits each item once.
_STRIDES = (127, 131, 137, 139, 149, 151, 157, 163)


def fenced(code: str, words: str = "") -> str:
    """Return an assistant message: words, then one fenced block."""
    return f"{words}\n```python\n{code}\n```" if words else f"```python\n{code}\n```"


def output_of(observation: str) -> str:
    """Return what an action printed, from either rendering of an observation (plain text or the paper's JSON)."""
    if observation.startswith("{"):
        try:
            record = json.loads(observation)
        except ValueError:
            return observation
        if isinstance(record, dict) and "output" in record:
            return str(record["output"] or "")
    return observation


class ScriptedExpert:
    """Lists, inspects in batches to the budget, takes by density while learning from refusals, and finishes.

    Arguments:
        regime: `persistent` code sets state up once and calls helpers; `stateless` code restates what it needs.
        style: name of a coding style, or `varied` to draw one of four for each episode.
        words: write a sentence before each block.
        recovers: when the state of persistent code is gone while it inspects (an output without what it should hold, or
            `lose`), look at everything again, which costs no budget, and write for a stateless interpreter from then on.

    Notes:
        With equal seeds both regimes make the same inspect, take and finish calls in the same order. It reads only
        what its own code printed. When an output does not hold what it should (a killed interpreter, an injected
        fault), it sets up again while inspecting, twice at most, and finishes while taking.
    """

    def __init__(
        self, regime: str, *, style: str = "varied", words: bool = True, recovers: bool = False
    ) -> None:
        names = [known.name for known in (*STYLES, COMPACT)]
        if regime not in REGIMES:
            raise ValueError(f"regime: expected one of {', '.join(REGIMES)}, got {regime!r}")
        if style != "varied" and style not in names:
            raise ValueError(f"style: expected varied or one of {', '.join(names)}, got {style!r}")
        self.regime = regime
        self.style = style
        self.words = words
        self.recovers = recovers

    def reset(self, public: Mapping[str, Any], seed: int) -> None:
        """Begin an episode. `seed` decides exploration order, style and words; equal in both halves of a pair."""
        rng = random.Random(seed)
        self._rng = rng
        self._capacity, self._budget = int(public["capacity"]), int(public["budget"])
        self._cap = int(public["tool_calls_per_action"])
        self._batch = self._cap - 1  # one call of the cap goes to listing again where nothing survives
        self._id_pattern = str(public["id_pattern"])
        plain_order = bool(public.get("plain_order", False))
        self._start = 0 if plain_order else rng.randrange(25)
        self._stride = 1 if plain_order else _STRIDES[rng.randrange(len(_STRIDES))]
        drawn = STYLES[rng.randrange(len(STYLES))]
        self._style: Style = (
            drawn if self.style == "varied" else next(s for s in (*STYLES, COMPACT) if s.name == self.style)
        )
        self._kind, self._offset = "", 0
        self._room = self._capacity
        self._rows: list[Row] = []
        self._refused: list[str] = []
        self._taken = False
        self._restarts = 0
        self._writes = self.regime
        self._told = False

    def lose(self) -> None:
        """Tell the expert that its variables are gone, as a visibility cue does."""
        self._told = self.recovers and self._writes == "persistent"

    def act(self, observation: str) -> str:
        """Return the next assistant message."""
        output = output_of(observation)
        self._advance(output)
        turn = Turn(
            kind=self._kind,
            budget=self._budget,
            batch=self._batch,
            cap=self._cap,
            start=self._start,
            stride=self._stride,
            offset=self._offset,
            capacity=self._capacity,
            room=self._room,
            rows=tuple(self._rows),
            refused=tuple(self._refused),
            taken=self._taken,
        )
        code = self._style.persistent(turn) if self._writes == "persistent" else self._style.stateless(turn)
        words = styles.prose(self._kind, self._rng)
        return fenced(code, words if self.words else "")

    def _advance(self, output: str) -> None:
        if self._kind in ("first", "inspect"):
            left = styles.read_number(output, "left")
            if self._writes == "persistent" and self.recovers and (self._told or left is None):
                self._writes, self._kind, self._offset, self._rows = "stateless", "first", 0, []
                return
            if left is None:
                self._restarts += 1
                self._kind, self._offset, self._rows = ("first" if self._restarts <= 2 else "finish"), 0, []
                return
            self._rows += styles.read_rows(output, self._id_pattern)
            self._offset += self._batch
            self._kind = "inspect" if left > 0 else "take"
        elif self._kind == "take":
            pending, room = styles.read_number(output, "pending"), styles.read_number(output, "room")
            self._rows = styles.read_rows(output, self._id_pattern)
            self._refused = styles.read_refused(output)
            self._room = self._room if room is None else room
            self._taken = True
            self._kind = "take" if pending else "finish"
        elif not self._kind:
            self._kind = "first"
        else:
            self._kind = "finish"


class RelayExpert:
    """Any policy of the ladder as code: it thinks outside, and its code only relays calls and prints answers.

    Its blocks hold literals alone, so they mean the same in either interpreter.
    """

    def __init__(self, policy: str) -> None:
        self.policy = policy

    def reset(self, public: Mapping[str, Any], rng: Any) -> None:
        """Begin an episode; `rng` is a numpy generator."""
        self._plan = LADDER[self.policy](public, rng)
        self._batch: Batch | None = None

    def act(self, observation: str) -> str:
        """Return the next assistant message."""
        try:
            self._batch = (
                next(self._plan) if self._batch is None else self._plan.send(self._answers(observation))
            )
        except StopIteration:
            return fenced("finish()")
        return fenced(render_calls(self._batch))

    def _answers(self, observation: str) -> list[Answer]:
        assert self._batch is not None
        answers = [
            Answer(*json.loads(line[len(_MARK) :]))
            for line in output_of(observation).splitlines()
            if line.startswith(_MARK)
        ]
        expected = len(self._batch.arguments)
        if self._batch.stop_on_error:
            complete = len(answers) == expected or (bool(answers) and not answers[-1].ok)
        else:
            complete = len(answers) == expected
        if not complete and self._batch.tool != "finish":
            raise RuntimeError(
                f"expected {expected} answers to {self._batch.tool}, got {len(answers)} in an output of "
                f"{len(observation)} characters: {observation[:200]!r}; raise the runtime's output limit or time limit"
            )
        return answers


_MARK = "answer "


def render_calls(batch: Batch) -> str:
    """Return code that makes a batch's calls and prints one marked JSON line for each."""
    if batch.tool == "finish":
        return "finish()"
    stop = "\n        break" if batch.stop_on_error else ""
    return f"""import json
for arguments in {json.dumps(batch.arguments)}:
    try:
        print("{_MARK}" + json.dumps([True, {batch.tool}(*arguments), ""]))
    except Exception as error:
        print("{_MARK}" + json.dumps([False, None, str(error)])){stop}"""


# ------------------------------------------------------------------ failures, on purpose


def _bound_names(code: str) -> list[str]:
    """Names that a block assigns at its top level or defines, without imports."""
    names = []
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                parts = target.elts if isinstance(target, ast.Tuple) else [target]
                names += [part.id for part in parts if isinstance(part, ast.Name)]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
    return names


@attrs.frozen
class Fault:
    """One way to fail: the message that is put in, given the code of the last block that bound names."""

    name: str
    message: Callable[[str], str]
    summary: str


def _stale_name(code: str) -> str:
    names = _bound_names(code)
    return fenced(f"print({names[0]})" if names else "print(never_bound)")


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("stale-name", _stale_name, "uses a name that an earlier block bound"),
        Fault("unknown-name", lambda code: fenced("print(never_bound_anywhere)"), "uses a name nobody bound"),
        Fault(
            "rederive",
            lambda code: fenced("import json\nagain = json.loads(list_items())\nprint(len(again))"),
            "lists everything again for nothing",
        ),
        Fault("two-blocks", lambda code: fenced("x = 1") + "\n" + fenced("print(x)"), "sends two blocks"),
        Fault("no-block", lambda code: "I think about it.", "sends no block"),
        Fault("malformed-fence", lambda code: "```python\nprint(1)\n", "never closes its fence"),
        Fault("infinite-loop", lambda code: fenced("while True:\n    pass"), "never ends, in Python"),
        Fault("c-loop", lambda code: fenced("sum(range(10**13))"), "never ends, in C"),
        Fault("big-output", lambda code: fenced("print('x' * 10_000_000)"), "prints 10 MB"),
        Fault(
            "not-utf8",
            lambda code: fenced("import sys\nsys.stdout.buffer.write(bytes(range(128, 256)) * 4)\nsys.stdout.flush()"),
            "writes bytes that are not UTF-8",
        ),
        Fault(
            "exceed-cap",
            lambda code: fenced(
                "for _ in range(200):\n    try:\n        list_items()\n    except Exception:\n        pass"
            ),
            "makes too many calls and swallows the error",
        ),
        Fault("deep-recursion", lambda code: fenced("def f():\n    f()\nf()"), "recurses without end"),
        Fault("exit", lambda code: fenced("raise SystemExit(3)"), "asks to exit"),
        Fault("hard-exit", lambda code: fenced("import os\nos._exit(1)"), "kills its interpreter"),
        Fault("fork", lambda code: fenced("import os\nos.fork()"), "tries to fork"),
        Fault("allocate", lambda code: fenced("hog = bytearray(64 * 2**30)"), "asks for 64 GiB"),
        Fault("write-file", lambda code: fenced("open('left-behind', 'w').write('x')"), "leaves a file behind"),
        Fault(
            "bad-arguments",
            lambda code: fenced("for bad in (None, 3, [], {}, b''):\n    try:\n        inspect(bad)\n"
                                "    except TypeError as error:\n        print(type(error).__name__)"),
            "calls tools with arguments of the wrong type",
        ),
        Fault("finish-first", lambda code: fenced("finish()"), "finishes before doing anything"),
    )
}  # fmt: skip


class Injector:
    """An expert in front of which faults are put, each with a known probability.

    Arguments:
        expert: who acts otherwise. A fault takes a turn of its own; then the expert goes on as if it had not been.
        faults: names out of `FAULTS`; which one is drawn uniformly.
        rate: probability of a fault, 0 to 1.
        per: `turn` draws before each of the expert's turns but the first (`finish-first`: before the first);
            `episode` draws once, and puts the fault before a uniformly drawn early turn.

    Notes:
        With `stale-name`, `per="episode"` and a stateless runtime, the number of episodes with a missing variable is
        binomial with probability `rate`: the check that a metric recovers what was put in.
    """

    def __init__(
        self, expert: ScriptedExpert, faults: tuple[str, ...], *, rate: float, per: str = "turn"
    ) -> None:
        unknown = [name for name in faults if name not in FAULTS]
        if unknown or not faults:
            raise ValueError(
                f"faults: expected names out of {', '.join(FAULTS)}, got {', '.join(unknown) or 'none'}"
            )
        if not 0 <= rate <= 1:
            raise ValueError(f"rate: expected a probability, got {rate}")
        if per not in ("turn", "episode"):
            raise ValueError(f"per: expected turn or episode, got {per!r}")
        self.expert = expert
        self.faults = faults
        self.rate = rate
        self.per = per

    def reset(self, public: Mapping[str, Any], seed: int) -> None:
        """Begin an episode."""
        self.expert.reset(public, seed)
        self._rng = random.Random(f"faults {seed}")
        self._turn = 0
        self._last_code = ""
        self._held: str | None = None
        self.injected: list[str] = []
        hit = self._rng.random() < self.rate
        # Every episode of the expert has at least three turns: first batch, takes, finish.
        self._planned = 1 + self._rng.randrange(2) if hit else None

    def act(self, observation: str) -> str:
        """Return the next assistant message, the expert's or a faulty one."""
        if self._held is not None:
            observation, self._held = self._held, None
        elif self._strikes():
            self._held = observation
            name = self.faults[self._rng.randrange(len(self.faults))]
            self.injected.append(name)
            return FAULTS[name].message(self._last_code)
        message = self.expert.act(observation)
        self._turn += 1
        code = message.split("```python\n", 1)[1].rsplit("\n```", 1)[0]
        if _bound_names(code):
            self._last_code = code
        return message

    def _strikes(self) -> bool:
        first = self.faults == ("finish-first",)
        if self.per == "episode":
            return self._planned is not None and self._turn == (0 if first else self._planned)
        return (self._turn > 0 or first) and self._rng.random() < self.rate

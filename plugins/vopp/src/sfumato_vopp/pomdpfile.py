"""Read POMDPs in Cassandra's ``.pomdp`` format.

Understood: all preamble fields with names or counts, ``start`` in every form (list, name, ``uniform``, ``include``,
``exclude``), ``values: cost``; T, O and R as single entries, rows and matrices; ``identity``, ``uniform`` and ``reset``;
``*`` for any; later lines overrule earlier ones. Rows that do not sum to one are refused with their line.

Source: A. Cassandra, "Input POMDP file format", pomdp.org.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import numpy as np

from sfumato_vopp.errors import FileFormatError
from sfumato_vopp.model import Array
from sfumato_vopp.tabular import TabularModel

__all__ = ["NamedModel", "load_pomdp", "parse_pomdp"]

_TOKEN = re.compile(r":|[^\s:]+")
_PREAMBLE = ("discount", "values", "states", "actions", "observations", "start")
#: Rows are accepted when their sum differs from one by no more than this, and are then normalised.
TOLERANCE = 1e-4
_MAX_CELLS = 200_000_000


class NamedModel(TabularModel):
    """A tabular model with the names its file gave.

    Attributes:
        state_names, action_names, observation_names: in the order of their ids.
    """

    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    observation_names: tuple[str, ...]

    def describe_state(self, state: Array) -> str:
        """Return the state's name."""
        return self.state_names[int(state[0])]


def load_pomdp(path: str | Path) -> NamedModel:
    """Read a ``.pomdp`` file.

    Raises:
        FileFormatError: with the line number, where the file cannot be understood or is no POMDP.
    """
    return parse_pomdp(Path(path).read_text(encoding="utf-8", errors="replace"))


def parse_pomdp(text: str) -> NamedModel:
    """Read the text of a ``.pomdp`` file; errors as for :func:`load_pomdp`."""
    return _Parser(text).parse()


@attrs.define
class _Token:
    text: str
    line: int


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[_Token] = []
        for number, line in enumerate(text.splitlines(), 1):
            self._tokens += [_Token(t, number) for t in _TOKEN.findall(line.split("#", 1)[0])]
        self._at = 0
        self._names: dict[str, list[str]] = {}
        self._discount: float | None = None
        self._sign = 1.0
        self._start: Array | None = None
        self._start_line = 1

    # ------------------------------------------------------------------ tokens

    def _peek(self, ahead: int = 0) -> str:
        place = self._at + ahead
        return self._tokens[place].text if place < len(self._tokens) else ""

    @property
    def _line(self) -> int:
        if not self._tokens:
            return 1
        return self._tokens[min(self._at, len(self._tokens) - 1)].line

    def _next(self, wanted: str) -> str:
        if self._at >= len(self._tokens):
            raise FileFormatError(f"expected {wanted}, got the end of the file", self._line)
        self._at += 1
        return self._tokens[self._at - 1].text

    def _colon(self) -> None:
        line = self._line
        got = self._next("':'")
        if got != ":":
            raise FileFormatError(f"expected ':', got {got!r}", line)

    def _number(self, what: str) -> float:
        line = self._line
        text = self._next(what)
        try:
            value = float(text)
        except ValueError:
            raise FileFormatError(f"expected {what}, got {text!r}", line) from None
        if not np.isfinite(value):
            raise FileFormatError(f"expected a finite number, got {text!r}", line)
        return value

    def _numbers(self, count: int, what: str) -> Array:
        return np.array([self._number(f"{what} (number {i + 1} of {count})") for i in range(count)])

    def _starts_section(self) -> bool:
        head = self._peek()
        if head in ("T", "O", "R"):
            return self._peek(1) == ":"
        if head == "start":
            return self._peek(1) in (":", "include", "exclude")
        return head in _PREAMBLE and self._peek(1) == ":"

    # ------------------------------------------------------------------ the whole file

    def parse(self) -> NamedModel:
        while self._at < len(self._tokens) and self._peek() not in ("T", "O", "R"):
            self._preamble()
        for field in ("states", "actions", "observations"):
            if field not in self._names:
                raise FileFormatError(f"expected '{field}:' before the first table, got none", self._line)
        if self._discount is None:
            raise FileFormatError("expected 'discount:' before the first table, got none", self._line)
        n_s, n_a, n_o = (len(self._names[f]) for f in ("states", "actions", "observations"))
        self._T, self._T_line = np.zeros((n_a, n_s, n_s)), np.zeros((n_a, n_s), np.int64)
        self._O, self._O_line = np.zeros((n_a, n_s, n_o)), np.zeros((n_a, n_s), np.int64)
        self._rewards: list[tuple[object, object, object, object, Array]] = []
        if self._start is None:
            self._start = np.full(n_s, 1.0 / n_s)
        while self._at < len(self._tokens):
            line, kind = self._line, self._next("T, O or R")
            if kind not in ("T", "O", "R"):
                raise FileFormatError(f"expected T, O or R, got {kind!r}", line)
            self._colon()
            {"T": self._transition, "O": self._observation, "R": self._reward}[kind]()
        self._check("T", self._T, self._T_line)
        self._check("O", self._O, self._O_line)
        model = NamedModel(
            self._T, self._O, self._sign * self._dense_reward(n_a, n_s, n_o), self._start, self._discount
        )
        model.state_names, model.action_names, model.observation_names = (
            tuple(self._names[f]) for f in ("states", "actions", "observations")
        )
        return model

    def _check(self, kind: str, table: Array, lines: Array) -> None:
        sums = table.sum(axis=-1)
        off = np.abs(sums - 1.0) > TOLERANCE
        if np.any(table < 0) or np.any(table > 1 + TOLERANCE):
            a, s, _ = (int(i) for i in np.argwhere((table < 0) | (table > 1 + TOLERANCE))[0])
            raise FileFormatError(
                f"expected probabilities between 0 and 1 in {kind} for action {self._names['actions'][a]!r}, state "
                f"{self._names['states'][s]!r}", int(lines[a, s]) or None,
            )  # fmt: skip
        if np.any(off):
            a, s = (int(i) for i in np.argwhere(off)[0])
            where = int(lines[a, s])
            hint = "" if where else "; no line sets this row"
            raise FileFormatError(
                f"expected the {kind} row of action {self._names['actions'][a]!r}, state {self._names['states'][s]!r} to sum "
                f"to 1, got {sums[a, s]:.6g}{hint}", where or None,
            )  # fmt: skip
        table /= sums[..., None]

    # ------------------------------------------------------------------ preamble

    def _preamble(self) -> None:
        line, field = self._line, self._next("a field of the preamble")
        if field not in _PREAMBLE:
            raise FileFormatError(f"expected one of {', '.join(_PREAMBLE)} or a table, got {field!r}", line)
        if field == "start":
            self._start_field(line)
            return
        self._colon()
        if field == "discount":
            self._discount = self._number("the discount")
            if not 0.0 < self._discount <= 1.0:
                raise FileFormatError(f"expected a discount in (0, 1], got {self._discount}", line)
        elif field == "values":
            kind = self._next("reward or cost")
            if kind not in ("reward", "cost"):
                raise FileFormatError(f"expected 'reward' or 'cost', got {kind!r}", line)
            self._sign = 1.0 if kind == "reward" else -1.0
        else:
            self._names[field] = self._name_list(field, line)

    def _name_list(self, field: str, line: int) -> list[str]:
        out: list[str] = []
        while self._at < len(self._tokens) and not self._starts_section():
            out.append(self._next("a name"))
        if len(out) == 1 and out[0].isdigit():
            out = [str(i) for i in range(int(out[0]))]
        if not out:
            raise FileFormatError(f"expected names or a count after '{field}:', got nothing", line)
        if len(set(out)) != len(out):
            raise FileFormatError(f"expected distinct names in '{field}:', got one twice", line)
        return out

    def _start_field(self, line: int) -> None:
        if "states" not in self._names:
            raise FileFormatError("expected 'states:' before 'start', got 'start' first", line)
        n = len(self._names["states"])
        mode = ""
        if self._peek() in ("include", "exclude"):
            mode = self._next("include or exclude")
        self._colon()
        words: list[str] = []
        while self._at < len(self._tokens) and not self._starts_section():
            words.append(self._next("a start state"))
        self._start = np.zeros(n)
        if mode:
            chosen = [self._index("states", w, line) for w in words]
            self._start[chosen] = 1.0
            if mode == "exclude":
                self._start = 1.0 - self._start
        elif words == ["uniform"]:
            self._start[:] = 1.0
        elif len(words) == 1 and n > 1:
            self._start[self._index("states", words[0], line)] = 1.0
        else:
            try:
                self._start = np.array([float(w) for w in words])
            except ValueError:
                raise FileFormatError(f"expected {n} probabilities or a state's name after 'start:'", line) from None
            if len(self._start) != n or np.any(self._start < 0) or abs(self._start.sum() - 1.0) > TOLERANCE:
                raise FileFormatError(
                    f"expected {n} start probabilities that sum to 1, got {len(words)} with sum {self._start.sum():.6g}", line
                )
        if self._start.sum() <= 0:
            raise FileFormatError("expected at least one start state, got none", line)
        self._start = self._start / self._start.sum()

    # ------------------------------------------------------------------ tables

    def _index(self, field: str, word: str, line: int) -> int:
        names = self._names[field]
        if word in names:
            return names.index(word)
        if word.isdigit() and int(word) < len(names):
            return int(word)
        raise FileFormatError(f"expected a name of {field} or a number below {len(names)}, got {word!r}", line)

    def _which(self, field: str) -> object:
        line = self._line
        word = self._next(f"one of the {field}, or *")
        return slice(None) if word == "*" else self._index(field, word, line)

    def _more(self) -> bool:
        if self._peek() == ":":
            self._at += 1
            return True
        return False

    def _block(self, rows: int, columns: int, what: str) -> Array:
        """Return a matrix written out, or by one of the words identity, uniform, reset."""
        word, line = self._peek(), self._line
        if word == "identity":
            if rows != columns:
                raise FileFormatError(f"expected a {rows}×{columns} matrix, got 'identity', which is square", line)
            self._at += 1
            return np.eye(rows)
        if word == "uniform":
            self._at += 1
            return np.full((rows, columns), 1.0 / columns)
        if word == "reset" and what == "T":
            assert self._start is not None
            self._at += 1
            return np.broadcast_to(self._start, (rows, columns)).copy()
        return self._numbers(rows * columns, f"a {what} matrix").reshape(rows, columns)

    def _transition(self) -> None:
        self._probability_table("T", self._T, self._T_line, "states")

    def _observation(self) -> None:
        self._probability_table("O", self._O, self._O_line, "observations")

    def _probability_table(self, kind: str, table: Array, lines: Array, ends: str) -> None:
        a, line = self._which("actions"), self._line
        n_rows, n_columns = table.shape[1:]
        if not self._more():
            table[a] = self._block(n_rows, n_columns, kind)  # type: ignore[index, call-overload]
            lines[a] = line  # type: ignore[index, call-overload]
            return
        s = self._which("states")
        lines[a, s] = line  # type: ignore[index, call-overload]
        if not self._more():
            table[a, s] = self._block(1, n_columns, kind)[0]  # type: ignore[index, call-overload]
            return
        end = self._which(ends)
        table[a, s, end] = self._number("a probability")  # type: ignore[index, call-overload]

    def _reward(self) -> None:
        a = self._which("actions")
        n_s, n_o = len(self._names["states"]), len(self._names["observations"])
        every = slice(None)
        if not self._more():
            raise FileFormatError("expected 'R: action : state …', got the action alone", self._line)
        s = self._which("states")
        if not self._more():
            self._rewards.append((a, s, every, every, self._numbers(n_s * n_o, "a reward").reshape(n_s, n_o)))
            return
        t = self._which("states")
        if not self._more():
            self._rewards.append((a, s, t, every, self._numbers(n_o, "a reward")))
            return
        o = self._which("observations")
        self._rewards.append((a, s, t, o, np.array(self._number("a reward"))))

    def _dense_reward(self, n_a: int, n_s: int, n_o: int) -> Array:
        """Return rewards as [A, S], [A, S, S] or [A, S, S, O], the smallest that holds what the file says."""
        every = slice(None)
        by_observation = any(o != every or value.ndim > 0 for *_, o, value in self._rewards)
        by_successor = by_observation or any(t != every for _, _, t, _, _ in self._rewards)
        shape = (n_a, n_s, n_s if by_successor else 1, n_o if by_observation else 1)
        if np.prod([float(x) for x in shape]) > _MAX_CELLS:
            raise FileFormatError(f"the rewards need a table of {shape} numbers, more than this reader holds in memory")
        out = np.zeros(shape)
        for a, s, t, o, value in self._rewards:
            index = (a, s, t if by_successor else every, o if by_observation else every)
            if value.ndim == 1 and t == every:
                out[index] = value[None, :]  # type: ignore[index, call-overload]
            else:
                out[index] = value  # type: ignore[index, call-overload]
        if by_observation:
            return out
        return out[..., 0] if by_successor else out[:, :, 0, 0]

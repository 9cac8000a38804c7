"""What the far side says of itself, checked before anybody uses it."""

from __future__ import annotations

from typing import Any

import attrs

from sfumato_sandbox.errors import SandboxError, ToolCallError
from sfumato_sandbox.records import ActionError, Global

INT_BITS = 64
MAX_DEPTH = 64


class Violation(SandboxError):
    """The far side broke the channel's rules."""


@attrs.frozen
class Report:
    """The far side's own account of an action, checked field by field."""

    error: ActionError | None
    value_repr: str | None
    globals: tuple[Global, ...]
    restored: tuple[str, ...]
    cpu: float
    rss: int

    @classmethod
    def read(cls, message: dict[str, Any]) -> Report:
        try:
            error = None
            if (told := message["error"]) is not None:
                missing = told["missing_name"]
                error = ActionError(
                    clean_text(told["type"], 200),
                    clean_text(told["message"], 5000),
                    clean_text(told["traceback"], 20000),
                    None if missing is None else clean_text(missing, 200),
                )
            value = message["value_repr"]
            rows = tuple(
                Global(
                    clean_text(row[0], 64),
                    clean_text(row[1], 64),
                    row[2] if type(row[2]) is int and 0 <= row[2] < 1 << 62 else None,
                    clean_text(row[3], 200) if len(row) > 3 else None,
                )
                for row in short_list(message["globals"], 1000)
            )
            restored = tuple(clean_text(name, 200) for name in short_list(message["restored"], 1000))
            value = None if value is None else clean_text(value, 5000)
            cpu, rss = float(message["cpu"]), int(message["rss"])
            if not (0 <= cpu < 1e9 and 0 <= rss < 1 << 62):
                raise ValueError("figures out of range")
            return cls(error, value, rows, restored, cpu, rss)
        except (KeyError, TypeError, IndexError, ValueError, OverflowError) as problem:
            raise Violation(f"a malformed report ({type(problem).__name__})") from problem


def clean_text(value: Any, limit: int) -> str:
    """Return a shortened text of valid Unicode. Raises TypeError for anything but a str."""
    if type(value) is not str:
        raise TypeError("a text belongs here")
    return value[:limit].encode("utf-8", "backslashreplace").decode()


def text_pairs(value: Any) -> dict[str, str]:
    """Return names and reasons, shortened. Raises TypeError for anything else."""
    if type(value) is not dict or len(value) > 10_000:
        raise TypeError("a mapping belongs here")
    return {clean_text(name, 200): clean_text(why, 500) for name, why in value.items()}


def short_list(value: Any, limit: int) -> list[Any]:
    """Return a list of at most `limit` entries. Raises TypeError for anything else."""
    if type(value) is not list or len(value) > limit:
        raise TypeError("a short list belongs here")
    return value


def plain(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return a copy in which every text is valid Unicode; refuse huge integers and deep nesting."""
    if not depth:
        raise ToolCallError(f"values nested deeper than {MAX_DEPTH} are not passed on")
    kind = type(value)
    if kind is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "backslashreplace").decode()
        return value
    if kind is int and value.bit_length() >= INT_BITS:
        raise ToolCallError(
            f"an integer of {value.bit_length()} bits; at most {INT_BITS - 1} and a sign are passed on"
        )
    if kind is list:
        return [plain(item, depth - 1) for item in value]
    if kind is dict:
        return {plain(key): plain(item, depth - 1) for key, item in value.items()}
    return value


def rough_size(value: Any) -> int:
    """Return roughly how many bytes a JSON-like value takes."""
    if type(value) is str:
        return len(value) + 8
    if type(value) is list:
        return 8 + sum(map(rough_size, value))
    if type(value) is dict:
        return 8 + sum(rough_size(key) + rough_size(item) for key, item in value.items())
    return 8

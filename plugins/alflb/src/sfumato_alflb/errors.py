"""Errors of this package. Each names the argument at fault, so that a program can act on it too."""

from __future__ import annotations


class AlflbError(Exception):
    """Base of everything this package raises on purpose."""


class ArgumentError(AlflbError, ValueError):
    """Raised when an argument cannot be used; `argument` is its name as the caller wrote it."""

    def __init__(self, argument: str, expected: str, got: str, advice: str = "") -> None:
        self.argument, self.expected, self.got, self.advice = argument, expected, got, advice
        super().__init__(argument, expected, got, advice)

    def __str__(self) -> str:
        text = f"{self.argument}: expected {self.expected}, got {self.got}."
        return f"{text} {self.advice}" if self.advice else text


class InfeasibleError(AlflbError):
    """Raised when no assignment can meet the loads, for instance because an expert is dead."""


class MissingExtraError(AlflbError, ImportError):
    """Raised when an optional library is needed that is not installed; the text names the extra."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra '{extra}', which is not installed. "
            f"Run: pip install 'sfumato-alflb[{extra}]'"
        )

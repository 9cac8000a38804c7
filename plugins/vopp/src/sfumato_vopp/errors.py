"""Errors that a caller of the library may want to catch, each with what was expected, what came, and what to do."""

from __future__ import annotations

__all__ = ["BeliefError", "DegenerateBelief", "FileFormatError", "ModelError", "VoppError"]


class VoppError(Exception):
    """Base class of every error this library raises on purpose."""


class ModelError(VoppError, ValueError):
    """A model broke its contract: wrong shape or dtype, a reward that is not finite, an observation out of range."""


class BeliefError(VoppError, ValueError):
    """A belief cannot be planned from: it is empty, all its states are terminal, or its weights make no sense."""


class DegenerateBelief(BeliefError):
    """No hypothesis explains the last observation, even after fresh draws and the model's own repair.

    ``history`` holds the (action, observation) pairs that led here.
    """

    def __init__(self, message: str, history: tuple[tuple[int, int], ...] = ()) -> None:
        super().__init__(message)
        self.history = history


class FileFormatError(VoppError, ValueError):
    """A model file cannot be read; ``line`` is the line number, counted from 1."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}")
        self.line = line

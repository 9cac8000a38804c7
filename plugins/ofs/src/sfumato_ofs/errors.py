"""Errors of this package; each message says what was expected, what was got and what to do."""

from __future__ import annotations


class OfsError(ValueError):
    """Bad input to this package. The message names the argument; nothing has been changed."""


class MissingPackage(ImportError):
    """An optional package is needed. The message names the extra that installs it."""


class AuditError(OfsError):
    """An audit log does not verify. The message names the line and what does not fit."""


def need(package: str, extra: str, purpose: str) -> MissingPackage:
    """Return the error to raise when an optional package is absent."""
    return MissingPackage(
        f"{purpose} needs {package}, which is not installed. Run: pip install 'sfumato-ofs[{extra}]'"
    )

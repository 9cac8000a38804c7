"""What a component declares, what this machine has, how the two are matched."""

from __future__ import annotations

import pytest

from sfumato import backends
from sfumato.backends import Choice
from sfumato.errors import BackendUnavailable, UsageError
from sfumato.records import BackendSpec, ComponentSpec


def solver(*specs):
    return ComponentSpec("solver", "toys/x", target="t:X", backends=specs)


NUMPY = BackendSpec("numpy")
ABSENT = BackendSpec("absentlib", devices=("cpu", "cuda"), extra="absent")


def test_the_plugins_own_order_decides_among_what_is_installed():
    """An absent library is passed over when nothing was asked for."""
    assert backends.resolve(solver(ABSENT, NUMPY)) == Choice("numpy", "cpu")


def test_what_the_user_asks_for_is_never_replaced():
    """An absent library that was asked for is an error with the command that installs it."""
    with pytest.raises(BackendUnavailable, match=r"absentlib is not installed. Install it: pip install 'sfumato-toys\[absent\]'"):
        backends.resolve(solver(ABSENT, NUMPY), wanted="absentlib")


def test_a_device_that_no_backend_declares_is_refused():
    """Never a silent fall-back to the processor."""
    with pytest.raises(BackendUnavailable, match="does not run on 'cuda'; it declares numpy on cpu. Run with --device cpu"):
        backends.resolve(solver(NUMPY), device="cuda")


def test_a_backend_that_is_not_declared_is_a_usage_error_with_a_hint():
    """The declared ones are named."""
    with pytest.raises(UsageError, match="has no backend 'numpi'. Did you mean 'numpy'"):
        backends.resolve(solver(NUMPY, ABSENT), wanted="numpi")


def test_a_component_without_backends_runs_on_numpy():
    """The default declaration."""
    assert backends.resolve(solver()) == Choice("numpy", "cpu")


def test_a_device_index_is_kept():
    """`cuda:1` asks for the kind cuda and stays cuda:1."""
    spec = BackendSpec("numpy", devices=("cpu", "cuda"))
    assert backends.resolve(solver(spec), device="cuda:1") == Choice("numpy", "cuda:1")


def test_a_device_that_does_not_work_is_found_in_the_worker():
    """The message names what the library sees and the next command."""
    with pytest.raises(BackendUnavailable, match="sees only cpu. Run with --device cpu, or run 'sfumato doctor toys'"):
        backends.verify_device(solver(NUMPY), Choice("numpy", "cuda"))


def test_a_library_without_devices_of_its_own_is_taken_at_its_word():
    """numba has no backend object; it is a library on the processor."""
    assert backends.verify_device(solver(), Choice("numba", "cpu")) == "numba"

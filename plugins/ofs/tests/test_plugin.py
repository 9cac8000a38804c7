"""The light side: what is offered, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import sfumato_ofs
from sfumato_ofs import plugin

HEAVY = ("numpy", "scipy", "rich", "cattrs", "torch", "jax", "numba", "sklearn", "pooch", "matplotlib")


def test_listing_imports_nothing_heavy() -> None:
    """Package and plugin module import in a fresh interpreter without any heavy library."""
    code = (
        "import sys, sfumato_ofs, sfumato_ofs.plugin as p, sfumato_ofs.config\n"
        "list(p.sfumato_components()), list(p.sfumato_commands()), list(p.sfumato_doctor())\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_the_method_needs_no_core() -> None:
    """The library side imports and runs while the core is hidden."""
    code = (
        "import sys; sys.modules['sfumato'] = None\n"
        "import sfumato_ofs as o\n"
        "s = o.sweep(o.BetaLoop(o.shared_arms(o.threshold_grid(41))), o.Constraints())\n"
        "print(s.arms[s.best, 0])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "0.275"
    )


def test_every_target_and_config_resolves() -> None:
    from importlib import import_module

    for spec in plugin.sfumato_components():
        for ref in filter(None, (spec.target, spec.config)):
            module, name = ref.split(":")
            assert hasattr(import_module(module), name)
    for command in plugin.sfumato_commands():
        module, name = command.target.split(":")
        assert hasattr(import_module(module), name)


def test_public_names_resolve() -> None:
    for name in sfumato_ofs.__all__:
        assert getattr(sfumato_ofs, name) is not None


def test_the_doctor_names_what_is_missing_and_the_next_command(tmp_path, monkeypatch) -> None:
    """Without data: a warning with the fetch command for each data set; with a file there: ok and where."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("SFUMATO_DATA", str(tmp_path))
    found = {f.subject: f for f in plugin.sfumato_doctor()}
    assert (
        found["ofs/german: data"].level == "warning"
        and "sfumato ofs fetch" in found["ofs/german: data"].advice
    )
    (tmp_path / "fairness").mkdir()
    (tmp_path / "fairness" / "german.data").write_text("")
    found = {f.subject: f for f in plugin.sfumato_doctor()}
    assert found["ofs/german: data"].level == "ok" and found["ofs/compas: data"].level == "warning"

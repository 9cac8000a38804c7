"""Discovery: guarded, lazy, blockable."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from entry_points import point
from sfumato import ComponentSpec, hookimpl, plugins
from sfumato.errors import PluginError, UnknownName
from sfumato.plugins import Registry


@pytest.fixture
def module(monkeypatch):
    """Make an importable module that offers the given components."""

    def make(name, *components, api=1, extra=()):
        made = ModuleType(name)
        made.PLUGIN_API = api

        @hookimpl
        def sfumato_components():
            for component in components:
                if isinstance(component, Exception):
                    raise component
                yield component

        made.sfumato_components = sfumato_components
        for function in extra:
            setattr(made, function.__name__, function)
        monkeypatch.setitem(sys.modules, name, made)
        return name

    return make


def solver(name):
    return ComponentSpec("solver", name, target="nowhere:Thing")


def test_a_plugin_is_found_and_its_components_listed(module):
    """The normal case."""
    registry = Registry([point("good", module("good_plugin", solver("good/a")), "sfumato-good")])
    assert registry.find("solver", "good/a") == solver("good/a")
    assert registry.owner(solver("good/a")).distribution == "sfumato-good"


def test_asking_for_one_plugin_does_not_load_another(module):
    """`vopp/…` must not import what `bqnco` needs."""
    registry = Registry(
        [point("good", module("good_plugin", solver("good/a")), "d1"), point("other", "never.imported", "d2")]
    )
    registry.find("solver", "good/a")
    assert not registry.plugins["other"].loaded


def test_a_plugin_that_fails_to_import_is_a_finding(module):
    """The others work on; asking for its components says why they are not to be had."""
    registry = Registry([point("bad", "no.such.module", "sfumato-bad"), point("good", module("g", solver("good/a")), "d")])
    assert [c.name for c in registry.components("solver")] == ["good/a"]
    (finding,) = [f for f in registry.all_findings() if f.subject == "bad"]
    assert "cannot be imported: ModuleNotFoundError" in finding.message
    assert "SFUMATO_DISABLE=bad" in finding.advice
    with pytest.raises(PluginError, match="plugin 'bad' cannot be imported"):
        registry.find("solver", "bad/x")


def test_a_hook_that_raises_is_a_finding(module):
    """What it yielded before is kept."""
    registry = Registry([point("half", module("half_plugin", solver("half/a"), ValueError("broke")), "d")])
    assert [c.name for c in registry.components("solver")] == ["half/a"]
    assert any("sfumato_components raised ValueError: broke" in f.message for f in registry.all_findings())


@pytest.mark.parametrize("what", ["a tuple", "an unknown argument", "an exit"])
def test_a_plugin_that_misbehaves_otherwise_is_a_finding_too(module, monkeypatch, what):
    """No plugin takes the command line down."""
    if what == "an exit":
        monkeypatch.setattr("sfumato.plugins.EntryPoint.load", lambda self: sys.exit(3))
        points = [point("odd", "anything", "d")]
    else:
        name = module("odd_plugin", ("task", "x") if what == "a tuple" else solver("odd/a"))
        if what == "an unknown argument":

            @hookimpl
            def sfumato_doctor(no_such_argument):
                yield None

            sys.modules[name].sfumato_doctor = sfumato_doctor
        points = [point("odd", name, "d")]
    registry = Registry(points)
    assert registry.components("solver") == []
    assert [f.level for f in registry.all_findings()] == ["error"]


def test_one_name_from_two_distributions_is_refused_naming_both(module):
    """Neither wins by chance."""
    points = [point("twin", module("t1", solver("twin/a")), "dist-one"), point("twin", module("t2"), "dist-two")]
    registry = Registry(points)
    assert registry.components("solver") == []
    (finding,) = registry.all_findings()
    assert "'dist-one' and 'dist-two'" in finding.message
    with pytest.raises(PluginError, match="'dist-one' and 'dist-two'"):
        registry.find("solver", "twin/a")


def test_one_component_from_two_plugins_is_refused_naming_both(module):
    """Neither wins by chance."""
    registry = Registry(
        [point("a", module("pa", solver("shared/x")), "dist-a"), point("b", module("pb", solver("shared/x")), "dist-b")]
    )
    assert [c.name for c in registry.components("solver")] == []
    (finding,) = [f for f in registry.all_findings() if f.level == "error"]
    assert "dist-a" in finding.message + finding.advice
    assert "dist-b" in finding.message + finding.advice


@pytest.mark.parametrize("name", ["gym", "sfumato", "direct"])
def test_a_plugin_of_the_cores_own_name_is_refused_and_the_core_keeps_its_components(module, name):
    """Else whoever installs it takes `gym/env` from everybody; the error blames the plugin, and says how to mend it."""
    registry = Registry([point(name, module("grabbing_plugin", solver(f"{name}/a")), "sfumato-grabbing")])
    assert registry.find("task", "gym/env").target == "sfumato.gym:GymTask"
    assert registry.find("runtime", "direct").target == "sfumato.runtimes:Direct"
    assert {c.name for c in registry.components()} == {"gym/env", "direct", "sfumato/return"}
    assert registry.find("task", "gym/env").target == "sfumato.gym:GymTask"  # after every plugin was loaded, too
    (finding,) = registry.all_findings()
    assert (finding.level, finding.subject) == ("error", name)
    assert "'sfumato-grabbing'" in finding.message
    assert "pip uninstall sfumato-grabbing" in finding.advice
    with pytest.raises(PluginError, match="'sfumato-grabbing'"):
        registry.find("solver", f"{name}/a")


@pytest.mark.parametrize("name", ["gym/env", "gym/other", "sfumato/x", "direct"])
def test_a_component_under_one_of_the_cores_names_is_refused(module, name):
    """Whatever the plugin itself is called."""
    offer = ComponentSpec("task", name, target="nowhere:Thing")
    registry = Registry([point("good", module("good_plugin", offer, solver("good/a")), "sfumato-good")])
    assert {c.name for c in registry.components()} == {"gym/env", "direct", "sfumato/return", "good/a"}
    (finding,) = registry.all_findings()
    assert (finding.level, finding.subject) == ("error", "good")
    assert repr(name) in finding.message
    assert registry.find("task", "gym/env").target == "sfumato.gym:GymTask"


def test_another_plugin_api_is_explained(module):
    """Both versions are named, and the command that mends it."""
    registry = Registry([point("old", module("old_plugin", solver("old/a"), api=0), "sfumato-old")])
    assert registry.components("solver") == []
    (finding,) = registry.all_findings()
    assert "written for plugin API 0, this sfumato speaks 1" in finding.message
    assert "pip install -U sfumato sfumato-old" in finding.advice


def test_an_unknown_hook_is_a_warning(module):
    """A plugin for a later core still works."""

    @hookimpl
    def sfumato_dance():
        return None

    registry = Registry([point("new", module("new_plugin", solver("new/a"), extra=(sfumato_dance,)), "d")])
    assert [c.name for c in registry.components("solver")] == ["new/a"]
    assert "sfumato_dance" in registry.all_findings()[0].message


def test_a_blocked_plugin_is_not_loaded(module, monkeypatch):
    """SFUMATO_DISABLE names it, and asking for it says so."""
    monkeypatch.setenv("SFUMATO_DISABLE", "good, other")
    registry = Registry([point("good", module("good_plugin", solver("good/a")), "d")])
    assert registry.components("solver") == []
    with pytest.raises(PluginError, match="SFUMATO_DISABLE blocks"):
        registry.find("solver", "good/a")


def test_an_unknown_name_suggests_the_nearest(module):
    """A slip of the finger, in the name or in its plugin, and a name of another kind."""
    registry = Registry([point("ofs", module("o", solver("ofs/primal-dual"), solver("ofs/random")), "d")])
    with pytest.raises(UnknownName, match="Did you mean 'ofs/primal-dual'"):
        registry.find("solver", "ofs/primal-daul")
    with pytest.raises(UnknownName, match="Did you mean 'ofs/random'"):
        registry.find("solver", "of/random")
    with pytest.raises(UnknownName, match="There is a solver of that name"):
        registry.find("task", "ofs/random")


def test_a_name_of_an_absent_plugin_says_how_to_install_it(module):
    """The prefix is no plugin: a name of another plugin would be no help."""
    registry = Registry([point("ofs", module("o", solver("ofs/random")), "d")])
    with pytest.raises(UnknownName, match=r"no plugin 'opaque-knapsack' is installed \(pip install sfumato-opaque-knapsack, ") as caught:
        registry.find("solver", "opaque-knapsack/random")
    assert "pip install -e plugins/opaque_knapsack)" in str(caught.value)
    assert "Did you mean" not in str(caught.value)


def test_resolving_a_target_says_which_part_is_missing():
    """Module or attribute."""
    with pytest.raises(PluginError, match="cannot import 'no_such_module'"):
        plugins.resolve("no_such_module:X")
    with pytest.raises(PluginError, match="module 'sfumato.errors' has no 'Nothing'"):
        plugins.resolve("sfumato.errors:Nothing")


def test_a_component_without_settings_refuses_them():
    """A setting that would be ignored is an error."""
    spec = ComponentSpec("runtime", "direct", target="sfumato.runtimes:Direct")
    with pytest.raises(PluginError, match="takes no settings, got 'x'"):
        plugins.build(spec, {"x": 1}, lambda *a, **k: None)

"""The conformance suite: a sound plugin keeps every promise, and for every promise there is a plugin that breaks it."""

from __future__ import annotations

import sys
from types import ModuleType

import attrs
import pytest

from entry_points import point
from sfumato import BackendSpec, ComponentSpec, hookimpl
from sfumato.errors import BackendUnavailable, DataMissing, ProtocolError
from sfumato.plugins import Registry
from sfumato.protocols import Episode, Evaluator, Policy, Solver, Task
from sfumato.records import Metric, Start, Step
from sfumato.testing import PROMISES, Subject, check


@attrs.frozen
class Config:
    n_steps: int = 3


@attrs.define
class ChangeableConfig:
    n_steps: int = 3


@attrs.frozen
class NoDefaultConfig:
    n_steps: int


class CountTask(Task):
    """Counts to n_steps; the instance is a list of one number."""

    def __init__(self, config=Config()):
        self.config = config

    def instances(self, ctx):
        for k in ctx.indices:
            yield [int(ctx.stream("instance", k).integers(100))]

    def start(self, instance, ctx, rng):
        return CountEpisode(instance, self.config.n_steps)


class CountEpisode(Episode):
    """Shows the number that is left."""

    strict = True

    def __init__(self, instance, n_steps):
        self.instance, self.left = instance, n_steps

    def reset(self):
        return Start(self.instance[0], public={"instance": self.instance})

    def step(self, action):
        if self.left <= 0 and self.strict:
            raise ProtocolError("the episode is over")
        self.left -= 1
        return Step(self.left, 1.0, self.left <= 0)


class IdleSolver(Solver):
    """Says nothing but 0."""

    def __init__(self, config=Config()):
        self.config = config

    def solve(self, task, ctx):
        return IdlePolicy()


class IdlePolicy(Policy):
    """Says 0."""

    def reset(self, start, rng):
        self.start = start

    def act(self, observation):
        return 0


class CountEvaluator(Evaluator):
    """Counts the steps."""

    def score(self, instance, trace):
        yield Metric("steps", len(trace.native), "steps", "max")


# ---------------------------------------------------------------- one fault each


class Forgetful(CountTask):
    """Draws instances from nowhere."""

    drawn = 0

    def instances(self, ctx):
        for _ in ctx.indices:
            Forgetful.drawn += 1
            yield [Forgetful.drawn]


class Turnwise(CountTask):
    """Draws its instances from one stream in turn."""

    def instances(self, ctx):
        rng = ctx.stream("instance")
        return ([int(rng.integers(1 << 40))] for _ in ctx.indices)


class Unsteady(CountTask):
    """Shows something else each time."""

    def start(self, instance, ctx, rng):
        Unsteady.shown = getattr(Unsteady, "shown", 0) + 1
        return CountEpisode([Unsteady.shown], 3)


class Patient(CountTask):
    """Goes on after the end."""

    def start(self, instance, ctx, rng):
        episode = CountEpisode(instance, 3)
        episode.strict = False
        return episode


class Meddling(IdleSolver):
    """Changes the instance."""

    def solve(self, task, ctx):
        policy = IdlePolicy()
        policy.act = lambda observation: policy.start.public["instance"].append(0) or 0
        return policy


class Crashing(IdleSolver):
    """Looks for what is not there."""

    def supports(self, task, runtime):
        return task.config.no_such_setting and None


class Failing(IdleSolver):
    """Raises when it acts."""

    def solve(self, task, ctx):
        raise RuntimeError("cannot")


class Whimsical(IdleSolver):
    """Promises bits and does as it likes."""

    said = 0

    def solve(self, task, ctx):
        Whimsical.said += 1
        policy, said = IdlePolicy(), Whimsical.said
        policy.act = lambda observation: said
        return policy


class Fickle(Evaluator):
    """Changes a metric's unit."""

    count = 0

    def score(self, instance, trace):
        Fickle.count += 1
        yield Metric("steps", 1.0, f"unit {Fickle.count}")


class Choosy(IdleSolver):
    """Declares numba and runs on numpy alone."""

    def solve(self, task, ctx):
        if ctx.backend != "numpy":
            raise RuntimeError(f"what is {ctx.backend}?")
        return IdlePolicy()


class Undescribed(IdleSolver):
    pass


HERE = __name__


def target(cls):
    return f"sfumato_conformance_toys:{cls.__name__}"


@pytest.fixture
def registry(monkeypatch):
    """A registry with one plugin `x` whose parts are the sound ones but for those replaced."""

    def make(task=CountTask, solver=IdleSolver, evaluator=CountEvaluator, config=Config, summary="it counts", backends=(), heavy=False):
        home = ModuleType("sfumato_conformance_toys")
        for thing in (task, solver, evaluator, config, Config):
            setattr(home, thing.__name__, thing)
        monkeypatch.setitem(sys.modules, home.__name__, home)
        light = ModuleType("sfumato_conformance_plugin")
        light.PLUGIN_API = 1

        @hookimpl
        def sfumato_components():
            yield ComponentSpec("task", "x/count", target=target(task), config=target(Config), summary=summary, evaluators=("x/count",))
            yield ComponentSpec("solver", "x/idle", target=target(solver), config=target(config), summary=summary, backends=backends)
            yield ComponentSpec("evaluator", "x/count", target=target(evaluator), summary=summary)

        light.sfumato_components = sfumato_components
        monkeypatch.setitem(sys.modules, light.__name__, light)
        return Registry([point("x", "sfumato_conformance_plugin" if not heavy else "sfumato.seeding", "sfumato-x")])

    return make


def test_a_sound_plugin_keeps_every_promise_but_the_one_that_needs_a_file(registry):
    """`light-import` starts another interpreter, where the module of this test is not; the rest holds."""
    assert check("x", [p for p in PROMISES if p != "light-import"], registry()) == []


@pytest.mark.parametrize(
    ("promise", "parts", "found"),
    [
        ("well-described", {"summary": ""}, "no summary"),
        ("well-described", {"solver": Undescribed}, "no docstring"),
        ("config-round-trip", {"config": ChangeableConfig}, "can be changed"),
        ("config-round-trip", {"config": NoDefaultConfig}, "TypeError"),
        ("same-instances", {"task": Forgetful}, "different instances"),
        ("same-instances", {"task": Turnwise}, "another one when asked for alone"),
        ("same-reset", {"task": Unsteady}, "different observations"),
        ("step-after-end", {"task": Patient}, "carried out"),
        ("instances-unchanged", {"solver": Meddling}, "changed by the run"),
        ("supports-refuses", {"solver": Crashing}, "AttributeError"),
        ("runs", {"solver": Failing}, "RuntimeError: cannot"),
        ("replays", {"solver": Whimsical}, "different digests"),
        ("metrics-stable", {"evaluator": Fickle}, "unit 1"),
        ("backends-honest", {"solver": Choosy, "backends": (BackendSpec("numpy"), BackendSpec("pluggy"))}, "what is pluggy"),
        ("light-import", {"heavy": True}, "it imports numpy"),
    ],
)
def test_every_promise_can_be_broken(registry, promise, parts, found):
    """A rule that cannot fail is no rule; each failure says by which call and how to mend it."""
    broken = check("x", [promise], registry(**parts))
    assert broken
    assert found in str(broken[0])
    assert broken[0].call
    assert broken[0].mend


class Dataless(CountTask):
    """Wants a file that is not there."""

    def instances(self, ctx):
        ctx.data_file("no-such-file.csv", fetch="sfumato x fetch")
        yield from super().instances(ctx)


class Endless(CountTask):
    """Never ends by itself."""

    def start(self, instance, ctx, rng):
        return CountEpisode(instance, 10**9)


class Importing(IdleSolver):
    """Needs a package that no extra of its plugin declares."""

    def solve(self, task, ctx):
        import sfumato_no_such_package  # noqa: F401


class Lacking(IdleSolver):
    """Says what to install."""

    def solve(self, task, ctx):
        raise BackendUnavailable("it needs 'y', which is not installed. Install it: pip install 'sfumato-x[y]'")


class Loose(Whimsical):
    """Promises less."""

    def replay_promise(self):
        return "statistical"


@pytest.mark.parametrize(
    ("promise", "parts", "why"),
    [
        ("same-instances", {"task": Dataless}, "x/count: the data file 'no-such-file.csv' was looked for"),
        ("runs", {"task": Dataless}, "x/count: the data file"),
        ("step-after-end", {"task": Endless}, "x/count: no episode ended by itself within 5000 steps"),
        ("step-after-end", {"solver": Failing}, "x/count: the run raised RuntimeError: cannot"),
        ("instances-unchanged", {"solver": Failing}, "x/idle on x/count: the run raised RuntimeError"),
        ("replays", {"solver": Loose}, "x/idle: it promises statistical, not bits"),
        ("metrics-stable", {"solver": Failing}, "x/idle on x/count: the run raised"),
        ("runs", {"solver": Lacking}, "x/idle: it needs 'y', which is not installed. Install it"),
        ("supports-refuses", {"solver": Crashing, "backends": (BackendSpec("absentlib", extra="y"),)}, "x/idle: solver 'x/idle' needs"),
    ],
)
def test_a_promise_that_could_not_be_tried_is_not_said_to_be_kept(registry, promise, parts, why):
    """Nothing was found broken, for want of looking; the reason is given."""
    subject = Subject("x", registry(**parts))
    assert list(PROMISES[promise](subject)) == []
    assert subject.tried[promise] == 0
    assert subject.why_not(promise)[0].startswith(why)


def test_a_package_that_may_be_absent_is_to_be_declared(registry):
    """An import that fails is broken where nobody said what to install, and how to say so is told; else it is not tried."""
    numpy = (BackendSpec("numpy"),)
    for promise in ("runs", "backends-honest"):
        (broken,) = PROMISES[promise](Subject("x", registry(solver=Importing, backends=numpy)))
        assert "sfumato_no_such_package" in broken.found
        assert "BackendUnavailable" in broken.mend
    subject = Subject("x", registry(solver=Lacking, backends=numpy))
    assert list(PROMISES["backends-honest"](subject)) == []
    assert subject.untried["backends-honest"]


def test_a_world_whose_data_is_absent_is_not_tried_rather_than_broken(registry):
    """Also where the file is first asked for when an episode begins."""

    class Distant(CountTask):
        def start(self, instance, ctx, rng):
            raise DataMissing("the data file 'far/away.csv' is nowhere. Run 'sfumato x fetch'.")

    subject = Subject("x", registry(task=Distant))
    for promise in ("same-reset", "runs"):
        assert list(PROMISES[promise](subject)) == []
    assert subject.tried["same-reset"] == 0
    assert "fetch" in subject.why_not("same-reset")[0]


def test_a_sound_plugin_has_every_promise_tried(registry):
    """Each is put to the test at least once."""
    subject = Subject("x", registry())
    for name, promise in PROMISES.items():
        list(promise(subject))
        assert subject.tried[name] > 0, name


def test_the_command_says_what_was_not_tried(sfumato, tmp_path):
    """In words and as JSON; that is no failure."""
    import json

    words = ("check", "sfumato", "--promise", "runs")
    assert sfumato(*words, check=0).stdout.startswith("not tried runs")
    (line,) = sfumato(*words, "--json", check=0).stdout.splitlines()
    assert json.loads(line) == {"promise": "runs", "verdict": "not tried", "tried": 0, "broken": [],
                                "not_tried": ["the plugin has no solver"]}  # fmt: skip


def test_the_command_shows_what_is_kept_and_what_is_broken(sfumato):
    """Exit status 1, and the way to mend it."""
    done = sfumato("check", "toys", "--promise", "step-after-end", check=1)
    assert "Raise sfumato.errors.ProtocolError" in done.stdout
    assert sfumato("check", "toys", "--promise", "same-reset", check=0).stdout.startswith("kept")
    assert "Did you mean 'replays'" in sfumato("check", "toys", "--promise", "replay", check=2).stderr


def test_the_pytest_plugin_is_opt_in(tmp_path):
    """Nobody's test run loads it by itself; with `-p sfumato.testing` and one fixture it has a case a promise."""
    import subprocess

    (tmp_path / "test_mine.py").write_text(
        "import pytest\nfrom sfumato.testing import test_plugin_keeps_its_promise\n\n"
        "@pytest.fixture\ndef sfumato_plugin():\n    return 'sfumato'\n"
    )
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    plain = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert "fixture 'sfumato_promise' not found" in plain.stdout
    done = subprocess.run([*words, "-p", "sfumato.testing", "-rs"], capture_output=True, text=True, cwd=tmp_path)
    assert f"5 passed, {len(PROMISES) - 5} skipped" in done.stdout, done.stdout
    assert "not tried: the plugin has no solver" in done.stdout

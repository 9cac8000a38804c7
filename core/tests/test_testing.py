"""The conformance suite: a sound plugin keeps every promise, and for every promise there is a plugin that breaks it."""

from __future__ import annotations

import copy
import random
import sys
from contextlib import contextmanager
from types import ModuleType

import attrs
import numpy as np
import pytest

from entry_points import point
from sfumato import BackendSpec, ComponentSpec, hookimpl
from sfumato.errors import BackendUnavailable, DataMissing, ProtocolError, UsageError
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


class Told(CountTask):
    """Tells the agent something else each time."""

    def start(self, instance, ctx, rng):
        class Telling(CountEpisode):
            def reset(self):
                return Start(self.instance[0], public={"map": {"wind": [1.0, random.random()]}, "model": object()})

        return Telling(instance, 3)


class Drawing(CountTask):
    """Draws in reset: the second one shows something else, though two episodes begin alike."""

    def start(self, instance, ctx, rng):
        class DrawingEpisode(CountEpisode):
            def reset(self):
                return Start(float(rng.random()), public={})

        return DrawingEpisode(instance, 3)


class DrawingPublic(CountTask):
    """The same, of what it tells."""

    def start(self, instance, ctx, rng):
        class DrawingEpisode(CountEpisode):
            def reset(self):
                return Start(0, public=np.array([rng.random()]))

        return DrawingEpisode(instance, 3)


class Once(CountTask):
    """Draws in reset, and refuses a second one."""

    def start(self, instance, ctx, rng):
        class OnceEpisode(CountEpisode):
            begun = False

            def reset(self):
                if self.begun:
                    raise ProtocolError("reset was called twice")
                self.begun = True
                return Start(float(rng.random()), public={})

        return OnceEpisode(instance, 3)


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
    """Changes something about a metric from one episode to the next."""

    def score(self, instance, trace):
        Fickle.count = getattr(Fickle, "count", 0) + 1
        yield Metric("steps", 1.0, **self.about(Fickle.count % 2))


class FickleUnit(Fickle):
    """Its unit."""

    def about(self, odd):
        return {"unit": f"unit {odd}"}


class FickleDirection(Fickle):
    """Whether more is better."""

    def about(self, odd):
        return {"direction": "max" if odd else "min"}


class FickleReduction(Fickle):
    """How its rows become one figure."""

    def about(self, odd):
        return {"reduce": "mean" if odd else "sum"}


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

    def make(task=CountTask, solver=IdleSolver, evaluator=CountEvaluator, config=Config, summary="it counts", source="own work", backends=(), heavy=False):
        home = ModuleType("sfumato_conformance_toys")
        for thing in (task, solver, evaluator, config, Config):
            setattr(home, thing.__name__, thing)
        monkeypatch.setitem(sys.modules, home.__name__, home)
        light = ModuleType("sfumato_conformance_plugin")
        light.PLUGIN_API = 1

        @hookimpl
        def sfumato_components():
            yield ComponentSpec("task", "x/count", target=target(task), config=target(Config), summary=summary, source=source, evaluators=("x/count",))
            yield ComponentSpec("solver", "x/idle", target=target(solver), config=target(config), summary=summary, source=source, backends=backends)
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
        ("well-described", {"source": " "}, "names no source"),
        ("config-round-trip", {"config": ChangeableConfig}, "can be changed"),
        ("config-round-trip", {"config": NoDefaultConfig}, "TypeError"),
        ("same-instances", {"task": Forgetful}, "different instances"),
        ("same-instances", {"task": Turnwise}, "another one when asked for alone"),
        ("same-reset", {"task": Unsteady}, "different observations"),
        ("same-reset", {"task": Told}, "public['map']['wind'][1]"),
        ("same-reset", {"task": Drawing}, "a second reset gave a different observation"),
        ("same-reset", {"task": DrawingPublic}, "a second reset gave a different public"),
        ("step-after-end", {"task": Patient}, "carried out"),
        ("instances-unchanged", {"solver": Meddling}, "changed by the run"),
        ("supports-refuses", {"solver": Crashing}, "AttributeError"),
        ("runs", {"solver": Failing}, "RuntimeError: cannot"),
        ("replays", {"solver": Whimsical}, "different digests"),
        ("metrics-stable", {"evaluator": FickleUnit}, "unit 1"),
        ("metrics-stable", {"evaluator": FickleDirection}, "'min'"),
        ("metrics-stable", {"evaluator": FickleReduction}, "'sum'"),
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


def test_an_episode_may_refuse_a_second_reset(registry):
    """The protocol calls it once; what it must not do is to show something else."""
    subject = Subject("x", registry(task=Once))
    assert list(PROMISES["same-reset"](subject)) == []
    assert subject.tried["same-reset"] == 1


def test_of_what_is_told_only_what_can_be_compared_is_compared():
    """Numbers, texts, arrays and what holds them, by value; a model or a space by its type."""
    from sfumato.testing.subject import differing

    a = {"n": 1, "nan": float("nan"), "map": np.array([1.0, np.nan]), "model": object(), "config": Config(), "names": ("a", "b")}
    assert differing(a, copy.deepcopy(a)) is None
    assert differing(a, {**a, "n": 1.0}) == "public['n']"
    assert differing(a, {**a, "map": np.array([1.0, 2.0])}) == "public['map']"
    assert differing(a, {**a, "model": Config}) == "public['model']"
    assert differing(a, {**a, "config": Config(4)}) == "public['config'].n_steps"
    assert differing(a, {**a, "names": ("a", "c")}) == "public['names'][1]"
    assert differing(a, {k: v for k, v in a.items() if k != "n"}) == "public['n']"
    assert differing(Config(3), Config(4)) == "public.n_steps"
    loop = [1]
    loop.append(loop)
    assert differing(loop, copy.deepcopy(loop)) is None


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


def test_settings_that_need_an_absent_package_are_not_tried_rather_than_broken(runtime_plugin):
    """They may lie beside the implementation; without a declared backend that is missing, they are broken."""
    absent = {"target": target(CountTask), "config": "sfumato_no_such_module:Config"}
    for declared in ((), (BackendSpec("absentlib", extra="y"),)):
        subject = runtime_plugin(Through, ComponentSpec("task", "x/count", backends=declared, **absent))
        broken = list(PROMISES["config-round-trip"](subject))
        assert bool(broken) is not bool(declared)
        assert bool(subject.why_not("config-round-trip")[0].count("No module named")) is bool(declared)


# ---------------------------------------------------------------- runtimes


class Session(Episode):
    """Hands everything through."""

    def __init__(self, inner):
        self.inner = inner

    def reset(self):
        return self.inner.reset()

    def step(self, action):
        return self.inner.step(action)


class Through:
    """A sound runtime."""

    session = Session

    @contextmanager
    def open(self, episode, ctx):
        yield self.session(episode)


class CodeOnly(Through):
    """Runs code in which the tools are functions, and nothing else."""

    class session(Session):
        def reset(self):
            start = self.inner.reset()
            self.names = set(start.public["tools"])
            return start

        def step(self, action):
            if not isinstance(action, str):
                raise TypeError("an action is code")
            last = {}

            def call(tool):
                def function(*args, **kwargs):
                    last["step"] = self.inner.step({"tool": tool, "args": args, "kwargs": kwargs})
                    return last["step"].observation["value"]

                return function

            eval(action, {name: call(name) for name in self.names})
            return attrs.evolve(last["step"], observation="done")


class ArraysOnly(Through):
    """Wants arrays, to clip them."""

    class session(Session):
        def step(self, action):
            return self.inner.step(action.clip(-1.0, 1.0))


class Shut(Through):
    """Cannot be opened."""

    def open(self, episode, ctx):
        raise RuntimeError("open failed")


class Empty(Through):
    """Yields nothing."""

    @contextmanager
    def open(self, episode, ctx):
        yield None


class Swallowing(Through):
    """Swallows what goes wrong inside."""

    @contextmanager
    def open(self, episode, ctx):
        try:
            yield Session(episode)
        except Exception:
            return


class Stuck(Through):
    """Cannot be closed."""

    @contextmanager
    def open(self, episode, ctx):
        yield Session(episode)
        raise RuntimeError("close failed")


class Endlessly(Through):
    """Does not say that the task has ended."""

    class session(Session):
        over = False

        def step(self, action):
            if self.over:
                return Step(0.0, 0.0, False)
            step = self.inner.step(action)
            self.over = step.over
            return attrs.evolve(step, terminated=False, truncated=False, over=False)


class Lenient(Through):
    """Goes on after the end."""

    class session(Session):
        last = None

        def step(self, action):
            if self.last is None or not self.last.over:
                self.last = self.inner.step(action)
            return self.last


class Unlike(Through):
    """Begins otherwise each time."""

    class session(Session):
        def reset(self):
            return Start(random.random(), self.inner.reset().public)


class UnlikePublic(Through):
    """Tells something else each time."""

    class session(Session):
        def reset(self):
            start = self.inner.reset()
            return Start(start.observation, {**start.public, "token": random.random()})


class Counted(Through):
    """Counts how often it was reset."""

    class session(Session):
        n_resets = 0

        def reset(self):
            self.n_resets += 1
            return Start(self.n_resets, self.inner.reset().public)


class Adding(Through):
    """Writes its own remarks into what belongs to the instance."""

    class session(Session):
        def reset(self):
            start = self.inner.reset()
            start.public["remark"] = "be careful"
            return start


class Hazy(Through):
    """Blurs what is seen, with luck of its own."""

    class session(Session):
        def step(self, action):
            return attrs.evolve(self.inner.step(action), observation=random.random())


class Shaky(Through):
    """Carries out something else, with luck of its own."""

    class session(Session):
        def step(self, action):
            return attrs.evolve(self.inner.step(action + random.random()), observation=0, reward=0.0)


class Mixed(Through):
    """Keeps the session on the runtime: the one opened last gets the others' actions."""

    @contextmanager
    def open(self, episode, ctx):
        outer = self
        outer.latest = episode

        class Latest(Session):
            def step(self, action):
                return outer.latest.step(action)

        yield Latest(episode)


class Wanting(Through):
    """Says what it wants."""

    @contextmanager
    def open(self, episode, ctx):
        raise UsageError("it fits tasks that show their map. Choose another task.")
        yield


class Shell(Through):
    """Speaks a language that is not known here: whatever is said, nothing reaches the task."""

    class session(Session):
        def step(self, action):
            return Step("command not found", 0.0, False)


@pytest.fixture
def runtime_plugin(monkeypatch):
    """A subject `x` that offers a runtime, and nothing else but what is given."""

    def make(runtime, *others):
        home = ModuleType("sfumato_conformance_toys")
        for thing in (runtime, CountTask, IdleSolver):
            setattr(home, thing.__name__, thing)
        monkeypatch.setitem(sys.modules, home.__name__, home)
        light = ModuleType("sfumato_conformance_plugin")
        light.PLUGIN_API = 1

        @hookimpl
        def sfumato_components():
            yield ComponentSpec("runtime", "x/run", target=target(runtime), summary="it runs")
            yield from others

        light.sfumato_components = sfumato_components
        monkeypatch.setitem(sys.modules, light.__name__, light)
        return Subject("x", Registry([point("x", light.__name__, "sfumato-x")]))

    return make


OF_RUNTIMES = ("same-reset", "step-after-end", "instances-unchanged", "runs", "replays")


@pytest.mark.parametrize("runtime", [Through, CodeOnly, ArraysOnly])
def test_a_sound_runtime_is_opened_and_keeps_its_promises(runtime_plugin, runtime):
    """Without a task of its plugin's: on a small world of the core's, in the way of saying actions that it understands."""
    subject = runtime_plugin(runtime)
    for promise in OF_RUNTIMES:
        assert list(PROMISES[promise](subject)) == [], promise
        assert subject.tried[promise] == 1, subject.why_not(promise)


@pytest.mark.parametrize(
    ("promise", "runtime", "found"),
    [
        ("runs", Shut, "RuntimeError: open failed"),
        ("runs", Empty, "AttributeError: 'NoneType'"),
        ("runs", Swallowing, "swallowed"),
        ("runs", Stuck, "RuntimeError: close failed"),
        ("runs", Endlessly, "did not say so"),
        ("step-after-end", Lenient, "carried out"),
        ("same-reset", Unlike, "different observations"),
        ("same-reset", UnlikePublic, "public['token']"),
        ("same-reset", Counted, "a second reset gave a different observation"),
        ("instances-unchanged", Adding, "changed by the run"),
        ("replays", Hazy, "step 1 showed different observations"),
        ("replays", Shaky, "different digests"),
        ("replays", Mixed, "open at the same time"),
    ],
)
def test_every_promise_of_a_runtime_can_be_broken(runtime_plugin, promise, runtime, found):
    """One fault each; the failure names the runtime, the call, and how to mend it."""
    subject = runtime_plugin(runtime)
    broken = list(PROMISES[promise](subject))
    assert broken
    assert promise not in subject.untried  # once is enough
    assert found in str(broken[0])
    assert "runtime x/run" in broken[0].call
    assert broken[0].mend


@pytest.mark.parametrize(
    ("runtime", "why"), [(Wanting, "it fits tasks that show their map"), (Shell, "nothing that was said reached the task")]
)
def test_a_runtime_that_fits_no_task_here_is_not_said_to_keep_its_promises(runtime_plugin, runtime, why):
    """It says so itself, or speaks another language; the reason is given, with what would make it tried."""
    subject = runtime_plugin(runtime)
    for promise in OF_RUNTIMES:
        assert list(PROMISES[promise](subject)) == []
        assert subject.tried[promise] == 0
        assert why in subject.why_not(promise)[0]
        assert "x/run" in subject.why_not(promise)[0]


def test_a_runtime_for_its_own_plugins_task_is_tried_on_that(runtime_plugin):
    """With a solver that fits both."""

    class Shouting(Through):
        class session(Session):
            def reset(self):
                start = self.inner.reset()
                assert "instance" in start.public
                return start

            def step(self, action):
                return attrs.evolve(self.inner.step(action), reward=2.0)

    own = (
        ComponentSpec("task", "x/count", target=target(CountTask), config=None),
        ComponentSpec("solver", "x/idle", target=target(IdleSolver), config=None),
    )
    subject = runtime_plugin(Shouting, *own)
    for promise in OF_RUNTIMES:
        assert list(PROMISES[promise](subject)) == [], promise
        assert subject.tried[promise] == 2, subject.why_not(promise)


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


@pytest.mark.parametrize(
    ("promise", "why"),
    [
        ("config-round-trip", "no component of the plugin has settings"),
        ("well-described", "the plugin offers no component"),
        ("same-instances", "the plugin has no task"),
        ("same-reset", "the plugin has no task and no runtime"),
        ("step-after-end", "the plugin has no runtime, and no task with a solver for it"),
        ("runs", "the plugin has no solver and no runtime"),
        ("supports-refuses", "the plugin has no solver"),
        ("metrics-stable", "the plugin has no solver"),
        ("backends-honest", "the plugin has no solver"),
    ],
)
def test_the_reason_why_nothing_was_tried_is_the_promises_own(monkeypatch, promise, why):
    """A plugin without anything: each promise names what it would have looked at."""
    light = ModuleType("sfumato_conformance_plugin")
    light.PLUGIN_API = 1
    monkeypatch.setitem(sys.modules, light.__name__, light)
    subject = Subject("x", Registry([point("x", light.__name__, "sfumato-x")]))
    assert list(PROMISES[promise](subject)) == []
    assert subject.why_not(promise) == [why]


def test_a_sound_plugin_has_every_promise_tried(registry):
    """Each is put to the test at least once."""
    subject = Subject("x", registry())
    for name, promise in PROMISES.items():
        list(promise(subject))
        assert subject.tried[name] > 0, name


def test_the_command_says_what_was_not_tried(sfumato, tmp_path):
    """In words and as JSON; that is no failure."""
    import json

    words = ("check", "sfumato", "--promise", "supports-refuses")
    assert sfumato(*words, check=0).stdout.startswith("not tried supports-refuses")
    (line,) = sfumato(*words, "--json", check=0).stdout.splitlines()
    assert json.loads(line) == {"promise": "supports-refuses", "verdict": "not tried", "tried": 0, "broken": [],
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
    assert f"9 passed, {len(PROMISES) - 9} skipped" in done.stdout, done.stdout
    assert "not tried: the plugin has no solver" in done.stdout

"""Components that break promises on purpose."""

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import attrs
import numpy as np

from sfumato.errors import Unsupported
from sfumato.protocols import Episode, Evaluator, Policy, Runtime, Solver, Task
from sfumato.records import Metric, Start, Step

FAULTS = Literal["none", "nan-reward", "endless", "raise", "sleep-in-c", "allocate", "fork", "segfault", "exit", "kill-self",
                 "step-after-end", "too-few", "print", "unrecordable", "daemon", "children", "sys-exit", "hang-at-exit",
                 "stranger", "chatter", "term-self", "chdir"]


@attrs.frozen
class FaultConfig:
    fault: FAULTS = "none"
    n_steps: int = attrs.field(default=3, validator=attrs.validators.ge(1))
    seconds: float = 0.0
    only_item: int = -1


class FaultTask(Task):
    def __init__(self, config=FaultConfig()):
        self.config = config

    def instances(self, ctx):
        for k in ctx.indices:
            if self.config.fault == "too-few" and k:
                return
            yield k

    def start(self, instance, ctx, rng):
        faulty = self.config.only_item in (-1, instance)
        return FaultEpisode(self.config if faulty else attrs.evolve(self.config, fault="none"), rng)


class FaultEpisode(Episode):
    def __init__(self, config, rng):
        self.config, self.rng, self.t = config, rng, 0

    def reset(self):
        return Start(0)

    def step(self, action):
        fault, self.t = self.config.fault, self.t + 1
        if self.config.seconds:
            time.sleep(self.config.seconds)
        if fault == "nan-reward":
            return Step(0, float("nan"), False)
        if fault == "raise":
            raise RuntimeError("the task broke down")
        if fault == "unrecordable":
            return Step(object(), 0.0, False)
        if fault == "print":
            print("a component prints to its standard output")
        if fault == "sleep-in-c":
            ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the GIL: no Python signal handler can run
        if fault == "allocate":
            hoard = []
            while True:
                hoard.append(np.ones(4 << 20))
                time.sleep(0.002)
        if fault == "fork":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
            for _ in range(3):
                subprocess.Popen([sys.executable, "-c", code])
            time.sleep(120)
        if fault == "daemon":  # a grandchild in a session of its own, whose parent is gone at once
            code = ("import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                    "if os.fork(): os._exit(0)\nos.setsid()\ntime.sleep(120)")
            subprocess.run([sys.executable, "-c", code], check=True)
        if fault == "stranger":  # forks twice, has a session of its own and clears its environment: nothing marks it
            code = ("import os\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
                    "os.execve('/bin/sleep', ['sfumato-stranger', '77'], {})")
            subprocess.run([sys.executable, "-c", code], check=True)
            time.sleep(0.1)
        if fault == "chdir":
            os.chdir("/")
        if fault == "chatter":
            sys.stderr.write("first words\n" + ("x" * 999 + "\n") * 2000 + "last words\n")
        if fault == "children" and self.t == 1:  # a child that holds much memory, though its parent holds little
            subprocess.Popen([sys.executable, "-c", "import time; x = b'x' * (600 << 20); time.sleep(120)"])
        if fault == "sys-exit":
            sys.exit(0)
        if fault == "hang-at-exit" and self.t == 1:
            atexit.register(time.sleep, 120)
        if fault == "segfault":
            ctypes.string_at(0)
        if fault == "exit":
            os._exit(7)
        if fault == "term-self":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        if fault == "kill-self":
            os.kill(os.getpid(), signal.SIGKILL)
        return Step(self.t, self.rng.random(), fault != "endless" and self.t >= self.config.n_steps)


@attrs.frozen
class NoopConfig:
    action: int = 0
    reset_seconds: float = 0.0
    observe_seconds: float = 0.0
    carries_over: bool = False


class NoopSolver(Solver):
    def __init__(self, config=NoopConfig()):
        self.config = config

    def solve(self, task, ctx):
        return NoopPolicy(self.config)


@attrs.define
class NoopPolicy(Policy):
    config: NoopConfig

    def reset(self, start, rng):
        time.sleep(self.config.reset_seconds) if self.config.reset_seconds else None

    def act(self, observation):
        return self.config.action

    def observe(self, step):
        if self.config.observe_seconds:
            time.sleep(self.config.observe_seconds)


@attrs.frozen
class StandingConfig:
    solver: str = "toys/noop"
    declined: bool = False


class StandingSolver(Solver):
    """Stands on another solver."""

    def __init__(self, config=StandingConfig()):
        self.config = config

    def solve(self, task, ctx):
        inner = ctx.component(self.config.solver)
        if self.config.declined:
            raise Unsupported(f"{self.config.solver} declines this task: too much")
        return inner.solve(task, ctx)


# ---------------------------------------------------------------- what cannot promise bits


class EchoTask(Task):
    """The reward is the action."""

    max_steps = 4

    def instances(self, ctx):
        yield from ctx.indices

    def start(self, instance, ctx, rng):
        return EchoEpisode()


class EchoEpisode(Episode):
    def reset(self):
        return Start(0)

    def step(self, action):
        return Step(0, float(action), False)


@attrs.frozen
class NoisyConfig:
    promise: Literal["bits", "tolerance", "statistical"] = "bits"
    noise: float = 0.0
    drift_file: str = ""  # when the file exists, every action is larger by one
    slow_file: str = ""  # when the file exists, it never comes to act


class NoisySolver(Solver):
    """Draws from the operating system, as threads on a GPU may be said to do."""

    def __init__(self, config=NoisyConfig()):
        self.config = config

    def replay_promise(self):
        return self.config.promise

    def solve(self, task, ctx):
        if self.config.slow_file and os.path.exists(self.config.slow_file):
            time.sleep(120)
        return NoisyPolicy(self.config)


@attrs.define
class NoisyPolicy(Policy):
    config: NoisyConfig

    def reset(self, start, rng):
        return

    def act(self, observation):
        luck = int.from_bytes(os.urandom(4), "little") / 2**32 - 0.5
        drift = bool(self.config.drift_file) and os.path.exists(self.config.drift_file)
        return 1.0 + self.config.noise * luck + drift


@attrs.frozen
class OddConfig:
    """`odd_items` have a figure that is no number; `flip_file`: when it exists, the others have."""

    odd_items: tuple[int, ...] = ()
    flip_file: str = ""


class HalfEvaluator(Evaluator):
    def score(self, instance, trace):
        yield Metric("half", 1.0 if trace.items[0] else float("nan"))


class OddEvaluator(Evaluator):
    def __init__(self, config=OddConfig()):
        self.config = config

    def score(self, instance, trace):
        flip = bool(self.config.flip_file) and os.path.exists(self.config.flip_file)
        yield Metric("odd", float("nan") if (trace.items[0] in self.config.odd_items) != flip else 1.0)


# ---------------------------------------------------------------- what reads a file


@attrs.frozen
class FileConfig:
    name: str = "figure.txt"
    path: Path | None = None  # a file of the user's own instead


class FileTask(Task):
    """Pays what stands in a data file."""

    def __init__(self, config=FileConfig()):
        self.config = config

    def instances(self, ctx):
        path = self.config.path or ctx.data_file(self.config.name, fetch="sfumato toys fetch")
        pay = float(path.read_text())
        for _ in ctx.indices:
            yield pay

    def start(self, instance, ctx, rng):
        return FileEpisode(instance)


class FileEpisode(Episode):
    def __init__(self, pay):
        self.pay = pay

    def reset(self):
        return Start(0)

    def step(self, action):
        return Step(0, self.pay, True)


# ---------------------------------------------------------------- what must run alone


class TimedRuntime(Runtime):
    """Hands everything through; its time is its result."""

    @contextmanager
    def open(self, episode, ctx):
        yield episode


@attrs.frozen
class MeetConfig:
    folder: str = ""
    n: int = 2
    seconds: float = 20.0


class MeetSolver(Solver):
    """Goes on only when `n` runs are at it at the same time."""

    def __init__(self, config=MeetConfig()):
        self.config = config

    def solve(self, task, ctx):
        folder = self.config.folder
        with open(os.path.join(folder, str(os.getpid())), "w"):
            pass
        deadline = time.monotonic() + self.config.seconds
        while len(os.listdir(folder)) < self.config.n:
            if time.monotonic() > deadline:
                raise RuntimeError("nobody else came")
            time.sleep(0.01)
        return NoopPolicy(NoopConfig())


@attrs.frozen
class DiaryConfig:
    folder: str = ""
    seconds: float = 0.2


class DiarySolver(Solver):
    """Writes down when it was at work."""

    def __init__(self, config=DiaryConfig()):
        self.config = config

    def solve(self, task, ctx):
        began = time.time()
        time.sleep(self.config.seconds)
        with open(os.path.join(self.config.folder, f"{os.getpid()}-{began}"), "w") as file:
            file.write(f"{began} {time.time()}")
        return NoopPolicy(NoopConfig())

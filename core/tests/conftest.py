"""Fixtures of the core's tests. The toys (toys/) are a plugin that is importable but not installed."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

# Timed runs keep others off by locks under TMPDIR: those of the tests must not wait for other people's, nor these for ours.
# A short path: Ray puts sockets there, whose names may have 107 bytes.
os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="sf-")
atexit.register(shutil.rmtree, os.environ["TMPDIR"], ignore_errors=True)

TOYS = Path(__file__).parent / "toys"
sys.path.insert(0, str(TOYS))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(TOYS), os.environ.get("PYTHONPATH", ""))))


@pytest.fixture
def sfumato(tmp_path):
    """Call the command line in a process of its own, with the toys installed and a store under tmp_path."""

    def call(*words: str, check: int | None = None, env: dict[str, str] | None = None, timeout: float = 180):
        done = subprocess.run(
            [sys.executable, "-m", "sfumato", *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=tmp_path,
            env={**os.environ, "SFUMATO_STORE": str(tmp_path / "store"), "COLUMNS": "100", **(env or {})},
        )
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture
def store(tmp_path):
    """An empty store that is ready for runs."""
    from sfumato.store import Store

    made = Store(tmp_path / "store")
    made.prepare()
    return made


@pytest.fixture
def make_jobs():
    """Return the runs of one task with one solver."""
    from sfumato.experiment import Experiment, Settings, Use
    from sfumato.plugins import Registry
    from sfumato.records import Limits

    def make(task="toys/fault", solver="toys/noop", *, task_settings=None, solver_settings=None, limits=None, **settings):
        experiment = Experiment(
            (Use(task, task_settings or {}),),
            (Use(solver, solver_settings or {}),),
            settings=Settings(limits=Limits(**(limits or {})), **settings),
        )
        return experiment.jobs(Registry())

    return make


@pytest.fixture
def listener():
    """Write down what a sweep tells."""

    class Listener:
        def __init__(self):
            self.events = []

        def started(self, job):
            self.events.append(("started", job.run_id))

        def progress(self, job, fraction, message):
            return

        def finished(self, job, record):
            self.events.append(("finished", job.run_id, record.status.value))

    return Listener()


@pytest.fixture
def survivors(monkeypatch):
    """Mark all processes that this test starts; return a call that lists those alive, after a moment to die in."""
    token = f"SFUMATO_TEST={uuid.uuid4().hex}"
    monkeypatch.setenv(*token.split("="))

    def alive(within=5.0):
        deadline = time.monotonic() + within
        while True:
            found = []
            for entry in Path("/proc").iterdir():
                with contextlib.suppress(OSError):
                    if entry.name.isdigit() and token.encode() in (entry / "environ").read_bytes():
                        words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                        if int(entry.name) != os.getpid() and words:
                            found.append(f"{entry.name} {words}")
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    return alive

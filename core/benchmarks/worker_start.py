"""What a run in a process of its own costs before it does anything: processor time beside that of bare processes.

    python core/benchmarks/worker_start.py [--repeats 9]

Cases are run in turn; medians of user and system seconds of the child processes. The worker makes one episode of a toy
task, guardian included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TOYS = Path(__file__).parents[1] / "tests" / "toys"
sys.path.insert(0, str(TOYS))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(TOYS), os.environ.get("PYTHONPATH", ""))))

from sfumato.experiment import Experiment, Settings, Use  # noqa: E402
from sfumato.plugins import Registry  # noqa: E402
from sfumato.store import Store  # noqa: E402


def cpu_seconds(words: list[str], text: str = "") -> float:
    """Return the processor time of a child process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # A pipe that stays open: a worker whose supervisor is gone ends at once.
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as child:
        assert child.stdin is not None
        child.stdin.write(text.encode())
        child.stdin.flush()
        assert child.wait() == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        store = Store(root)
        store.prepare()
        (job,) = Experiment((Use("toys/coin"),), (Use("toys/belief"),), settings=Settings()).jobs(Registry())
        folder = store.write_spec(job.run_id, job.spec)
        work = {"artifacts": str(store.artifacts), "targets": dict(job.targets)}
        (folder / "job.json").write_text(json.dumps(work))
        request = json.dumps({"folder": str(folder)}) + "\n\n"
        cases = {
            "python -c pass": ([sys.executable, "-c", "pass"], ""),
            "import numpy": ([sys.executable, "-c", "import numpy"], ""),
            "import numpy, attrs, cattrs": ([sys.executable, "-c", "import numpy, attrs, cattrs"], ""),
            "a worker that makes one run": ([sys.executable, "-m", "sfumato.worker"], request),
        }
        taken: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(options.repeats):
            for name, (words, text) in cases.items():
                taken[name].append(cpu_seconds(words, text))
        outcome = json.loads((folder / "outcome.json").read_text())
        assert outcome["status"] == "ok", outcome
    bare = taken["import numpy, attrs, cattrs"]
    ratio = statistics.median(a / b for a, b in zip(taken["a worker that makes one run"], bare, strict=True))
    for name, values in taken.items():
        print(f"{name:30s} {statistics.median(values):.3f} s")
    print(f"worker / bare imports: {ratio:.2f} (median of {options.repeats} ratios, load {os.getloadavg()[0]:.1f})")


if __name__ == "__main__":
    main()

"""Many tiny runs: what leaks, what grows, how many a second.

    python core/benchmarks/soak.py --runs 5000 -j 2 --isolation run

makes the runs in blocks, each a sweep of its own into one store, and prints a table: runs stored, runs a second in
that block, seconds to plan it and to list the store, resident size and open files of the supervising process. Exit
status 1 when a process, file descriptor or directory is left behind or the supervisor has grown by 20 MB or more
since its first block.

`--out FILE.json` writes what was measured after each block, with its provenance; a soak that is cut off has then said
how far it came. `--from FILE.json` prints the table of such a file.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TOYS = Path(__file__).parents[1] / "tests" / "toys"
sys.path.insert(0, str(TOYS))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(TOYS), os.environ.get("PYTHONPATH", ""))))

from sfumato.executors.local import LocalExecutor  # noqa: E402
from sfumato.experiment import Experiment, Settings, Use  # noqa: E402
from sfumato.index import Index  # noqa: E402
from sfumato.plugins import Registry  # noqa: E402
from sfumato.provenance import now, provenance  # noqa: E402
from sfumato.runner import plan, sweep  # noqa: E402
from sfumato.store import Store, write_atomic  # noqa: E402

GROWTH_MB = 20.0
STUB = """#!/bin/sh
read line
folder=${line#*\\": \\"}
folder=${folder%\\"*}
printf '{"status": "ok", "error": "", "timings": {}, "digest": "0", "figures": []}' > "$folder/outcome.json"
: > "$folder/rows.jsonl"
: > "$folder/trace.zip"
echo '{"done": ""}'
read line
"""
"""In place of the worker: leaves the supervisor alone to be measured."""


class Silent:
    """Hears everything and says nothing."""

    def started(self, job):
        return

    def progress(self, job, fraction, message):
        return

    def finished(self, job, record):
        assert record.status == "ok", record.error


def rss_mb() -> float:
    """Return this process's resident size, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def left_behind(token: str) -> list[str]:
    """Return the processes, this one apart, that carry our mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if token.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found


def soak(n_runs: int, n_blocks: int, n_jobs: int, isolation: str, root: Path, out: Path | None = None) -> dict:
    """Make the runs; return what was measured. After each block it is written to `out` as well."""
    token = f"SFUMATO_SOAK={os.getpid()}"
    os.environ["SFUMATO_SOAK"] = str(os.getpid())
    scratch = root / "tmp"
    scratch.mkdir()
    tempfile.tempdir = str(scratch)
    os.environ["TMPDIR"] = str(scratch)
    store = Store(root / "store")
    store.prepare()
    registry = Registry()
    blocks = []
    size = n_runs // n_blocks
    began_at = now()
    result = {}
    for number in range(n_blocks):
        settings = Settings(instances=f"{number * size}:{(number + 1) * size}", shards=size)
        jobs = Experiment((Use("toys/coin"),), (Use("toys/belief"),), settings=settings).jobs(registry)
        began = time.perf_counter()
        planned = plan(store, jobs)
        planned_at, cpu = time.perf_counter(), os.times()
        sweep(store, planned, LocalExecutor(n_jobs, isolation), Silent(), threading.Event())
        ended, cpu_end = time.perf_counter(), os.times()
        with Index(store) as index:
            listed = sum(1 for _ in index.summaries())
        listed_at = time.perf_counter()
        assert listed == (number + 1) * size
        del jobs, planned
        gc.collect()
        blocks.append(
            {
                "stored": listed,
                "runs_per_second": size / (ended - planned_at),
                "cpu_seconds_per_run": (sum(cpu_end[:4]) - sum(cpu[:4])) / size,
                "supervisor_cpu_seconds_per_run": (sum(cpu_end[:2]) - sum(cpu[:2])) / size,
                "plan_seconds": planned_at - began,
                "list_seconds": listed_at - ended,
                "rss_mb": rss_mb(),
                "files": len(os.listdir("/proc/self/fd")),
                "threads": threading.active_count(),
                "load": os.getloadavg()[0],
            }
        )
        result = {
            "asked": n_runs,
            "runs": listed,
            "isolation": isolation,
            "jobs": n_jobs,
            "blocks": blocks,
            "growth_mb": blocks[-1]["rss_mb"] - blocks[0]["rss_mb"],
            "files_grown": blocks[-1]["files"] - blocks[0]["files"],
            "threads": blocks[-1]["threads"],
            "processes_left": left_behind(token),
            "temporary_left": sorted(p.name for p in scratch.iterdir() if not p.name.startswith("sfumato-locks-")),
            "strange_files": strange_files(store.runs),
            "directories": sum(1 for _ in store.runs.iterdir()),
            "bytes_per_run": int(subprocess.check_output(["du", "-sb", str(store.runs)]).split()[0]) / listed,
            "load": os.getloadavg()[0],
            "cores": len(os.sched_getaffinity(0)),
            "began": began_at,
            "ended": now(),
            "provenance": provenance(),
        }
        result["faults"] = faults(result)
        if out is not None:
            write_atomic(out, json.dumps(result, indent=1, sort_keys=True) + "\n")
    tempfile.tempdir = None
    return result


def strange_files(runs: Path) -> list[str]:
    """Return what lies in the folders of the runs and should not."""
    usual = ("spec.json", "record.json", "rows.jsonl", "trace.zip")
    return [f"{run.name}/{path.name}" for run in runs.iterdir() for path in run.iterdir() if path.name not in usual]


def faults(result: dict) -> list[str]:
    """Return what should not be."""
    found = [f"left behind: {p}" for p in result["processes_left"] + result["temporary_left"] + result["strange_files"]]
    if result["growth_mb"] >= GROWTH_MB:
        found.append(f"the supervisor grew by {result['growth_mb']:.1f} MB")
    if result["files_grown"] > 0:
        found.append(f"{result['files_grown']} more files are open than after the first block")
    if result["threads"] > 1:
        found.append(f"{result['threads']} threads are left")
    if result["directories"] != result["runs"]:
        found.append(f"{result['directories']} directories for {result['runs']} runs")
    return found


def table(result: dict) -> str:
    """Return the table of growth, as Markdown."""
    came = "" if result["runs"] == result["asked"] else f" (of {result['asked']} asked for)"
    left = "; ".join(result["faults"]) or "nothing left behind"
    lines = [
        f"isolation `{result['isolation']}`, {result['runs']} runs{came}, -j {result['jobs']}, {result['cores']} cores, load "
        f"{min(b['load'] for b in result['blocks']):.0f} to {max(b['load'] for b in result['blocks']):.0f}; supervisor grew by "
        f"{result['growth_mb']:.1f} MB; {left}",
        "",
        "| runs stored | runs/s | CPU s/run | of these supervisor | plan s | list s | supervisor MB | files |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {b['stored']} | {b['runs_per_second']:.1f} | {b['cpu_seconds_per_run']:.3f} | "
        f"{b['supervisor_cpu_seconds_per_run']:.4f} | {b['plan_seconds']:.2f} | {b['list_seconds']:.2f} | "
        f"{b['rss_mb']:.1f} | {b['files']} |"
        for b in result["blocks"]
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("--isolation", choices=("run", "group", "none"), default="run")
    parser.add_argument("--stub", action="store_true", help="a shell script in place of the worker: the supervisor alone")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="write what was measured here, block by block")
    parser.add_argument("--from", dest="made", type=Path, help="print the table of such a file")
    options = parser.parse_args()
    if options.made:
        print(table(json.loads(options.made.read_text())))
        return 0
    n_jobs = 1 if options.isolation == "none" else options.jobs
    with tempfile.TemporaryDirectory(prefix="sfumato-soak-") as root:
        if options.stub:
            stub = Path(root) / "stub"
            stub.write_text(STUB)
            stub.chmod(0o755)
            sys.executable = str(stub)
        result = soak(options.runs, options.blocks, n_jobs, options.isolation, Path(root), options.out)
    found = result["faults"]
    print(json.dumps(result) if options.json else table(result))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

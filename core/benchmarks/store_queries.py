"""How long `status`, `show`, `export` and planning take as the store grows.

    python core/benchmarks/store_queries.py [--sizes 100 1000 10000]

Copies one real run under many ids, then times the commands as a user calls them, each in a process of its own: first
without an index (it is built then), then with it. `python -c pass` in turn tells what a process costs here. Wall-clock
seconds and, behind the stroke, processor seconds (user and system): where the machine is shared, these are what the
command would take alone. `--out FILE.json` keeps the figures with their provenance.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sfumato.provenance import now, provenance

TOYS = Path(__file__).parents[1] / "tests" / "toys"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(TOYS), os.environ.get("PYTHONPATH", ""))))}


def seconds(*words: str) -> tuple[float, float]:
    """Return the wall-clock and the processor seconds of one command."""
    began, cpu = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    ended = os.times()
    return time.perf_counter() - began, sum(ended[2:4]) - sum(cpu[2:4])


def fill(root: Path, size: int) -> str:
    """Make a store of `size` runs; return the id of one."""
    words = ["-m", "sfumato", "run", "toys/coin", "--solver", "toys/belief", "--seeds", "5", "--store", str(root), "--json"]
    done = subprocess.run([sys.executable, *words], check=True, capture_output=True, env=ENVIRONMENT)
    record = json.loads(done.stdout)
    folder = root / "runs" / record["run_id"]
    spec, rows = (folder / "spec.json").read_text(), (folder / "rows.jsonl").read_text()
    for k in range(1, size):
        run_id = hashlib.sha256(str(k).encode()).hexdigest()[:16]
        copy = root / "runs" / run_id
        copy.mkdir()
        (copy / "spec.json").write_text(spec)
        (copy / "rows.jsonl").write_text(rows)
        (copy / "record.json").write_text(json.dumps({**record, "run_id": run_id}, indent=1, sort_keys=True))
    (root / "index.sqlite").unlink(missing_ok=True)
    return str(record["run_id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures here")
    options = parser.parse_args()
    names = ("no index: status", "no index: show", "status", "status --status failed", "status --json", "show", "plan again",
             "export (csv)", "python -c pass")  # fmt: skip
    print("| runs | " + " | ".join(names) + " |")
    print("|---:|" + "---:|" * len(names))
    locks = tempfile.TemporaryDirectory(prefix="sfumato-locks-")  # timed runs of others on this machine must not be waited for
    ENVIRONMENT["TMPDIR"] = locks.name
    kept = {"provenance": provenance(), "began": now(), "sizes": {}}
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="sfumato-queries-") as name:
            root = Path(name)
            run_id = fill(root, size)
            store = ["--store", name]
            again = ["run", "toys/coin", "--solver", "toys/belief", "--seeds", "5"]
            commands = {
                "status": ("-m", "sfumato", "status", *store),
                "filter": ("-m", "sfumato", "status", "--status", "failed", *store),
                "json": ("-m", "sfumato", "status", "--json", *store),
                "show": ("-m", "sfumato", "show", run_id[:8], *store),
                "plan": ("-m", "sfumato", *again, *store),
                "export": ("-m", "sfumato", "export", *store),
                "pass": ("-c", "pass"),
            }
            taken: dict[str, list[tuple[float, float]]] = {key: [] for key in ("cold status", "cold show", *commands)}
            for _ in range(3):
                for key in ("status", "show"):
                    (root / "index.sqlite").unlink(missing_ok=True)
                    taken[f"cold {key}"].append(seconds(*commands[key]))
            for _ in range(options.repeats):
                for key, words in commands.items():
                    taken[key].append(seconds(*words))
            columns = [tuple(map(statistics.median, zip(*t, strict=True))) for t in taken.values()]
            kept["sizes"][str(size)] = {name: {"wall": w, "cpu": c} for name, (w, c) in zip(names, columns, strict=True)}
            kept["load"] = os.getloadavg()[0]
            print(f"| {size} | " + " | ".join(f"{w:.2f} / {c:.2f} s" for w, c in columns) + " |", flush=True)
            if options.out:
                options.out.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    print(f"\nmedians of {options.repeats} (no index: 3), {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

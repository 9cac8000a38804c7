"""How long `status`, `show`, `export` and planning take as the store grows.

    python core/benchmarks/store_queries.py [--sizes 100 1000 10000]

Copies one real run under many ids, then times the commands as a user calls them, each in a process of its own: first
without an index (it is built then), then with it. `python -c pass` in turn tells what a process costs here.
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

TOYS = Path(__file__).parents[1] / "tests" / "toys"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(TOYS), os.environ.get("PYTHONPATH", ""))))}
REPEATS = 5


def seconds(*words: str) -> float:
    """Return the wall time of one command."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    return time.perf_counter() - began


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
    options = parser.parse_args()
    print("| runs | no index: status | status | status --status failed | status --json | show | plan again | export (csv) | python -c pass |")
    print("|---:|" + "---:|" * 8)
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="sfumato-queries-") as name:
            root = Path(name)
            run_id = fill(root, size)
            store = ["--store", name]
            commands = {
                "status": ("-m", "sfumato", "status", *store),
                "filter": ("-m", "sfumato", "status", "--status", "failed", *store),
                "json": ("-m", "sfumato", "status", "--json", *store),
                "show": ("-m", "sfumato", "show", run_id[:8], *store),
                "plan": ("-m", "sfumato", "run", "toys/coin", "--solver", "toys/belief", "--seeds", "5", *store),
                "export": ("-m", "sfumato", "export", *store),
                "pass": ("-c", "pass"),
            }
            cold = []
            for _ in range(3):
                (root / "index.sqlite").unlink(missing_ok=True)
                cold.append(seconds(*commands["status"]))
            taken: dict[str, list[float]] = {key: [] for key in commands}
            for _ in range(REPEATS):
                for key, words in commands.items():
                    taken[key].append(seconds(*words))
            columns = [statistics.median(cold), *(statistics.median(t) for t in taken.values())]
            print(f"| {size} | " + " | ".join(f"{c:.2f} s" for c in columns) + " |", flush=True)
    print(f"\nmedians of {REPEATS} (no index: 3), {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

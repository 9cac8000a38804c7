"""How long a report of 500 runs takes, and how large it is: `python core/benchmarks/report_size.py [RUNS]`.

One run of 300 items of the tests' bandit is made and copied under other ids; so every page has a table of 200 rows and plots.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOYS = Path(__file__).resolve().parent.parent / "tests" / "toys"


def main(n_runs: int) -> None:
    """Print seconds of wall and processor, and megabytes."""
    from sfumato.report.site import build
    from sfumato.store import Store

    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPATH": str(TOYS), "SFUMATO_STORE": f"{folder}/store"}
        words = [sys.executable, "-m", "sfumato", "run", "toys/bandit", "--solver", "toys/greedy", "--seeds", "300", "--json"]
        made = json.loads(subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout)
        store = Store(Path(folder) / "store")
        source = store.folder(made["run_id"])
        for k in range(n_runs - 1):
            twin = store.folder(f"{k:016x}")
            shutil.copytree(source, twin)
            record = json.loads((twin / "record.json").read_text())
            record["run_id"] = twin.name
            (twin / "record.json").write_text(json.dumps(record))
        wall, cpu = time.perf_counter(), time.process_time()
        build(store, Path(folder) / "site")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        size = sum(p.stat().st_size for p in (Path(folder) / "site").rglob("*") if p.is_file())
        print(f"{n_runs} runs: {wall:.1f} s wall, {cpu:.1f} s processor, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)

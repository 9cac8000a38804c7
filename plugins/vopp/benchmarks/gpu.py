"""What a GPU makes of the search: its rate, who waits for whom, and return against planning time on MARS.

    python benchmarks/gpu.py --out gpu.json --minutes 9        # again and again, until nothing is left to do
    python benchmarks/gpu.py --device cpu --small --out try.json   # tries the script where there is no GPU

Needs torch, NumPy and attrs alone. Every figure is written as soon as it is there; a second call goes on where the first one
stopped. Three parts:

`rate`: simulated model steps a second of wall time, tree work included, op by op with tables that grow ("eager"), and in
fixed shapes op by op ("fixed"), from captured CUDA graphs ("graph"), compiled and captured ("compile"). The floor is the time
to move, at the bandwidth of a large copy measured in the same run, what each step touches: state, stream and node of the
episode, read and written once, and the rows of its belief and its action, once an iteration for each row there is.

`waits`: in one iteration, how often the host asks for content, counted by the profiler (the one list of counts that fixed shapes
read at its end shows on CUDA as a copy to the host); and, on CUDA, whether an iteration in fixed shapes passes with every wait
made an error.

`quality`: discounted return on MARS(20,20) and MARS(50,50) by seconds of planning a step, exact filter, paired starts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sfumato_vopp import VOPP, ModelError, RockSample, SearchConfig
from sfumato_vopp.fixed_torch import ACTION, BELIEF
from sfumato_vopp.models.mars_torch import SAMPLE, TorchMars
from sfumato_vopp.models.rocksample_torch import TorchRockSample
from sfumato_vopp.ops_torch import TorchDraws, TorchOps

#: Bytes of a belief's row and of an action's, read once.
ROW = 8 * (len(BELIEF) + len(ACTION))
WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::_unique2", "aten::unique_dim")


class Record:
    """The results so far, in a file, and the time that is left."""

    def __init__(self, path: Path, minutes: float) -> None:
        self.path, self.end = path, time.monotonic() + 60 * minutes
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def wants(self, key: str) -> bool:
        """Say whether a result is missing and there is time for it."""
        return key not in self.content and time.monotonic() < self.end

    def put(self, key: str, value: Any) -> None:
        """Keep a result."""
        self.content[key] = value
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")
        print(f"{key:44} {json.dumps(value)}", flush=True)


def wait_for(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def bandwidth(device: str) -> float:
    """Return bytes a second of a large copy, reads and writes counted; median of ten."""
    n = 1 << (28 if device.startswith("cuda") else 22)
    source, target = torch.rand(n, device=device), torch.empty(n, device=device)
    times = []
    for _ in range(12):
        began = time.perf_counter()
        target.copy_(source)
        wait_for(device)
        times.append(time.perf_counter() - began)
    return 2 * 4 * n / statistics.median(times[2:])


def settings(mode: str, n: int, capacity: int, **more: Any) -> SearchConfig:
    """Return the settings of a contender."""
    fixed = {} if mode == "eager" else {"capacity": max(capacity, 4 * n), "capture": "none" if mode == "fixed" else mode}
    return SearchConfig(n_episodes=n, **fixed, **more)  # type: ignore[arg-type]


def rate(record: Record, device: str, small: bool, moved: float) -> None:
    """Measure every contender at every size."""
    on_gpu = device.startswith("cuda")
    modes = ("eager", "fixed", "graph", "compile") if on_gpu else ("eager", "fixed")
    sizes = (100,) if small else (1000, 4000, 16_000, 50_000)
    problems = {"rocksample-7-8": lambda: TorchRockSample(device=device), "mars-20-20": lambda: TorchMars(20, 20, device=device)}
    for name, make in problems.items():
        for n in sizes:
            for mode in modes:
                key = f"rate {name} n={n} {mode}"
                if name != "rocksample-7-8" and mode == "eager":
                    continue  # rows of 625 preferences at every belief: the fixed tables are sparse, these are not
                if not record.wants(key):
                    continue
                model = make()
                try:
                    planner = VOPP(model, settings(mode, n, 1 << (12 if small else 17), max_depth=3 if small else 20), backend="torch", device=device)
                    record.put(key, one_rate(planner, model, device, 0.05 if small else 1.0, moved))
                except (ModelError, ValueError, RuntimeError) as reason:  # out of memory is a RuntimeError
                    record.put(key, {"failed": str(reason)[:300]})


def one_rate(planner: VOPP, model: Any, device: str, seconds: float, moved: float) -> dict[str, float]:
    """Return the best of three searches, with its floor."""
    began = time.perf_counter()
    planner.warmup()
    ready = time.perf_counter() - began
    belief = model.initial(10_000, np.random.default_rng(0))
    tree, config, best = planner._tree, planner.config, {"steps_a_second": 0.0}
    for attempt in range(4):  # the first one lets the tables grow and the graphs be captured
        tree.begin(belief, None, attempt)
        wait_for(device)
        began, i, done, touched = time.perf_counter(), 0, 0, 0
        while time.perf_counter() - began < seconds and not tree.overflow:
            depth, before = config.depth(i), tree.steps
            done += tree.iterate(i, config.n_episodes, done, depth)
            rows = min(tree.steps - before, tree.n_beliefs)
            touched += (tree.steps - before) * 16 * (model.state_width + 2) + 2 * rows * ROW
            i += 1
        wait_for(device)
        took = time.perf_counter() - began
        if attempt and tree.steps / took > best["steps_a_second"]:
            best = {
                "steps_a_second": round(tree.steps / took), "iterations": i, "deepest": config.depth(max(0, i - 1)),
                "beliefs": tree.n_beliefs, "megabytes": round(tree.nbytes / 1e6, 1), "ready_s": round(ready, 2),
                "seconds": round(took, 4), "floor_s": touched / moved, "fraction_of_floor": round(touched / moved / took, 5),
            }  # fmt: skip
    return best


def waits(record: Record, device: str, small: bool) -> None:
    """Count what makes the host wait in one iteration of five levels."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.startswith("cuda") else [])
    n, depth = (100, 3) if small else (10_000, 5)
    for mode in ("eager", "fixed", "graph") if device.startswith("cuda") else ("eager", "fixed"):
        key = f"waits {mode}"
        if not record.wants(key):
            continue
        model = TorchRockSample(device=device)
        planner = VOPP(model, settings(mode, n, 1 << 15, max_depth=depth), backend="torch", device=device)
        planner.warmup()
        tree = planner._tree
        tree.begin(model.initial(1000, np.random.default_rng(0)), None, 0)
        for i in range(3):
            tree.iterate(i, n, n * i, depth)
        strict = None
        if mode != "eager" and device.startswith("cuda"):
            torch.cuda.set_sync_debug_mode("error")
            try:
                tree.launch(3, n, 3 * n, depth)
                strict = True
            finally:
                torch.cuda.set_sync_debug_mode("default")
            tree._read()
        with profile(activities=activities) as found:
            tree.iterate(4, n, 4 * n, depth)
        counts = {event.key: event.count for event in found.key_averages()}
        record.put(key, {
            "levels": depth, "reads": sum(counts.get(name, 0) for name in WAITS),
            "device_to_host_copies": sum(c for name, c in counts.items() if "DtoH" in name),
            "stream_synchronisations": sum(counts.get(name, 0) for name in ("cudaStreamSynchronize", "cudaDeviceSynchronize")),
            "kernels": sum(c for name, c in counts.items() if name in ("cudaLaunchKernel", "cuLaunchKernel")),
            "graph_launches": counts.get("cudaGraphLaunch", 0), "passes_with_every_wait_an_error": strict,
        })  # fmt: skip


class Rocks:
    """The exact belief over MARS: positions are known and rocks are independent, so a probability for each rock is all."""

    def __init__(self, model: TorchMars) -> None:
        self.model, self.good = model, np.full(model.m, 0.5)

    def particles(self, n: int, packed: int, rng: np.random.Generator) -> np.ndarray:
        """Draw n states."""
        bits = (rng.random((n, self.model.m)) < self.good) @ (1 << np.arange(self.model.m, dtype=np.int64))
        return np.column_stack([bits, np.full(n, packed)])

    def update(self, action: int, observation: int, packed: int) -> None:
        """Condition on what both rovers read, rover 0 first; ``packed``: their positions before the action."""
        model = self.model
        for rover, act in enumerate(divmod(action, 5 + model.m)):
            if not (packed >> (32 + rover)) & 1:
                continue
            cell = ((packed >> (16 * rover + 8)) & 0xFF) * model.n + ((packed >> (16 * rover)) & 0xFF)
            if act == SAMPLE and model._ints[2 + cell] >= 0:
                self.good[model._ints[2 + cell]] = 0.0
            elif act > SAMPLE:
                rock, reading = act - 5, observation // 3 if rover == 0 else observation % 3
                right = float(model._floats[1 + model.n**2 + cell * model.m + rock])
                yes, no = (right, 1.0 - right) if reading == 2 else (1.0 - right, right)
                p = self.good[rock]
                self.good[rock] = p * yes / (p * yes + (1.0 - p) * no)


def episode(planner: VOPP, world: TorchMars, which: int, seconds: float, limit: int, n_particles: int) -> dict[str, float]:
    """Play one episode on the CPU world; returns the discounted return and what planning took."""
    rng = np.random.default_rng(1_000_003 + which)
    state, belief, draws = world.initial(1, rng), Rocks(world), np.random.default_rng(which)
    planner.reseed(np.random.default_rng(2_000_003 + which))
    keys = TorchOps("cpu").keys(which, 0, 1)
    total, took, steps, t = 0.0, [], [], 0
    for t in range(limit):
        packed = int(state[0, 1])
        decision = planner.plan(belief.particles(n_particles, packed, draws), deadline=seconds)
        took.append(decision.stats.seconds)
        steps.append(decision.stats.steps)
        out = world.step(torch.as_tensor(state), torch.tensor([decision.action]), TorchDraws(keys, 64 * t, 64))
        total += world.discount**t * float(out.rewards[0])
        belief.update(decision.action, int(out.observations[0]), packed)
        state = out.states.numpy()
        if bool(out.terminal[0]):
            break
    return {
        "return": round(total, 4), "length": t + 1, "plan_s_median": round(statistics.median(took), 5),
        "plan_s_worst": round(max(took), 5), "steps_a_decision": round(statistics.mean(steps)),
    }  # fmt: skip


def quality(record: Record, device: str, small: bool, mode: str) -> None:
    """Play episodes in rounds over all budgets, so that an early end leaves all of them with equally many."""
    sizes = ((6, 3),) if small else ((20, 20), (50, 50))
    budgets = (0.01, 0.05) if small else (0.01, 0.05, 0.1, 0.3, 1.0)
    planners: dict[tuple[int, int, float], tuple[VOPP, TorchMars]] = {}
    for which in range(1 if small else 40):
        for n, m in sizes:
            for seconds in budgets:
                key = f"quality mars-{n}-{m} {seconds} s episode {which}"
                if not record.wants(key):
                    continue
                # Short budgets get narrow batches: an iteration has to fit several times.
                batch = 50 if small else (2000 if seconds <= 0.01 else 10_000 if seconds <= 0.1 else 50_000)
                if (n, m, seconds) not in planners:
                    planners = {}  # one at a time: their tables fill the memory
                    model = TorchMars(n, m, device=device)
                    config = settings(mode, batch, 1 << (10 if small else 21), max_depth=4 if small else 90, seconds=seconds)
                    planner = VOPP(model, config, backend="torch", device=device)
                    planner.warmup()
                    planner.plan(model.initial(1000, np.random.default_rng(0)), deadline=max(seconds, 0.01))
                    planners[n, m, seconds] = (planner, TorchMars(n, m))
                planner, world = planners[n, m, seconds]
                limit = 3 if small else (90 if n == 20 else 600)
                record.put(key, episode(planner, world, which, seconds, limit, 200 if small else 20_000))


def summary(content: dict[str, Any]) -> None:
    """Print mean returns with 95 % intervals."""
    groups: dict[str, list[float]] = {}
    for key, value in content.items():
        if key.startswith("quality"):
            groups.setdefault(key.split(" episode")[0], []).append(value["return"])
    for name, values in groups.items():
        half = 1.96 * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        print(f"{name:32} {statistics.mean(values):8.2f} ± {half:.2f} (n = {len(values)})")


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--parts", nargs="+", choices=("rate", "waits", "quality"), default=["waits", "rate", "quality"])
    parser.add_argument("--mode", choices=("fixed", "graph", "compile"), help="launch of part `quality`")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    options = parser.parse_args()
    device = options.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        parser.exit(3, "expected a CUDA device, found none; --device cpu --small tries the script\n")
    record = Record(options.out, options.minutes)
    if "machine" not in record.content:
        card = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
        record.put("machine", {"card": card, "torch": torch.__version__, "rocksample": RockSample().rocks})
    moved = bandwidth(device)
    print(f"a large copy moves {moved / 1e9:.0f} GB/s")
    record.content["copy_bytes_a_second"] = moved
    if "waits" in options.parts:
        waits(record, device, options.small)
    if "rate" in options.parts:
        rate(record, device, options.small, moved)
    if "quality" in options.parts:
        quality(record, device, options.small, options.mode or ("graph" if device.startswith("cuda") else "fixed"))
    summary(record.content)


if __name__ == "__main__":
    main()

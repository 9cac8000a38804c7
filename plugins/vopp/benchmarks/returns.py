"""Discounted return at equal planning time, episode by episode from the same start states, beside other planners.

    python benchmarks/returns.py tag --seconds 0.1 --episodes 200 --out benchmarks/returns --despot BUILD_FOLDER
    python benchmarks/returns.py rocksample-7-8 --planners vopp pomcp despot 'released:{"path": "CHECKOUT"}'
    python benchmarks/returns.py --table benchmarks/returns

Planning time is CPU time of one thread for every planner (the clock of the C++ DESPOT is CPU time too). Results are appended
to one file of JSON lines for each problem, time and planner, so a study can be stopped and goes on where it was. With
`--despot` the C++ program goes first and draws the start states (and LaserTag's layouts); all others start from them, each
in worlds whose seed is the episode's number. Without it starts come from a fixed stratified order. ± is a 95 % interval.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import despot_cpp
import numpy as np
from common import interval

from sfumato_vopp import POMCP, VOPP, POMCPConfig, RockSample, SearchConfig
from sfumato_vopp.models.lasertag import LaserTag
from sfumato_vopp.models.lightdark import LightDark
from sfumato_vopp.models.mars import Mars
from sfumato_vopp.models.navigation import Navigation
from sfumato_vopp.models.tag import Tag
from sfumato_vopp.simulate import play

PROBLEMS = {
    "rocksample-7-8": lambda: RockSample(7, 8),
    "rocksample-11-11": lambda: RockSample(11, 11),
    "tag": Tag,
    "lasertag": LaserTag,
    "light-dark": LightDark,
    "navigation": Navigation,
    "mars-20-20": lambda: Mars(20, 20),
    "mars-50-50": lambda: Mars(50, 50),
}
#: Episodes of one call of the C++ program; it draws one LaserTag layout a call.
CHUNK = 10


def planner_of(name: str, model: Any, seconds: float, settings: dict[str, Any]) -> Any:
    """Build a planner with its defaults, the time and whatever settings are given besides."""
    if name == "released":
        from vopp_released import ReleasedVOPP

        return ReleasedVOPP(seconds=seconds, size=(model.n, model.k), **settings)
    if name == "vopp":
        return VOPP(model, SearchConfig(seconds=seconds, clock="cpu", **settings))
    if name == "pomcp":
        return POMCP(model, POMCPConfig(seconds=seconds, clock="cpu", **settings))
    from sfumato_vopp import DESPOT, DESPOTConfig

    return DESPOT(model, DESPOTConfig(seconds=seconds, clock="cpu", **settings))


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines written so far, one an episode, in order."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [item for _, item in sorted({line["episode"]: line for line in lines}.items())]


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process adds to this file."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def append(path: Path, item: dict[str, Any]) -> None:
    """Add one line."""
    with path.open("a") as stream:
        stream.write(json.dumps(item) + "\n")


def run_despot(path: Path, folder: str, problem: str, seconds: float, episodes: int, max_steps: int) -> None:
    """Add what is missing, a chunk of episodes at a time."""
    with alone(path):
        while (done := len(read(path))) < episodes:
            for k, item in enumerate(despot_cpp.run(folder, problem, seconds, CHUNK, 1 + done // CHUNK, max_steps)):
                append(path, {"episode": done + k, **item})


def run_ours(
    path: Path, name: str, problem: str, seconds: float, episodes: int, max_steps: int, starts: list[dict[str, Any]],
    settings: dict[str, Any], backwards: bool,
) -> None:  # fmt: skip
    """Add what is missing, an episode at a time; two processes may work towards each other."""
    planner, model, layout = None, None, object()
    while missing := sorted(set(range(episodes)) - {item["episode"] for item in read(path)}):
        k = missing[-1] if backwards else missing[0]
        begin = starts[k] if starts else {}
        if planner is None or begin.get("obstacles") != layout:
            layout = begin.get("obstacles")
            model = LaserTag(tuple((x, y) for x, y in layout)) if layout else PROBLEMS[problem]()
            planner = planner_of(name, model, seconds, settings)
            planner.warmup()
        start = np.array([begin["start"]]) if begin else None
        began = time.process_time()
        episode = play(planner, model, k, max_steps, start=start)
        append(
            path,
            {
                "episode": k, "start": begin.get("start"), "return": round(episode.discounted_return, 6),
                "steps": len(episode.stats), "ended": episode.ended, "cpu_seconds": round(time.process_time() - began, 3),
                "simulated_steps": int(np.mean([s.steps for s in episode.stats])),
            },
        )  # fmt: skip


def table(folder: Path) -> Iterator[str]:
    """Yield a table of all files in a folder, with paired differences from "vopp"."""
    yield "| problem | s a step | planner | n | return | vopp less this, paired | ended | CPU s a step | simulated steps a decision |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for path in sorted(folder.glob("*.jsonl")):
        problem, seconds, name = path.stem.split("_", 2)
        items = read(path)
        if len(items) < 2:
            continue
        ours = {i["episode"]: i for i in read(folder / f"{problem}_{seconds}_vopp.jsonl")}
        both = [i for i in items if i["episode"] in ours and i.get("start") == ours[i["episode"]].get("start")]
        difference = np.array([ours[i["episode"]]["return"] - i["return"] for i in both])
        steps = sum(i["steps"] for i in items)
        simulated = [i["simulated_steps"] for i in items if "simulated_steps" in i]
        yield (
            f"| {problem} | {seconds} | {name} | {len(items)} | {interval(np.array([i['return'] for i in items])).strip()} | "
            f"{'' if name == 'vopp' or len(both) < 2 else interval(difference).strip()} | {np.mean([i['ended'] for i in items]):.0%} | "
            f"{sum(i['cpu_seconds'] for i in items) / steps:.3f} | {f'{np.mean(simulated):.2g}' if simulated else ''} |"
        )


def peers(folder: Path) -> list[dict[str, object]]:
    """Return the comparisons with the C++ DESPOT, as the repository's tables read them."""
    rows: list[dict[str, object]] = []
    for path in sorted(folder.glob("*_despot-cpp.jsonl")):
        problem, seconds, _ = path.stem.split("_", 2)
        ours = {i["episode"]: i for i in read(folder / f"{problem}_{seconds}_vopp.jsonl")}
        both = [i for i in read(path) if i["episode"] in ours and i.get("start") == ours[i["episode"]].get("start")]
        if len(both) < 50:
            continue
        mine = np.array([ours[i["episode"]]["return"] for i in both])
        theirs = np.array([i["return"] for i in both])
        rows.append({
            "what": f"{problem}, {seconds} CPU s a decision: discounted return", "peer": "DESPOT (C++)", "unit": "",
            "better": "larger", "ours": float(mine.mean()), "theirs": float(theirs.mean()), "n": len(both),
            "note": f"ours less theirs, paired: {interval(mine - theirs).strip()}",
            "level": bool(abs((mine - theirs).mean()) < 1.96 * (mine - theirs).std(ddof=1) / len(both) ** 0.5),
        })  # fmt: skip
    return rows


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", choices=sorted(PROBLEMS), nargs="?")
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--max-steps", type=int, default=90)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/returns"))
    parser.add_argument("--despot", help="folder of a CMake build of AdaCompNUS/despot")
    parser.add_argument("--planners", nargs="*", default=["vopp"], help="of vopp, pomcp, despot (ours), released; NAME:{json settings} sets more")
    parser.add_argument("--backwards", action="store_true", help="begin with the last episode, to help a process that began with the first")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--peers", type=Path, help="with --table: also write the comparisons with DESPOT to this JSON file")
    options = parser.parse_args()
    if options.table is not None:
        print("\n".join(table(options.table)))
        if options.peers is not None:
            options.peers.write_text(json.dumps(peers(options.table), indent=1) + "\n")
        return
    if options.problem is None:
        parser.error("give a problem, or --table FOLDER")
    options.out.mkdir(parents=True, exist_ok=True)
    stem = f"{options.problem}_{options.seconds:g}"
    peer = options.out / f"{stem}_despot-cpp.jsonl"
    if options.despot and options.problem in despot_cpp.PROGRAMS:
        run_despot(peer, options.despot, options.problem, options.seconds, options.episodes, options.max_steps)
    elif not peer.exists():
        print("C++ DESPOT skipped: give --despot BUILD_FOLDER and one of", ", ".join(despot_cpp.PROGRAMS))
    starts = read(peer)[: options.episodes]
    if not options.planners:
        starts = []
    if starts and len(starts) < options.episodes:
        parser.error(f"{peer} holds {len(starts)} start states; give --despot to draw more, or --episodes {len(starts)}")
    for entry in options.planners:
        name, _, text = entry.partition(":")
        settings = json.loads(text) if text else {}
        label = name + "".join(f"-{k}-{v}" for k, v in settings.items() if k != "path")
        run_ours(
            options.out / f"{stem}_{label}.jsonl", name, options.problem, options.seconds, options.episodes,
            options.max_steps, starts, settings, options.backwards,
        )  # fmt: skip
    print("\n".join(table(options.out)))


if __name__ == "__main__":
    main()

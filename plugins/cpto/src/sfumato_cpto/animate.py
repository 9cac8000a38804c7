"""Pictures: an animated top view of a course, and convergence curves. Needs matplotlib (extra `plot`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_cpto.driver import Driver
from sfumato_cpto.simulator.geometry import corners
from sfumato_cpto.simulator.world import Scene, World

FLOOR = 1e-5  # of residuals in the plot; a bound that nothing touches has residual 0
COLOURS = ("#d1495b", "#edae49", "#00798c", "#66a182", "#7b5ea7", "#2e4057")


def record(scene: Scene, driver: Driver, rng: np.random.Generator, every: int = 1) -> list[dict[str, Any]]:
    """Drive a course and return what each frame shows, as plain arrays.

    Returns: one dict per `every` cycles: time, ego, users [M, 6], detected [M], candidates [C, 2, N], shared [2, N],
    phantoms [P, 2], shadows [S, 4, 2] (hidden parts of the crossing lanes), status.
    """
    world = World(scene, rng)
    driver.reset(scene.public)
    frames = []
    cycle = 0
    while not (world.finished or world.timed_out):
        observation = world.observe()
        ego, users = world.ego.copy(), world._truth_rows()
        action = driver.act(observation)
        if cycle % every == 0 and driver.plan is not None and driver.situation is not None:
            plan, situation = driver.plan, driver.situation
            candidates, shared = plan.position, plan.shared
            if situation.frame is not None and len(candidates):
                frame = situation.frame
                candidates = frame.from_frame(candidates.transpose(0, 2, 1)).transpose(0, 2, 1)
                shared = frame.from_frame(shared.T).T
            seen = driver.log[-1]["picture"]
            frames.append(
                {
                    "time": world.time, "ego": ego, "users": users, "detected": observation["detected"],
                    "candidates": candidates, "shared": shared[:, : driver.solver.settings.n_consensus + 1],
                    "phantoms": seen.phantoms.astype(float), "shadows": seen.shadows.astype(float),
                    "status": plan.status.name,
                }
            )  # fmt: skip
        world.step(*action)
        cycle += 1
    return frames


def animate(
    scene: Scene, frames: list[dict[str, Any]], path: str | Path, fps: int = 10, width: float = 60.0
) -> Path:
    """Write an animated GIF: candidates by hypothesis, the consensus segment bold, shadows and phantoms drawn.

    Arguments: width: metres of road shown around the vehicle. Raises: ImportError without matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.patches import Polygon

    figure, axes = plt.subplots(figsize=(9, 5))

    def draw(number: int) -> list[Any]:
        frame = frames[number]
        axes.clear()
        ego = frame["ego"]
        axes.set_xlim(ego[0] - 0.35 * width, ego[0] + 0.65 * width)
        axes.set_ylim(ego[1] - 0.28 * width, ego[1] + 0.28 * width)
        axes.set_aspect("equal")
        axes.set_facecolor("#f2f0eb")
        if "path" in scene.public:
            axes.plot(*np.asarray(scene.public["path"]).T, color="#c8c4bb", lw=14, zorder=0)
        else:
            for y in scene.public["lanes"]:
                axes.axhline(y, color="#dcd8cf", lw=12, zorder=0)
            for x in scene.public.get("crossing_x", ()):
                axes.axvline(x, color="#dcd8cf", lw=12, zorder=0)
        for wall in scene.walls:
            axes.plot(*wall.T, color="#3a3a3a", lw=5, zorder=3)
        for polygon in frame["shadows"]:
            axes.add_patch(Polygon(polygon, color="#3a3a3a", alpha=0.35, lw=0, zorder=1))
        users = frame["users"]
        good = np.isfinite(users[:, 0])
        shapes = corners(users[good, :2], users[good, 2], users[good, 4:6])
        for shape, seen in zip(shapes, frame["detected"][good], strict=True):
            colour = "#5b7083" if seen else "#b9b4aa"
            axes.add_patch(Polygon(shape, facecolor=colour, edgecolor="white", lw=0.5, zorder=2))
        for x, y in frame["phantoms"]:
            axes.plot(x, y, marker="o", ms=13, mfc="none", mec="#d1495b", mew=2, ls="none", zorder=4)
        for i, line in enumerate(frame["candidates"]):
            axes.plot(*line, color=COLOURS[i % len(COLOURS)], lw=1.3, zorder=5)
        if len(frame["candidates"]):
            axes.plot(*frame["shared"], color="black", lw=4, solid_capstyle="round", zorder=6)
        shape = corners(ego[None, :2], ego[None, 2], np.array([scene.size]))[0]
        axes.add_patch(Polygon(shape, facecolor="#8fc1c9", edgecolor="white", zorder=4.5))
        axes.set_title(
            f"{scene.kind}   t = {frame['time']:.1f} s   v = {ego[3]:.1f} m/s   {frame['status'].lower().replace('_', ' ')}",
            fontsize=9,
        )
        axes.set_xlabel("x in m")
        axes.set_ylabel("y in m")
        return []

    animation = FuncAnimation(figure, draw, frames=len(frames), blit=False)  # type: ignore[arg-type]
    path = Path(path)
    animation.save(str(path), writer=PillowWriter(fps=fps), dpi=70)
    plt.close(figure)
    return path


PAGE = """<!doctype html><meta charset="utf-8"><title>__TITLE__</title>
<style>body{font:14px sans-serif;background:#fff;margin:1em}canvas{border:1px solid #ccc;width:100%;max-width:900px}
input{width:60%}</style><h3>__TITLE__</h3><canvas id="c" width="900" height="460"></canvas><br>
<button id="b">pause</button> <input id="s" type="range" min="0" value="0"> <span id="t"></span>
<p>Light blue: the vehicle. Thin lines: candidates, one colour a hypothesis. Thick: the segment they share, which is driven. Grey: where somebody could be hidden; rings: phantoms, the hidden users that are planned for.</p>
<script>const D=__DATA__,C=__COLOURS__,c=document.getElementById('c'),g=c.getContext('2d'),s=document.getElementById('s');
s.max=D.frames.length-1;let k=0,run=true;const W=60,Z=900/W;
function P(f,p){return [(p[0]-f.ego[0]+0.35*W)*Z,230-(p[1]-f.ego[1])*Z]}
function line(f,l,w,col,close){g.beginPath();l.forEach((p,i)=>{const q=P(f,p);i?g.lineTo(...q):g.moveTo(...q)});
if(close){g.closePath();g.fillStyle=col;g.fill()}else{g.lineWidth=w;g.strokeStyle=col;g.stroke()}}
function draw(){const f=D.frames[k];g.fillStyle='#f2f0eb';g.fillRect(0,0,900,460);
D.roads.forEach(r=>line(f,r,46,'#dcd8cf'));D.walls.forEach(w=>line(f,w,6,'#3a3a3a'));
f.shadows.forEach(q=>line(f,q,1,'rgba(58,58,58,.35)',true));
f.users.forEach(u=>line(f,u.p,1,u.s?'#5b7083':'#b9b4aa',true));
f.phantoms.forEach(p=>{const q=P(f,p);g.beginPath();g.arc(q[0],q[1],10,0,7);g.lineWidth=2;g.strokeStyle='#d1495b';g.stroke()});
line(f,f.body,1,'#8fc1c9',true);f.candidates.forEach((l,i)=>line(f,l,1.8,C[i%C.length]));line(f,f.shared,5,'#000');
document.getElementById('t').textContent=f.time.toFixed(1)+' s, '+f.ego[3].toFixed(1)+' m/s, '+f.status;s.value=k}
s.oninput=()=>{k=+s.value;draw()};document.getElementById('b').onclick=e=>{run=!run;e.target.textContent=run?'pause':'play'};
setInterval(()=>{if(run){k=(k+1)%D.frames.length;draw()}},100);draw()</script>"""


def page(scene: Scene, frames: list[dict[str, Any]], path: str | Path) -> Path:
    """Write a self-contained HTML page with a playable top view (no library, no network)."""
    roads: list[Any] = []
    if "path" in scene.public:
        roads.append(np.asarray(scene.public["path"]).round(2).tolist())
    else:
        roads += [[[-300, float(y)], [600, float(y)]] for y in scene.public["lanes"]]
        roads += [[[float(x), -90], [float(x), 90]] for x in scene.public.get("crossing_x", ())]
    rows = []
    for frame in frames:
        users = frame["users"]
        good = np.flatnonzero(np.isfinite(users[:, 0]) & (np.abs(users[:, 0] - frame["ego"][0]) < 80.0))
        rows.append(
            {
                "time": frame["time"], "ego": frame["ego"].round(3).tolist(), "status": frame["status"],
                "users": [
                    {"p": corners(users[j, :2], users[j, 2], users[j, 4:6]).round(2).tolist(), "s": bool(frame["detected"][j])}
                    for j in good
                ],
                "candidates": frame["candidates"].transpose(0, 2, 1)[:, ::3].round(2).tolist(),
                "shared": frame["shared"].T.round(2).tolist(), "phantoms": frame["phantoms"].round(2).tolist(),
                "shadows": frame["shadows"].round(2).tolist(),
                "body": corners(frame["ego"][:2], frame["ego"][2], np.array(scene.size)).round(2).tolist(),
            }
        )  # fmt: skip
    data = {"roads": roads, "walls": np.asarray(scene.walls).round(2).tolist(), "frames": rows}
    text = PAGE.replace("__TITLE__", scene.kind).replace("__COLOURS__", json.dumps(COLOURS))
    path = Path(path)
    path.write_text(text.replace("__DATA__", json.dumps(data)), encoding="utf-8")
    return path


def convergence(path: str | Path, n_candidates: int = 5, iterations: int = 200, seed: int = 0) -> Path:
    """Write a plot of the ADMM's residuals over the iterations on a random dense scene. Raises: ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from sfumato_cpto import admm, coldstart, kernel_numba
    from sfumato_cpto.config import PlannerSettings
    from sfumato_cpto.random_scenes import BOUNDS, scene
    from sfumato_cpto.solver import CPTOSolver

    solver = CPTOSolver(PlannerSettings(bounds=BOUNDS))
    t = solver.transcription
    problem = solver.build(*scene(np.random.default_rng(seed), n_candidates, dense=True))
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for panel, rho in zip(panels, (5.0, 50.0), strict=True):
        from attrs import evolve

        stage = evolve(solver.settings.stages[0], iterations=iterations, rho_obstacle=rho)
        factors = t.factors(stage, problem.n_obstacles, problem.bounded)
        state = admm.initial_state(t, problem, coldstart.roll_out(t, problem))
        history = [kernel_numba.run(t, factors, stage, problem, state, 1, 0.0)[1] for _ in range(iterations)]
        for k, name in enumerate(admm.RESIDUALS):
            values = np.array(history)[:, k]
            if values.max() > 0.0:
                panel.semilogy(np.maximum(values, FLOOR), label=name, lw=1.2)
        panel.set_title(f"obstacle penalty {rho:g}", fontsize=9)
        panel.set_xlabel("iteration")
    panels[0].set_ylabel(f"largest residual (at least {FLOOR:g} is shown)")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(str(path), dpi=110)
    plt.close(figure)
    return Path(path)

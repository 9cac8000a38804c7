"""`solve` on files and odd instances, the policy object, weights."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from sfumato_bqnco import generate, methods, weights
from sfumato_bqnco.decode import Scorer
from sfumato_bqnco.env import environment
from sfumato_bqnco.errors import BqncoError, InstanceError, WeightsError
from sfumato_bqnco.instances import Instance, from_arrays
from sfumato_bqnco.policy import BQPolicy
from sfumato_bqnco.reconstruct import plans, reconstruct
from sfumato_bqnco.solving import solve
from sfumato_bqnco.validate import objective


@pytest.mark.parametrize("problem", ["tsp", "atsp", "cvrp", "op", "kp"])
@pytest.mark.parametrize("limit", [0.0, 0.2])
def test_solve_returns_validated_solutions(problem, limit):
    """Any time limit, zero included; the log says who found what."""
    item = from_arrays(problem, generate.random_set(problem, np.random.default_rng(1), 1, 30), 0)
    answer = solve(item, limit)
    assert answer.objective == objective(item, answer.solution)
    assert answer.log and answer.found_by


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_tiny_instances_are_solved(n):
    """One to five nodes, on every problem: no crash, a feasible answer."""
    rng = np.random.default_rng(0)
    xy = rng.random((n, 2))
    matrix = rng.random((n, n))
    np.fill_diagonal(matrix, 0)
    demand = np.r_[0, np.ones(n - 1, int)]
    for item in (
        Instance("tsp", "t", xy=xy),
        Instance("atsp", "a", "EXPLICIT", matrix=matrix),
        Instance("cvrp", "c", xy=xy, demand=demand, limit=2),
        Instance("op", "o", xy=xy, prize=np.r_[0.0, np.ones(n - 1)], limit=1.0),
        Instance("kp", "k", value=np.ones(n), weight=np.ones(n), limit=2),
    ):
        assert solve(item, 0.05).objective == objective(item, solve(item, 0.05).solution)


def test_duplicate_nodes_and_unreachable_prizes_are_no_trouble():
    """Coincident points; a prize beyond the budget is simply not collected."""
    xy = np.zeros((12, 2))
    xy[6:] = 1.0
    assert solve(Instance("tsp", "two places", xy=xy), 0.1).objective == pytest.approx(2 * np.sqrt(2))
    far = Instance(
        "op",
        "far",
        xy=np.array([[0.0, 0.0], [9.0, 0.0], [0.1, 0.0]]),
        prize=np.array([0.0, 5.0, 1.0]),
        limit=1.0,
    )
    assert solve(far, 0.05).solution == [2]


def test_ten_thousand_nodes_give_a_solution():
    """TSP and CVRP with 10,000 nodes at a time limit of one second: valid, whatever the machine."""
    rng = np.random.default_rng(0)
    xy = rng.random((10_000, 2))
    assert solve(Instance("tsp", "big", xy=xy), 0.5, method="iterated-2-opt").objective < 0.95 * np.sqrt(
        10_000
    )
    demand = np.r_[0, rng.integers(1, 10, 9_999)]
    answer = solve(Instance("cvrp", "big", xy=xy, demand=demand, limit=500), 0.0)
    assert answer.found_by == "savings"


def test_bad_calls_are_refused(tmp_path):
    """Missing file, negative time, unknown method, policy without weights."""
    item = from_arrays("kp", generate.kp(np.random.default_rng(0), 1, 20), 0)
    with pytest.raises(InstanceError, match="found none"):
        solve(tmp_path / "nowhere.tsp")
    with pytest.raises(BqncoError, match="time limit"):
        solve(item, -1.0)
    with pytest.raises(BqncoError, match="expected a method"):
        solve(item, 1.0, method="oracle")
    timed = from_arrays("cvrptw", generate.cvrptw(np.random.default_rng(0), 1, 8), 0)
    if weights.shipped("cvrptw") is None:
        with pytest.raises(WeightsError, match="no trained weights for cvrptw"):
            solve(timed, 1.0, method="policy")


def test_weights_round_trip_and_are_guarded(tmp_path, small_networks):
    """Saved, loaded, equal within half precision; a flipped byte, another problem, a missing card are refused."""
    path = tmp_path / "w.safetensors"
    weights.save(path, small_networks["tsp"], {"licence": "Apache-2.0"})
    policy = BQPolicy.load(path, "tsp")
    arrays = generate.tsp(np.random.default_rng(0), 3, 12)
    assert policy.solve(arrays).cost.shape == (3,)
    with pytest.raises(WeightsError, match="for cvrp, got weights for tsp"):
        weights.load(path, "cvrp")
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(WeightsError, match="SHA-256"):
        weights.load(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match="provenance card"):
        weights.load(path)


def test_shipped_weights_have_cards_and_beat_nearest_neighbour():
    """Every file in the package: checksum, card, size; the TSP model's greedy is better than nearest neighbour."""
    from sfumato_bqnco.baselines.construct import nearest_neighbour
    from sfumato_bqnco.distances import Metric

    for path in weights.FOLDER.glob("*.safetensors"):
        network = weights.load(path, path.stem)
        about = weights.card(path)
        assert path.stat().st_size <= weights.MOST_BYTES and about["parameters"] == network.n_parameters
        assert {"labels", "training", "licence", "validation"} <= set(about)
    if weights.shipped("tsp") is None:
        pytest.skip("no weights for the TSP in this build")
    arrays = generate.tsp(np.random.default_rng(5), 8, 50)
    cost = BQPolicy.shipped("tsp").solve(arrays).cost
    metrics = [Metric("euclid", xy) for xy in arrays["xy"]]
    tours = [nearest_neighbour(m) for m in metrics]
    nearest = [float(m(t, np.roll(t, -1)).sum()) for m, t in zip(metrics, tours, strict=True)]
    assert cost.mean() < np.mean(nearest)


@pytest.mark.parametrize("problem", ["tsp", "atsp", "cvrp", "cvrptw", "op", "kp"])
def test_reconstruction_never_harms_and_keeps_its_books(problem, small_networks):
    """From a random network's greedy: costs fall monotonically and equal the validator's objective."""
    from sfumato_bqnco.decode import greedy

    arrays = generate.random_set(problem, np.random.default_rng(3), 3, 24)
    env = environment(problem, arrays)
    scorer = Scorer(small_networks[problem])
    found = greedy(scorer, env)
    heard = [found.cost.numpy()]
    made, cost = reconstruct(
        scorer,
        env,
        plans(problem, found),
        np.random.default_rng(0),
        n_rounds=12,
        on_round=lambda c: heard.append(c),
    )
    assert all((b <= a + 1e-9).all() for a, b in itertools.pairwise(heard))
    assert problem in ("op", "kp") or (cost < heard[0]).any()
    for b, plan in enumerate(made):
        item = from_arrays(problem, arrays, b)
        value = objective(item, plan)
        assert cost[b] == pytest.approx(-value if item.maximise else value, rel=1e-6)


def test_the_command_line_writes_solution_and_json(tmp_path):
    """`solve FILE -o FILE.sol --json`, and the exit status of a bad file."""
    from click.testing import CliRunner

    from sfumato_bqnco.cli import solve as command
    from sfumato_bqnco.readers import read_solution

    content = {"problem": "cvrp", "xy": [[0, 0], [3, 4], [6, 8], [0, 5]], "demand": [0, 4, 5, 6], "limit": 10}
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content))
    result = CliRunner().invoke(
        command, [str(path), "--time-limit", "0.1", "-o", str(tmp_path / "c.sol"), "--json"]
    )
    assert result.exit_code == 0, result.output
    said = json.loads(result.output.splitlines()[-1])
    assert said["objective"] == 30.0 and sorted(map(sorted, read_solution(tmp_path / "c.sol")[0])) == [
        [1, 2],
        [3],
    ]
    path.write_text("{")
    result = CliRunner().invoke(command, [str(path)])
    assert result.exit_code == 2 and "c.json:1" in result.output


@pytest.mark.optional
def test_time_windows_are_solved_exactly_on_time():
    """Ten customers with windows: the validator, which rounds nothing, accepts every PyVRP answer."""
    pytest.importorskip("pyvrp", reason="needs the optional package pyvrp")
    rng = np.random.default_rng(4)
    xy = rng.uniform(0, 50, (11, 2))
    ready = np.r_[0, rng.uniform(0, 60, 10)]
    windows = np.column_stack((ready, ready + 80))
    windows[0] = (0, 400)
    demand = np.r_[0, rng.integers(1, 5, 10)]
    item = Instance(
        "cvrptw", "w", xy=xy, limit=12, demand=demand, windows=windows, service=np.r_[0, np.full(10, 3.0)]
    )
    answer = solve(item, 0.3)
    assert answer.found_by.startswith("pyvrp") and answer.objective == objective(item, answer.solution)
    assert solve(item, 0.0).found_by == "time-insertion"


def test_the_log_says_why_the_policy_was_left_out():
    """Too little time for it: said so, in seconds."""
    item = from_arrays("tsp", generate.tsp(np.random.default_rng(1), 1, 60), 0)
    log = solve(item, 0.2).log
    assert any(e.part == "policy" and "left out: would take" in e.remark for e in log)


def test_pictures_are_drawn(tmp_path):
    """An SVG with a faint way out and back for each route; other suffixes and instances without coordinates are refused."""
    from sfumato_bqnco.plots import draw_solution

    item = from_arrays("cvrp", generate.cvrp(np.random.default_rng(0), 1, 12, capacity=20), 0)
    answer = solve(item, 0.0)
    draw_solution(item, answer.solution, tmp_path / "a.svg", "a < b")
    text = (tmp_path / "a.svg").read_text()
    assert text.count("stroke-opacity") == 2 * len(answer.solution) and "a &lt; b" in text
    with pytest.raises(BqncoError, match="suffix"):
        draw_solution(item, answer.solution, tmp_path / "a.gif")
    matrix = Instance("atsp", "m", "EXPLICIT", matrix=np.ones((3, 3)))
    with pytest.raises(BqncoError, match="coordinates"):
        draw_solution(matrix, [0, 1, 2], tmp_path / "b.svg")


@pytest.mark.parametrize("problem", ["tsp", "cvrp", "op"])
def test_the_network_steps_back_when_its_first_pass_shows_it_would_be_late(problem):
    """The estimate is measured on the instance itself, so no constant of another machine can overrun the limit."""
    from sfumato_bqnco.solving import _Run

    item = from_arrays(problem, generate.random_set(problem, np.random.default_rng(0), 1, 30), 0)
    run = _Run(item, 10.0, np.random.default_rng(0), None)
    assert not run.policy(None, 1, share=0.0, most=0.0)
    assert run.best is None and "left out: construction would take about" in run.log[-1].remark
    assert run.policy(None, 1, share=0.0, most=1e9) and run.best is not None


def test_time_windows_with_thousands_of_customers_have_a_quick_construction():
    """Serving whoever can be served soonest is on time everywhere; a customer out of reach is a clear error."""
    import attrs

    item = from_arrays("cvrptw", generate.random_set("cvrptw", np.random.default_rng(0), 1, 300), 0)
    plan = methods.run("time-nearest", item, 0.0, np.random.default_rng(0))
    assert objective(item, plan) > 0
    late = item.windows.copy()
    late[5] = (0.0, 0.0)
    with pytest.raises(BqncoError, match="on time"):
        methods.run("time-nearest", attrs.evolve(item, windows=late), 0.0, np.random.default_rng(0))


def test_pyvrp_is_left_out_where_its_model_would_take_all_the_time():
    """The construction stands, and the log says why."""
    item = from_arrays("cvrptw", generate.random_set("cvrptw", np.random.default_rng(0), 1, 400), 0)
    answer = solve(item, 0.05)
    assert answer.found_by == "time-insertion"
    assert any(e.part == "pyvrp" and "left out" in e.remark for e in answer.log)


def test_large_orienteering_needs_no_matrix():
    """3,000 nodes by distances on the fly: feasible, and the same greedy answer as with the matrix."""
    from sfumato_bqnco.baselines import op_local

    arrays = generate.random_set("op", np.random.default_rng(0), 1, 3000)
    item = from_arrays("op", arrays, 0)
    plan = methods.run("prize-greedy", item, 0.0, np.random.default_rng(0))
    objective(item, plan)
    metric = item.metric()
    full = type(metric)("matrix", metric.xy, metric.full())
    assert plan == op_local.ruin_recreate(full, item.prize, item.limit, np.random.default_rng(0))

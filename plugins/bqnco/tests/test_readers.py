"""Instance files: every kind, and every fault with file and line."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato_bqnco.errors import InstanceError
from sfumato_bqnco.readers import read, read_solution
from sfumato_bqnco.validate import objective
from sfumato_bqnco.writers import write_solution

CVRP = """NAME : tiny
TYPE : CVRP
DIMENSION : 4
EDGE_WEIGHT_TYPE : EUC_2D
CAPACITY : 10
NODE_COORD_SECTION
1 0 0
2 3 4
3 6 8
4 0 5
DEMAND_SECTION
1 0
2 4
3 5
4 6
DEPOT_SECTION
1
-1
EOF
"""


def put(folder, text, name="tiny.vrp"):
    path = folder / name
    path.write_text(text)
    return path


def test_every_staged_file_parses_and_every_solution_has_its_stated_value(routing):
    """104 instances; 33 CVRPLIB and 18 OPLib solutions re-evaluate exactly."""
    with (routing / "best_known.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 104
    for row in rows:
        path = routing / row["file"]
        item = read(path)
        assert (item.problem, item.n) == (row["problem"], int(row["dimension"]))
        if item.problem in ("cvrp", "op"):
            plan, stated = read_solution(path.with_suffix(".sol" if item.problem == "cvrp" else ".ea4op.sol"))
            assert objective(item, plan) == stated == float(row["reference_value"])


def test_a_small_file_means_what_it_says(tmp_path):
    """Distances 5, 5, 5, 10 by hand; routes [1, 2] and [3]."""
    item = read(put(tmp_path, CVRP))
    assert item.limit == 10 and item.demand.tolist() == [0, 4, 5, 6]
    assert objective(item, [[1, 2], [3]]) == 5 + 5 + 10 + 5 + 5


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("TYPE : CVRP", "TYPE : VRPPD", ":2: expected TYPE"),
        ("DIMENSION : 4", "DIMENSION : four", ":3: expected a number"),
        ("DIMENSION : 4", "DIMENSION : 5", "node 5 is missing"),
        ("CAPACITY : 10\n", "", "the entry CAPACITY"),
        ("2 3 4", "2 3", ":8: expected 3 values"),
        ("2 3 4", "2 nan 4", ":8: expected a finite number"),
        ("3 6 8", "2 6 8", ":9: expected each node once"),
        ("3 6 8", "9 6 8", ":9: expected a node number from 1 to 4"),
        ("2 4\n", "2 -4\n", "a demand of at least 0, got -4"),
        ("2 4\n", "2 4.5\n", "an integer for a demand, got 4.5"),
        ("2 4\n", "2 11\n", "a demand of at most the capacity 10, got 11"),
        ("1 0\n2 4", "1 3\n2 4", "demand 0 at the depot"),
        ("DEMAND_SECTION", "PICKUP_SECTION", "expected a section"),
        ("DEPOT_SECTION\n1\n-1\n", "", "a DEPOT_SECTION"),
        ("DEPOT_SECTION\n1\n", "DEPOT_SECTION\n2\n", "demand 0 at the depot"),
        ("EUC_2D", "XRAY1", ":4: expected EDGE_WEIGHT_TYPE"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path, old, new, expected):
    """Each fault raises InstanceError naming what was expected and found."""
    assert old in CVRP
    with pytest.raises(InstanceError) as caught:
        read(put(tmp_path, CVRP.replace(old, new, 1)))
    assert expected in str(caught.value) and "tiny.vrp" in str(caught.value)


MATRIX = [[0, 1, 2, 3], [1, 0, 4, 5], [2, 4, 0, 6], [3, 5, 6, 0]]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("FULL_MATRIX", "0 1 2 3 1 0 4 5 2 4 0 6 3 5 6 0"),
        ("UPPER_ROW", "1 2 3 4 5 6"),
        ("UPPER_DIAG_ROW", "0 1 2 3 0 4 5 0 6 0"),
        ("LOWER_ROW", "1 2 4 3 5 6"),
        ("LOWER_DIAG_ROW", "0 1 0 2 4 0 3 5 6 0"),
        ("UPPER_COL", "1 2 4 3 5 6"),
        ("LOWER_COL", "1 2 3 4 5 6"),
        ("UPPER_DIAG_COL", "0 1 0 2 4 0 3 5 6 0"),
        ("LOWER_DIAG_COL", "0 1 2 3 0 4 5 0 6 0"),
    ],
)
def test_all_matrix_formats_give_the_same_matrix(tmp_path, kind, values):
    """One matrix by hand in TSPLIB's nine layouts, with line breaks in odd places."""
    head = f"NAME: m\nTYPE: TSP\nDIMENSION: 4\nEDGE_WEIGHT_TYPE: EXPLICIT\nEDGE_WEIGHT_FORMAT: {kind}\n"
    tokens = values.split()
    body = "\n".join([" ".join(tokens[:3]), " ".join(tokens[3:])])
    item = read(put(tmp_path, f"{head}EDGE_WEIGHT_SECTION\n{body}\nEOF\n", "m.tsp"))
    assert item.matrix.tolist() == MATRIX


def test_a_short_matrix_and_an_asymmetric_tsp_are_refused(tmp_path):
    """The count of weights and the symmetry are checked."""
    head = "NAME: m\nTYPE: TSP\nDIMENSION: 2\nEDGE_WEIGHT_TYPE: EXPLICIT\nEDGE_WEIGHT_FORMAT: FULL_MATRIX\n"
    with pytest.raises(InstanceError, match="expected 4 weights"):
        read(put(tmp_path, head + "EDGE_WEIGHT_SECTION\n0 1 1\n", "m.tsp"))
    with pytest.raises(InstanceError, match="symmetric"):
        read(put(tmp_path, head + "EDGE_WEIGHT_SECTION\n0 1 2 0\n", "m.tsp"))


@pytest.mark.parametrize("kind", ["EUC_2D", "CEIL_2D", "MAN_2D", "MAX_2D", "ATT", "GEO"])
def test_edge_weights_agree_with_the_tsplib95_package(tmp_path, kind):
    """All planar types against an independent implementation; validator and matrix agree with each other too."""
    tsplib95 = pytest.importorskip("tsplib95.distances", reason="needs the optional tsplib95")
    from sfumato_bqnco.validate import leg

    oracle = {
        "EUC_2D": tsplib95.euclidean, "MAN_2D": tsplib95.manhattan, "MAX_2D": tsplib95.maximum, "GEO":
        tsplib95.geographical, "ATT": tsplib95.pseudo_euclidean,
        "CEIL_2D": lambda a, b: tsplib95.euclidean(a, b, round=lambda x: int(np.ceil(x))),
    }[kind]  # fmt: skip
    xy = np.random.default_rng(0).uniform(0, 80, (12, 2)).round(2)
    rows = "\n".join(f"{i} {x} {y}" for i, (x, y) in enumerate(xy, 1))
    text = f"NAME: p\nTYPE: TSP\nDIMENSION: 12\nEDGE_WEIGHT_TYPE: {kind}\nNODE_COORD_SECTION\n{rows}\nEOF\n"
    item = read(put(tmp_path, text, "p.tsp"))
    full = item.metric().full()
    for i in range(12):
        for j in range(12):
            if i != j:
                assert full[i, j] == leg(item, i, j) == oracle(tuple(xy[i]), tuple(xy[j]))


def test_solomon_files_carry_windows(tmp_path):
    """The Gehring-Homberger form; a late route is refused by the validator."""
    from sfumato_bqnco.errors import InfeasibleSolution

    text = """TINY

VEHICLE
NUMBER     CAPACITY
  3         10

CUSTOMER
CUST NO.  XCOORD.  YCOORD.  DEMAND  READY TIME  DUE DATE  SERVICE TIME

0  0  0  0  0  100  0
1  3  4  4  0   20  1
2  6  8  5  0   10  1
"""
    item = read(put(tmp_path, text, "c.txt"))
    assert item.problem == "cvrptw" and item.windows.tolist() == [[0, 100], [0, 20], [0, 10]]
    assert objective(item, [[1], [2]]) == 30.0
    with pytest.raises(InfeasibleSolution, match="reaches 2 at 11"):
        objective(item, [[1, 2]])
    with pytest.raises(InstanceError, match="window"):
        read(put(tmp_path, text.replace("0   10  1", "19   10  1"), "c.txt"))


def test_json_and_npz_say_the_same(tmp_path):
    """A knapsack in both forms, and the faults of a mapping."""
    content = {"problem": "kp", "value": [3, 2, 1], "weight": [2, 2, 1], "limit": 3}
    a = read(put(tmp_path, json.dumps(content), "k.json"))
    np.savez(tmp_path / "k.npz", **content)
    b = read(tmp_path / "k.npz")
    assert a.value.tolist() == b.value.tolist() == [3, 2, 1] and a.limit == b.limit == 3
    for change, expected in (({"value": [3, 2]}, "shape"), ({"weight": [1, -1, 2]}, "at least 0"), ({"limit": None}, "numbers"),
                             ({"value": [1, 2, float("nan")]}, "finite"), ({"problem": "vrp"}, "problem")):  # fmt: skip
        with pytest.raises(InstanceError, match=expected):
            read(put(tmp_path, json.dumps(content | change), "k.json"))


def test_written_solutions_read_back(tmp_path):
    """`.sol` and `.tour` round trips."""
    item = read(put(tmp_path, CVRP))
    write_solution(tmp_path / "a.sol", item, [[1, 2], [3]], 30)
    assert read_solution(tmp_path / "a.sol") == ([[1, 2], [3]], 30.0)
    tour = read(put(tmp_path, CVRP.replace("TYPE : CVRP", "TYPE : TSP"), "t.tsp"))
    write_solution(tmp_path / "a.tour", tour, [0, 2, 1, 3], 1)
    assert read_solution(tmp_path / "a.tour") == ([0, 2, 1, 3], None)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(CVRP) - 1), junk=st.text(max_size=8))
def test_mangled_text_never_escapes_the_typed_error(tmp_path_factory, cut, junk):
    """Any insertion or truncation either parses or raises InstanceError."""
    folder = tmp_path_factory.mktemp("mangled")
    for text in (CVRP[:cut], CVRP[:cut] + junk + CVRP[cut:]):
        path = folder / "x.vrp"
        path.write_text(text, encoding="utf-8", errors="replace")
        try:
            read(path)
        except InstanceError:
            pass


def test_a_customer_that_no_vehicle_can_serve_is_named_with_its_line(tmp_path):
    """Solomon's form: a window that closes before anyone can be there, and one from which nobody gets home."""
    text = (
        "T1\n\nVEHICLE\nNUMBER CAPACITY\n 5 200\n\nCUSTOMER\nCUST NO. XCOORD. YCOORD. DEMAND READY DUE SERVICE\n\n"
        " 0 0 0 0 0 100 0\n 1 30 0 10 0 {} 10\n 2 40 0 10 {} 90 10\n"
    )
    path = tmp_path / "t.txt"
    path.write_text(text.format(60, 0))
    assert read(path).n == 3
    for early, line in ((text.format(20, 0), 11), (text.format(60, 55), 12)):
        path.write_text(early)
        with pytest.raises(InstanceError, match=f"t.txt:{line}: expected a customer that a vehicle"):
            read(path)


_HEAD = "NAME : x\nTYPE : {0}\nDIMENSION : {1}\nEDGE_WEIGHT_TYPE : EUC_2D\n"
_FAULTS = {
    "huge.tsp": (_HEAD.format("TSP", 10**12) + "NODE_COORD_SECTION\n1 0 0\n2 1 1\nEOF\n", r":3: expected a DIMENSION"),
    "far.tsp": (_HEAD.format("TSP", 2) + "NODE_COORD_SECTION\n1 0 0\n2 1e300 1\nEOF\n", r":7: expected a coordinate of at most"),
    "cap.vrp": (
        _HEAD.format("CVRP", 1) + "CAPACITY : -6\nNODE_COORD_SECTION\n1 0 0\nDEMAND_SECTION\n1 0\nDEPOT_SECTION\n1\n-1\nEOF\n",
        r":5: expected CAPACITY of at least 1",
    ),
    "empty.json": ('{"problem": "kp", "value": [], "weight": [], "limit": 1}', "at least one node or item"),
    "limits.json": ('{"problem": "kp", "value": [1], "weight": [1], "limit": [1, 2]}', "one number for 'limit'"),
    "kind.json": ('{"problem": "tsp", "xy": [[0, 0], [1, 1]], "weight_type": "FOO"}', "expected weight_type"),
    "matrix.json": ('{"problem": "tsp", "xy": [[0, 0], [1, 1]], "weight_type": "EXPLICIT"}', "the key 'matrix'"),
    "far.json": ('{"problem": "tsp", "xy": [[0, 0], [1e300, 1]]}', "numbers of at most"),
}  # fmt: skip
_SOLOMON = "R\n\nVEHICLE\nNUMBER CAPACITY\n 5 {0}\n\nCUSTOMER\nCUST NO. XCOORD. YCOORD. DEMAND READY DUE SERVICE\n{1}\n1 1 1 3 0 50 {2}\n"
_FAULTS |= {
    "capacity.txt": (_SOLOMON.format(-1, "0 0 0 0 0 100 0", 1), ":5: expected a capacity of at least 1"),
    "depot.txt": (_SOLOMON.format(9, "0 0 0 5 0 100 0", 1), ":9: expected demand 0 at the depot"),
    "service.txt": (_SOLOMON.format(9, "0 0 0 0 0 100 0", -1), ":10: expected a service time of at least 0"),
}


@pytest.mark.parametrize("name", sorted(_FAULTS))
def test_faults_found_by_attack_are_typed_errors(tmp_path, name):
    """Each of these crashed or passed in silence once."""
    text, message = _FAULTS[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(InstanceError, match=message):
        read(tmp_path / name)

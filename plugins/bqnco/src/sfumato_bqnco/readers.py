"""Read instance and solution files: TSPLIB, CVRPLIB, OPLib, Solomon and Gehring-Homberger, npz and JSON.

Every fault raises InstanceError with file, line, what was expected, what was found and what to do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InstanceError
from .instances import Instance, Plan

_TYPES = {"TSP": "tsp", "ATSP": "atsp", "CVRP": "cvrp", "OP": "op"}
_PLANAR = ("EUC_2D", "CEIL_2D", "MAN_2D", "MAX_2D", "ATT", "GEO", "EXACT_2D")
_FORMATS = (
    "FULL_MATRIX", "UPPER_ROW", "LOWER_ROW", "UPPER_DIAG_ROW", "LOWER_DIAG_ROW",
    "UPPER_COL", "LOWER_COL", "UPPER_DIAG_COL", "LOWER_DIAG_COL",
)  # fmt: skip
_SECTIONS = (
    "NODE_COORD_SECTION", "DEMAND_SECTION", "DEPOT_SECTION", "EDGE_WEIGHT_SECTION", "NODE_SCORE_SECTION",
    "DISPLAY_DATA_SECTION", "TOUR_SECTION", "NODE_SEQUENCE_SECTION", "FIXED_EDGES_SECTION",
)  # fmt: skip

# Distances beyond this are no longer whole in float64.
_FARTHEST = 1e15

_Line = tuple[int, str]


def read(path: str | Path) -> Instance:
    """Read an instance; the kind is told from the suffix and, for `.txt`, from the content.

    `.tsp`, `.atsp`, `.vrp`, `.oplib`: TSPLIB form. `.txt`: Solomon or Gehring-Homberger. `.json`, `.npz`: this
    package's own (`read_json`). Raises InstanceError.
    """
    path = Path(path)
    if not path.is_file():
        raise InstanceError(f"{path}: expected an instance file, found none; check the path")
    if path.suffix == ".npz":
        return _from_mapping(path, _load_npz(path))
    try:
        text = path.read_text(encoding="utf-8", errors="strict")
    except UnicodeDecodeError as error:
        raise InstanceError(
            f"{path}: expected text, found bytes that are no UTF-8 ({error}); convert the file"
        ) from error
    if path.suffix == ".json":
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise InstanceError(
                f"{path}:{error.lineno}: expected JSON, {error.msg}; mend the file"
            ) from error
        return _from_mapping(path, content)
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if any(line.upper().startswith("CUST") for _, line in lines[:12]):
        return _read_solomon(path, lines)
    return _read_tsplib(path, lines)


def _fail(path: Path, line: int | None, expected: str, got: str, advice: str) -> InstanceError:
    where = f"{path}:{line}" if line else f"{path}"
    return InstanceError(f"{where}: expected {expected}, got {got}; {advice}")


def _number(path: Path, line: int, token: str, what: str) -> float:
    try:
        number = float(token)
    except ValueError:
        raise _fail(path, line, f"a number for {what}", repr(token), "mend this line") from None
    if not math.isfinite(number):
        raise _fail(path, line, f"a finite number for {what}", token, "mend this line")
    return number


def _coordinate(path: Path, line: int, token: str) -> float:
    number = _number(path, line, token, "a coordinate")
    if abs(number) > _FARTHEST:
        raise _fail(path, line, f"a coordinate of at most {_FARTHEST:g}", token, "squares would overflow: scale it down")
    return number


def _whole(path: Path, line: int, token: str, what: str) -> int:
    number = _number(path, line, token, what)
    if number != int(number):
        raise _fail(path, line, f"an integer for {what}", token, "scale the file's values to integers")
    return int(number)


def _blocks(path: Path, lines: list[_Line]) -> tuple[dict[str, tuple[int, str]], dict[str, list[_Line]]]:
    """Header entries (line, value) and sections (their lines)."""
    header: dict[str, tuple[int, str]] = {}
    sections: dict[str, list[_Line]] = {}
    current: list[_Line] | None = None
    for number, line in lines:
        name = line.split(":")[0].strip().upper()
        if name == "EOF":
            break
        if name.endswith("_SECTION"):
            if name not in _SECTIONS:
                raise _fail(
                    path, number, "a section that TSPLIB, CVRPLIB or OPLib knows", name, "remove it if unused"
                )
            if name in sections:
                raise _fail(path, number, f"one {name}", "a second one", "remove one of them")
            current = sections.setdefault(name, [])
            rest = line.split(":", 1)[1].strip() if ":" in line else ""
            if rest:
                current.append((number, rest))
        elif ":" in line and not line[0].isdigit() and line[0] != "-":
            key, value = line.split(":", 1)
            header[key.strip().upper()] = (number, value.strip().strip('"'))
            current = None
        elif current is not None:
            current.append((number, line))
        else:
            raise _fail(path, number, "'KEY : value' or a section", repr(line[:40]), "mend this line")
    return header, sections


def _table(
    path: Path, section: str, lines: list[_Line], n: int, width: int
) -> Iterator[tuple[int, int, list[str]]]:
    """Rows of a section keyed by node number, each node once: (line, node from 0, values)."""
    seen: dict[int, int] = {}
    for number, line in lines:
        tokens = line.split()
        if len(tokens) < width + 1:
            raise _fail(path, number, f"{width + 1} values in {section}", repr(line), "complete this line")
        node = _whole(path, number, tokens[0], "the node number")
        if not 1 <= node <= n:
            raise _fail(
                path, number, f"a node number from 1 to {n}", str(node), "DIMENSION or this line is wrong"
            )
        if node in seen:
            raise _fail(path, number, f"each node once in {section}", f"node {node}, also on line {seen[node]}",
                        "remove one")  # fmt: skip
        seen[node] = number
        yield number, node - 1, tokens[1:]
    if len(seen) != n:
        missing = next(i for i in range(1, n + 1) if i not in seen)
        last = lines[-1][0] if lines else None
        raise _fail(
            path, last, f"{n} nodes in {section}", f"{len(seen)} (node {missing} is missing)", "complete it"
        )


def _read_tsplib(path: Path, lines: list[_Line]) -> Instance:
    header, sections = _blocks(path, lines)

    def need(key: str) -> tuple[int, str]:
        if key not in header:
            raise _fail(path, None, f"the entry {key}", "none", f"add a line '{key} : ...'")
        return header[key]

    line, kind = need("TYPE")
    kind = kind.split()[0].upper() if kind else ""
    if kind not in _TYPES:
        raise _fail(
            path, line, f"TYPE {', '.join(_TYPES)}", kind or "nothing", "other problems are not solved here"
        )
    problem = _TYPES[kind]
    line, value = need("DIMENSION")
    n = _whole(path, line, value, "DIMENSION")
    if n < 1:
        raise _fail(path, line, "DIMENSION of at least 1", str(n), "mend this line")
    longest = max((sum(len(row.split()) for _, row in rows) for rows in sections.values()), default=0)
    if sections and n > max(longest, 1):
        # Said before anything of that size is laid out in memory.
        raise _fail(path, line, f"a DIMENSION that the sections fill (the longest has {longest} values)", str(n),
                    "mend this line or complete the file")  # fmt: skip
    line, weight_type = need("EDGE_WEIGHT_TYPE")
    weight_type = weight_type.upper()
    if weight_type not in (*_PLANAR, "EXPLICIT"):
        raise _fail(path, line, f"EDGE_WEIGHT_TYPE {', '.join(_PLANAR)} or EXPLICIT", weight_type,
                    "convert the file to EXPLICIT")  # fmt: skip
    if "DISTANCE" in header and problem == "cvrp":
        raise _fail(path, header["DISTANCE"][0], "a CVRP without route length limits", "DISTANCE",
                    "this variant is not solved here")  # fmt: skip
    xy = None
    coordinates = sections.get("NODE_COORD_SECTION")
    if coordinates is None and weight_type == "EXPLICIT":
        coordinates = sections.get("DISPLAY_DATA_SECTION")
    if coordinates is not None:
        xy = np.zeros((n, 2))
        for number, node, tokens in _table(path, "NODE_COORD_SECTION", coordinates, n, 2):
            xy[node] = [_coordinate(path, number, t) for t in tokens[:2]]
    elif weight_type != "EXPLICIT":
        raise _fail(path, None, "a NODE_COORD_SECTION", "none", "distances of this type need coordinates")
    matrix = _matrix(path, header, sections, n, problem) if weight_type == "EXPLICIT" else None
    name = header.get("NAME", (0, path.stem))[1] or path.stem
    extra: dict[str, Any] = {}
    depot = _depot(path, sections, n) if problem in ("cvrp", "op") else 0
    if problem == "cvrp":
        line, value = need("CAPACITY")
        extra["limit"] = float(_whole(path, line, value, "CAPACITY"))
        if extra["limit"] < 1:
            raise _fail(path, line, "CAPACITY of at least 1", value, "mend this line")
        extra["demand"] = _demands(path, sections, n, depot, extra["limit"])
    if problem == "op":
        line, value = need("COST_LIMIT")
        extra["limit"] = _number(path, line, value, "COST_LIMIT")
        if extra["limit"] < 0:
            raise _fail(path, line, "COST_LIMIT of at least 0", value, "mend this line")
        if "NODE_SCORE_SECTION" not in sections:
            raise _fail(path, None, "a NODE_SCORE_SECTION", "none", "an orienteering file needs scores")
        prize = np.zeros(n)
        for number, node, tokens in _table(path, "NODE_SCORE_SECTION", sections["NODE_SCORE_SECTION"], n, 1):
            prize[node] = _number(path, number, tokens[0], "a score")
            if prize[node] < 0:
                raise _fail(path, number, "a score of at least 0", tokens[0], "mend this line")
        extra["prize"] = prize
    if depot:
        order = np.r_[depot, np.delete(np.arange(n), depot)]
        raise _fail(path, None, "node 1 as the depot", f"node {depot + 1}",
                    f"renumber the nodes in the order {(order[:3] + 1).tolist()}...")  # fmt: skip
    return Instance(problem, name, weight_type, xy, matrix, **extra)


def _depot(path: Path, sections: dict[str, list[_Line]], n: int) -> int:
    lines = sections.get("DEPOT_SECTION")
    if not lines:
        raise _fail(path, None, "a DEPOT_SECTION", "none", "add one with the depot's number and -1")
    tokens = [(number, t) for number, line in lines for t in line.split()]
    depots = []
    for number, token in tokens:
        node = _whole(path, number, token, "the depot's number")
        if node == -1:
            break
        if not 1 <= node <= n:
            raise _fail(path, number, f"a depot from 1 to {n}", token, "mend this line")
        depots.append(node - 1)
    if len(depots) != 1:
        raise _fail(path, lines[0][0], "one depot", str(len(depots)), "several depots are not solved here")
    return depots[0]


def _demands(
    path: Path, sections: dict[str, list[_Line]], n: int, depot: int, capacity: float
) -> NDArray[np.int64]:
    if "DEMAND_SECTION" not in sections:
        raise _fail(path, None, "a DEMAND_SECTION", "none", "a CVRP file needs demands")
    demand = np.zeros(n, np.int64)
    for number, node, tokens in _table(path, "DEMAND_SECTION", sections["DEMAND_SECTION"], n, 1):
        demand[node] = _whole(path, number, tokens[0], "a demand")
        if demand[node] < 0:
            raise _fail(path, number, "a demand of at least 0", tokens[0], "mend this line")
        if demand[node] > capacity:
            raise _fail(path, number, f"a demand of at most the capacity {capacity:.0f}", tokens[0],
                        "no vehicle can serve this customer: split it, or raise CAPACITY")  # fmt: skip
        if node == depot and demand[node] != 0:
            raise _fail(path, number, "demand 0 at the depot", tokens[0], "mend this line")
    return demand


def _matrix(
    path: Path, header: dict[str, tuple[int, str]], sections: dict[str, list[_Line]], n: int, problem: str
) -> NDArray[np.float64]:
    if "EDGE_WEIGHT_FORMAT" not in header:
        raise _fail(path, None, "the entry EDGE_WEIGHT_FORMAT", "none", "EXPLICIT weights need one")
    line, kind = header["EDGE_WEIGHT_FORMAT"]
    kind = kind.upper()
    if kind not in _FORMATS:
        raise _fail(path, line, f"EDGE_WEIGHT_FORMAT {', '.join(_FORMATS)}", kind, "convert the file")
    lines = sections.get("EDGE_WEIGHT_SECTION")
    if not lines:
        raise _fail(path, None, "an EDGE_WEIGHT_SECTION", "none", "EXPLICIT weights need one")
    values = np.array([_number(path, number, t, "a weight") for number, row in lines for t in row.split()])
    # A column format lists the transposed triangle row by row.
    upper = kind.startswith("UPPER") != kind.endswith("COL")
    diagonal = "DIAG" in kind
    rows, columns = (
        np.indices((n, n)).reshape(2, -1)
        if kind == "FULL_MATRIX"
        else np.triu_indices(n, 0 if diagonal else 1)
        if upper
        else np.tril_indices(n, 0 if diagonal else -1)
    )
    if len(values) != len(rows):
        raise _fail(path, lines[-1][0], f"{len(rows)} weights ({kind}, {n} nodes)", str(len(values)),
                    "DIMENSION, EDGE_WEIGHT_FORMAT or the section is wrong")  # fmt: skip
    matrix = np.zeros((n, n))
    matrix[rows, columns] = values
    if kind != "FULL_MATRIX":
        matrix = (
            np.maximum(matrix, matrix.T)
            if (values >= 0).all()
            else matrix + np.triu(matrix, 1).T + np.tril(matrix, -1).T
        )
    np.fill_diagonal(matrix, 0.0)
    if problem != "atsp" and not (matrix == matrix.T).all():
        i, j = np.argwhere(matrix != matrix.T)[0]
        raise _fail(
            path,
            line,
            "a symmetric matrix",
            f"different weights between {i + 1} and {j + 1}",
            "use TYPE ATSP",
        )
    return matrix


def _read_solomon(path: Path, lines: list[_Line]) -> Instance:
    """Solomon and Gehring-Homberger: name, vehicles and capacity, then one row a customer from number 0."""
    name = lines[0][1]
    capacity = None
    rows: list[tuple[int, list[float]]] = []
    expect_vehicle = False
    for number, line in lines[1:]:
        tokens = line.split()
        if line.upper().startswith("NUMBER"):
            expect_vehicle = True
        elif expect_vehicle:
            if len(tokens) != 2:
                raise _fail(path, number, "number of vehicles and capacity", repr(line), "mend this line")
            capacity = _whole(path, number, tokens[1], "the capacity")
            if capacity < 1:
                raise _fail(path, number, "a capacity of at least 1", tokens[1], "mend this line")
            expect_vehicle = False
        elif tokens[0].lstrip("-").replace(".", "", 1).isdigit():
            if len(tokens) != 7:
                raise _fail(
                    path, number, "7 values: number, x, y, demand, ready, due, service", repr(line), "mend it"
                )
            places = [_coordinate(path, number, t) for t in tokens[1:3]]
            first, *rest = (_number(path, number, t, "a customer's value") for t in (tokens[0], *tokens[3:]))
            rows.append((number, [first, *places, *rest]))
    if capacity is None:
        raise _fail(path, None, "a VEHICLE section with NUMBER and CAPACITY", "none", "add it")
    if not rows:
        raise _fail(path, None, "a CUSTOMER section", "no rows", "add it")
    for i, (number, row) in enumerate(rows):
        if row[0] != i:
            raise _fail(
                path, number, f"customer number {i}", f"{row[0]:g}", "number the customers from 0 in order"
            )
        if row[3] != int(row[3]) or row[3] < 0:
            raise _fail(path, number, "a whole demand of at least 0", f"{row[3]:g}", "mend this line")
        if row[3] > capacity:
            raise _fail(
                path, number, f"a demand of at most the capacity {capacity}", f"{row[3]:g}", "split it"
            )
        if not i and row[3]:
            raise _fail(path, number, "demand 0 at the depot", f"{row[3]:g}", "mend this line")
        if row[6] < 0:
            raise _fail(path, number, "a service time of at least 0", f"{row[6]:g}", "mend this line")
        if row[4] > row[5]:
            raise _fail(
                path, number, "a window that opens before it closes", f"{row[4]:g} to {row[5]:g}", "mend it"
            )
        home = rows[0][1]
        way = math.hypot(row[1] - home[1], row[2] - home[2])
        start = max(home[4] + way, row[4])
        if i and (start > row[5] + 1e-6 or start + row[6] + way > home[5] + 1e-6):
            raise _fail(
                path, number, "a customer that a vehicle of its own can serve on time and be back",
                f"the way {way:.6g}, the window {row[4]:g} to {row[5]:g} and the depot's {home[4]:g} to {home[5]:g}",
                "mend this line",
            )  # fmt: skip
    table = np.array([row for _, row in rows])
    return Instance(
        "cvrptw", name, "EXACT_2D", table[:, 1:3].copy(), limit=float(capacity), demand=table[:, 3].astype(np.int64),
        windows=table[:, 4:6].copy(), service=table[:, 6].copy(),
    )  # fmt: skip


def _load_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {k: archive[k] for k in archive.files}
    except (ValueError, OSError) as error:
        raise _fail(
            path, None, "an npz archive of plain arrays", str(error), "write it with numpy.savez"
        ) from error


def _from_mapping(path: Path, content: Any) -> Instance:
    """One instance from JSON or npz: `problem`, and the arrays of `Instance` (`xy`, `matrix`, `demand`, `limit`, ...)."""
    if not isinstance(content, dict) or "problem" not in content:
        raise _fail(path, None, "an object with the key 'problem'", type(content).__name__, "see the README")
    problem = str(content["problem"])
    required = {
        "tsp": ("xy",), "atsp": ("matrix",), "cvrp": ("xy", "demand", "limit"), "op": ("xy", "prize", "limit"),
        "kp": ("value", "weight", "limit"),
    }  # fmt: skip
    if problem not in required:
        raise _fail(path, None, f"problem {', '.join(required)}", problem, "mend it")
    arrays: dict[str, Any] = {}
    for key in ("xy", "matrix", "demand", "prize", "value", "weight", "limit"):
        if key not in content:
            if key in required[problem]:
                raise _fail(path, None, f"the key '{key}' for problem {problem}", "none", "add it")
            continue
        try:
            array = np.asarray(content[key], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise _fail(path, None, f"numbers in '{key}'", str(error), "mend it") from error
        if not np.isfinite(array).all():
            raise _fail(path, None, f"finite numbers in '{key}'", "NaN or infinity", "mend it")
        if key not in ("xy", "matrix") and (array < 0).any():
            raise _fail(path, None, f"numbers of at least 0 in '{key}'", f"{array.min():g}", "mend it")
        if (key == "limit") != (array.ndim == 0):
            kind = "one number" if key == "limit" else "a list"
            raise _fail(path, None, f"{kind} for '{key}'", f"shape {array.shape}", "mend it")
        if key in ("xy", "matrix") and array.size and np.abs(array).max() > _FARTHEST:
            raise _fail(path, None, f"numbers of at most {_FARTHEST:g} in '{key}'", f"{np.abs(array).max():g}", "scale it")
        arrays[key] = float(array) if key == "limit" else array
    n = len(arrays[required[problem][0]])
    if not n:
        raise _fail(path, None, "at least one node or item", "none", "add some")
    for key, array in arrays.items():
        shape = {"xy": (n, 2), "matrix": (n, n)}.get(key, () if key == "limit" else (n,))
        if np.shape(array) != shape:
            raise _fail(path, None, f"shape {shape} for '{key}'", str(np.shape(array)), "mend it")
    if "demand" in arrays:
        demand = arrays["demand"]
        if (demand != np.floor(demand)).any():
            raise _fail(
                path, None, "whole demands", f"{demand[demand != np.floor(demand)][0]:g}", "scale them"
            )
        if demand[0] != 0 or demand.max() > arrays["limit"]:
            raise _fail(path, None, f"demand 0 at the depot and none above {arrays['limit']:g}",
                        f"{demand[0]:g} and {demand.max():g}", "mend it")  # fmt: skip
        arrays["demand"] = demand.astype(np.int64)
    weight_type = str(content.get("weight_type", "EXPLICIT" if problem == "atsp" else "EXACT_2D"))
    if weight_type not in (*_PLANAR, "EXPLICIT"):
        raise _fail(path, None, f"weight_type {', '.join(_PLANAR)} or EXPLICIT", weight_type, "mend it")
    if weight_type == "EXPLICIT" and problem != "kp" and "matrix" not in arrays:
        raise _fail(path, None, "the key 'matrix' for EXPLICIT weights", "none", "add it, or leave weight_type out")
    return Instance(problem, str(content.get("name", path.stem)), weight_type, **arrays)


def read_solution(path: str | Path) -> tuple[Plan, float | None]:
    """Read a CVRPLIB `.sol`, a TSPLIB `.tour` or an OPLib solution: the solution and its stated objective, if any."""
    path = Path(path)
    if not path.is_file():
        raise InstanceError(f"{path}: expected a solution file, found none; check the path")
    lines = [(i, line.strip()) for i, line in enumerate(path.read_text().splitlines(), 1) if line.strip()]
    if any(line.lower().startswith("route #") for _, line in lines):
        routes, cost = [], None
        for number, line in lines:
            low = line.lower()
            if low.startswith("route"):
                if ":" not in line:
                    raise _fail(path, number, "'Route #k: customers'", repr(line), "mend this line")
                routes.append([_whole(path, number, t, "a customer") for t in line.split(":", 1)[1].split()])
            elif low.startswith("cost"):
                cost = _number(path, number, line.replace(":", " ").split()[1], "the cost")
        return routes, cost
    header, sections = _blocks(path, lines)
    section = "TOUR_SECTION" if "TOUR_SECTION" in sections else "NODE_SEQUENCE_SECTION"
    if section not in sections:
        raise _fail(
            path, None, "routes, a TOUR_SECTION or a NODE_SEQUENCE_SECTION", "none", "check the file's kind"
        )
    nodes: list[int] = []
    for number, token in ((number, t) for number, line in sections[section] for t in line.split()):
        node = _whole(path, number, token, "a node")
        if node == -1:
            break
        nodes.append(node - 1)
    if section == "TOUR_SECTION":
        return nodes, None
    if not nodes or nodes[0] != 0:
        raise _fail(
            path,
            sections[section][0][0],
            "a sequence that begins at the depot, node 1",
            str(nodes[:1]),
            "mend it",
        )
    score = header.get("ROUTE_SCORE")
    return nodes[1:], _number(path, *score, "ROUTE_SCORE") if score else None

"""German Credit and COMPAS: read from files whose SHA-256 is known, never downloaded in silence.

German Credit (UCI Statlog, data set 144, Hans Hofmann, CC BY 4.0). COMPAS two-year file (ProPublica, "Machine
Bias", 2016; no licence stated upstream, attribute ProPublica). Rows of COMPAS are real people: names and birth
dates are dropped on loading.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.errors import OfsError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

GERMAN_FILE = "fairness/german.data"
GERMAN_SHA256 = "b21f3d81db8071257d5ff1deaeba1fd4303b62712e6fcc9715c7a86202cb5871"
GERMAN_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/statlog/german/german.data"

COMPAS_MINIMAL_FILE = "fairness/compas-two-years-minimal.csv"
COMPAS_MINIMAL_SHA256 = "742d7c97deb4e55db4a0ef8b81ccf37c59f989d07d893334703d9895b2c00947"
COMPAS_FILE = "fairness/compas-scores-two-years.csv"
COMPAS_SHA256 = "c451db85908b2f7fef1d83203bedf6b71ecda0d5af468d82ae62178f91d0cc7d"
COMPAS_URL = (
    "https://raw.githubusercontent.com/propublica/compas-analysis/bafff5da3f2e45eca6c2d5055faad269defd135a/"
    "compas-scores-two-years.csv"
)

_COMPAS_NUMBERS = ("age", "priors_count", "juv_fel_count", "juv_misd_count", "juv_other_count")
_COMPAS_CATEGORIES = ("sex", "c_charge_degree")


@attrs.frozen
class Table:
    """A data set ready for a score model.

    Attributes:
        numbers: float array [R, P].
        categories: string array [R, Q].
        good: outcome, 1 is good, int array [R].
        groups: int array [R], 1 is the group named by the loader.
    """

    numbers: FloatArray
    categories: NDArray[np.str_]
    good: IntArray
    groups: IntArray

    def __len__(self) -> int:
        return len(self.good)


def _present(path: Path) -> None:
    """Raise OfsError where there is no such file, saying what fetches it."""
    if not path.is_file():
        raise OfsError(
            f"{path}: there is no such file. 'sfumato ofs fetch --data-dir DIR' downloads it and checks its SHA-256; tasks look for "
            "it in the folder that SFUMATO_DATA (or --data-dir) names"
        )


def check_hash(path: Path, accepted: Sequence[str]) -> None:
    """Raise unless the file is there and its SHA-256 is one of the accepted ones."""
    _present(path)
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got not in accepted:
        raise OfsError(
            f"{path.name}: expected SHA-256 {' or '.join(accepted)}, got {got}. Several public copies carry altered "
            "rows; fetch the file anew with 'sfumato ofs fetch'."
        )


def load_german(path: str | Path, *, group: str = "age", verify: bool = True) -> Table:
    """Read UCI's german.data: 1000 rows of 21 space-separated fields, field 21 equal to 1 is good.

    Arguments:
        group: `age` makes group 1 those aged 25 or less (190 rows); `sex` makes it code A92 of field 9 (310 rows)
            and removes that field from the score model's inputs.
        verify: check the SHA-256 first.

    Raises: OfsError when there is no such file, or its hash or shape does not fit.
    """
    path = Path(path)
    if verify:
        check_hash(path, (GERMAN_SHA256,))
    _present(path)
    rows = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    if not rows or any(len(row) != 21 for row in rows):
        raise OfsError(
            f"{path.name}: expected rows of 21 fields separated by spaces, got {len(rows)} rows of "
            f"{sorted({len(row) for row in rows})} fields"
        )
    fields = list(range(20))
    if group == "sex":
        groups = np.array([row[8] == "A92" for row in rows], dtype=np.int64)
        fields.remove(8)
    elif group == "age":
        groups = np.array([int(row[12]) <= 25 for row in rows], dtype=np.int64)
    else:
        raise OfsError(f"group must be age or sex, got {group!r}")
    # Codes are categorical although they look ordered: every one starts with the letter A.
    coded = [j for j in fields if rows[0][j].startswith("A")]
    plain = [j for j in fields if j not in coded]
    return Table(
        numbers=np.array([[float(row[j]) for j in plain] for row in rows]),
        categories=np.array([[row[j] for j in coded] for row in rows]),
        good=np.array([row[20] == "1" for row in rows], dtype=np.int64),
        groups=groups,
    )


def load_compas(path: str | Path, *, verify: bool = True) -> Table:
    """Read ProPublica's two-year file, full (53 columns) or reduced to the 17 columns needed.

    ProPublica's filter is applied: screening within 30 days of arrest, `is_recid` known, no ordinary traffic offence,
    a score present. Kept are African-American (group 1, 3175 rows) and Caucasian (group 0, 2103 rows); race is not
    an input of the score model. Good means no recidivism within two years.

    Raises: OfsError when there is no such file, or its hash, a column or the row count does not fit.
    """
    path = Path(path)
    if verify:
        check_hash(path, (COMPAS_MINIMAL_SHA256, COMPAS_SHA256))
    _present(path)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        # Upstream repeats two headers with identical columns; the first of each is kept.
        column = {name: header.index(name) for name in dict.fromkeys(header)}
        needed = (
            *_COMPAS_NUMBERS,
            *_COMPAS_CATEGORIES,
            "race",
            "days_b_screening_arrest",
            "is_recid",
            "score_text",
            "two_year_recid",
        )
        missing = [name for name in needed if name not in column]
        if missing:
            raise OfsError(
                f"{path.name}: column {missing[0]!r} is missing; expected ProPublica's two-year file"
            )
        rows = [{name: row[column[name]] for name in needed} for row in reader if row]
    kept = [
        row
        for row in rows
        if _passes_propublica_filter(row) and row["race"] in ("African-American", "Caucasian")
    ]
    if not kept:
        raise OfsError(f"{path.name}: no row passes ProPublica's filter; expected 5278 of 7214")
    return Table(
        numbers=np.array([[float(row[name]) for name in _COMPAS_NUMBERS] for row in kept]),
        categories=np.array([[row[name] for name in _COMPAS_CATEGORIES] for row in kept]),
        good=np.array([row["two_year_recid"] == "0" for row in kept], dtype=np.int64),
        groups=np.array([row["race"] == "African-American" for row in kept], dtype=np.int64),
    )


def _passes_propublica_filter(row: dict[str, str]) -> bool:
    days = row["days_b_screening_arrest"]
    return (
        days != ""
        and abs(float(days)) <= 30
        and row["is_recid"] != "-1"
        and row["c_charge_degree"] != "O"
        and row["score_text"] not in ("", "N/A")
    )

"""Sweeping a logged score file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import OfsError
from sfumato_ofs.logged import Logged, read_scores, sweep_scores
from sfumato_ofs.loops import threshold_grid

CSV = "id,score,group,label\n1,0.9,north,1\n2,0.4,north,0\n3,0.8,south,1\n4,0.2,south,\n"


def test_a_csv_is_read_by_column_name(tmp_path: Path) -> None:
    """Groups are sorted by name; an empty outcome is unknown."""
    path = tmp_path / "log.csv"
    path.write_text(CSV)
    people = read_scores(path)
    assert people.names == ("north", "south") and people.groups.tolist() == [0, 0, 1, 1]
    assert people.scores.tolist() == [0.9, 0.4, 0.8, 0.2]
    assert people.labels[:3].tolist() == [1, 0, 1] and np.isnan(people.labels[3])


@pytest.mark.optional
def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (extra parquet)")
    from pyarrow import parquet

    table = pyarrow.table({"score": [0.9, 0.4], "group": ["n", "s"], "label": [1, None]})
    parquet.write_table(table, tmp_path / "log.parquet")
    people = read_scores(tmp_path / "log.parquet")
    assert people.scores.tolist() == [0.9, 0.4] and np.isnan(people.labels[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("score,group,label\n0.9,n,1\n", "column 'group' has one group only"),
        ("p,group,label\n0.9,n,1\n0.8,s,1\n", "column 'score' is not in"),
        ("score,group,label\nhigh,n,1\n0.8,s,1\n", "column 'score' must hold numbers, got 'high' in row 1"),
        ("score,group,label\n1.9,n,1\n0.8,s,1\n", "scores must lie"),
        ("score,group,label\n,n,1\n0.8,s,1\n", "column 'score' is empty in row 1"),
        ("score,group,label\n0.9,n,2\n0.8,s,1\n", "labels must be 0, 1 or NaN"),
    ],
)
def test_bad_files_name_the_column(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(OfsError, match=message):
        read_scores(path)


def test_rates_bounds_and_reward_by_hand() -> None:
    """Two people a group: rates, residuals, Hoeffding widths, and reward where outcomes are known."""
    people = Logged(
        np.array([0.9, 0.4, 0.8, 0.2]), np.array([0, 0, 1, 1]), np.array([1, 0, 1, np.nan]), ("n", "s")
    )
    table = sweep_scores(people, Constraints(), np.array([0.0, 0.4, 0.85]))
    assert table.rates.tolist() == [[1.0, 1.0], [1.0, 0.5], [0.5, 0.0]]
    assert table.residuals[1] == pytest.approx([0.4, -0.6, 0.3 - 0.75])
    width = np.sqrt(np.log(2 * 3 * 2 / 0.05) / 2 * (1 / 2 + 1 / 2))
    assert table.upper[1, 0] - table.residuals[1, 0] == pytest.approx(width)
    # Score 0.2 has no known outcome; between 0.4 and 0.85 one of two is good, above 0.85 one of one.
    assert table.reward == pytest.approx([np.nan, 0.25, 0.25], nan_ok=True)
    assert table.holds.tolist() == [True, False, False] and table.best is None
    assert not table.certified.any() and table.possible.all()


def test_outcomes_above_the_old_threshold_say_nothing_of_the_people_below() -> None:
    """A log with outcomes from 0.5 upwards: lower thresholds have no known reward, and none of them is called best."""
    rng = np.random.default_rng(1)
    scores, groups = rng.random(20000), rng.integers(0, 2, 20000)
    labels = np.where(scores >= 0.5, (rng.random(20000) < scores).astype(float), np.nan)
    grid = threshold_grid(41)
    table = sweep_scores(Logged(scores, groups, labels, ("n", "s")), Constraints(rho_min=0.2), grid)
    assert np.isnan(table.reward[grid < 0.49]).all()
    # Break-even is 0.5, where a person more or less earns nothing: noise may prefer a neighbour.
    assert table.best is not None and 0.49 < grid[table.best] < 0.56
    truth = np.where(scores >= grid[table.best], 2 * scores - 1, 0.0).mean()
    assert table.reward[table.best] == pytest.approx(truth, abs=0.01)


def test_a_large_sample_certifies_and_rules_out() -> None:
    """50,000 people of a known population: what is certified holds in truth, what is ruled out does not."""
    from scipy.stats import beta

    rng = np.random.default_rng(0)
    groups = (rng.random(50000) < 0.4).astype(int)
    mean = np.where(groups == 1, 0.45, 0.60)
    scores = rng.beta(8 * mean, 8 * (1 - mean))
    labels = (rng.random(50000) < scores).astype(float)
    grid = threshold_grid(21)
    table = sweep_scores(Logged(scores, groups, labels, ("0", "1")), Constraints(), grid)
    gaps = beta(8 * 0.45, 8 * 0.55).cdf(grid) - beta(8 * 0.60, 8 * 0.40).cdf(grid)
    rate = 1 - 0.6 * beta(4.8, 3.2).cdf(grid) - 0.4 * beta(3.6, 4.4).cdf(grid)
    true = (np.abs(gaps) <= 0.1) & (rate >= 0.3)
    assert table.certified.any() and (~table.possible).any()
    assert true[table.certified].all() and not true[~table.possible].any()
    assert table.best is not None and grid[table.best] == 0.2


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    """As spreadsheets write CSV."""
    path = tmp_path / "log.csv"
    path.write_text("score,group,label\n0.9,n,1\n0.8,s,1\n", encoding="utf-8-sig")
    assert read_scores(path).scores.tolist() == [0.9, 0.8]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"score,group,label\n0.9,n,1\n0.8,,1\n0.7,s,1\n", "column 'group' is empty in row 2"),
        (b"score,group,label\n0.9,n,1\n0.8, ,1\n0.7,s,1\n", "column 'group' is empty in row 2"),
        (b"score,label,group\n0.9,1,n\n0.8,1\n", "column 'group' is empty in row 2"),
        (b"score,group,label\n0.9,n\xe9,1\n", "file log.csv must be CSV in UTF-8"),
        (b"", "column 'score' is not in log.csv"),
        (b"score,group,label\n", r"column 'group' has no group"),
    ],
)
def test_blank_groups_and_broken_files_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(data)
    with pytest.raises(OfsError, match=message):
        read_scores(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": -3.0}, "loss must be"),
        ({"loss": float("inf")}, "loss must be"),
        ({"delta": 0.0}, "delta must be"),
    ],
)
def test_bad_settings_of_a_sweep_are_named(settings: dict, message: str) -> None:
    people = Logged(np.array([0.9, 0.8]), np.array([0, 1]), np.array([1.0, 1.0]), ("n", "s"))
    with pytest.raises(OfsError, match=message):
        sweep_scores(people, Constraints(), np.array([0.0, 0.5]), **settings)


CROSSED = "score,region,sex,label\n" + "".join(
    f"{0.9 if k % 2 else 0.4},{region},{sex},1\n"
    for region, sex, n in (("n", "f", 10), ("n", "m", 10), ("s", "f", 3), ("s", "m", 10))
    for k in range(n)
)


def test_several_columns_make_a_group_of_each_combination(tmp_path: Path) -> None:
    """Four combinations; with at least five people three of them, and the small one is named and still served."""
    path = tmp_path / "log.csv"
    path.write_text(CROSSED)
    people = read_scores(path, group=["region", "sex"])
    assert people.names == ("n & f", "n & m", "s & f", "s & m") and people.left_out == ()
    people = read_scores(path, group=["region", "sex"], min_count=5)
    assert people.names == ("n & f", "n & m", "s & m") and people.left_out == (("s & f", 3),)
    table = sweep_scores(people, Constraints(n_groups=3), np.array([0.0, 0.5]))
    assert table.counts.tolist() == [10, 10, 10] and table.rates[1].tolist() == [0.5] * 3
    assert table.overall[1] == pytest.approx(16 / 33)
    with pytest.raises(OfsError, match="one group only .* after leaving out 1 of fewer than 14 people"):
        read_scores(path, group="region", min_count=14)


def test_overlapping_groups_compare_each_columns_values(tmp_path: Path) -> None:
    """Everybody is in one group a column; shared people make the gap between overlapping groups more certain."""
    path = tmp_path / "log.csv"
    path.write_text(CROSSED)
    people = read_scores(path, group=["region", "sex"], overlapping=True)
    assert people.names == ("region=n", "region=s", "sex=f", "sex=m")
    assert people.membership.sum(axis=1).tolist() == [2.0] * 33
    c = Constraints(n_groups=4)
    table = sweep_scores(people, c, np.array([0.0, 0.5]))
    assert table.counts.tolist() == [20, 13, 13, 20]
    width = dict(zip(c.names, (table.upper - table.residuals)[0], strict=True))
    assert width["signed-gap-0-3"] < width["signed-gap-0-1"]

"""Loaders of the two public data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sfumato_ofs import data
from sfumato_ofs.errors import OfsError


def test_german_has_its_known_counts(data_dir: Path) -> None:
    """1000 rows, 700 good; 190 aged 25 or less with a good rate of 0.579 against 0.728."""
    table = data.load_german(data_dir / data.GERMAN_FILE)
    assert len(table) == 1000 and table.good.sum() == 700
    young = table.groups == 1
    assert young.sum() == 190
    assert table.good[young].mean() == pytest.approx(0.579, abs=5e-4)
    assert table.good[~young].mean() == pytest.approx(0.728, abs=5e-4)
    assert table.numbers.shape == (1000, 7) and table.categories.shape == (1000, 13)


def test_german_by_sex_drops_the_field_that_tells(data_dir: Path) -> None:
    table = data.load_german(data_dir / data.GERMAN_FILE, group="sex")
    assert table.groups.sum() == 310
    assert table.categories.shape == (1000, 12)
    assert not (table.categories == "A92").any()


def test_compas_passes_propublicas_filter(data_dir: Path) -> None:
    """3175 and 2103 people with recidivism 0.5231 and 0.3909; race is no input."""
    table = data.load_compas(data_dir / data.COMPAS_MINIMAL_FILE)
    assert [(table.groups == a).sum() for a in (0, 1)] == [2103, 3175]
    assert 1 - table.good[table.groups == 1].mean() == pytest.approx(0.5231, abs=5e-5)
    assert 1 - table.good[table.groups == 0].mean() == pytest.approx(0.3909, abs=5e-5)
    assert set(np.unique(table.categories)) == {"Male", "Female", "F", "M"}


def test_the_full_upstream_layout_reads_the_same(data_dir: Path, tmp_path: Path) -> None:
    """Repeated headers (decile_score, priors_count) and columns with names do not matter."""
    lines = (data_dir / data.COMPAS_MINIMAL_FILE).read_text().splitlines()
    wide = [
        f"name,{lines[0]},decile_score,priors_count",
        *(f"A. Nonymous,{line},99,99" for line in lines[1:]),
    ]
    path = tmp_path / "compas-scores-two-years.csv"
    path.write_text("\n".join(wide) + "\n")
    full, minimal = (
        data.load_compas(path, verify=False),
        data.load_compas(data_dir / data.COMPAS_MINIMAL_FILE),
    )
    assert (full.numbers == minimal.numbers).all() and (full.groups == minimal.groups).all()


@pytest.mark.parametrize("load", [data.load_german, data.load_compas])
def test_an_altered_file_is_refused(load, tmp_path: Path) -> None:
    """The message gives both hashes and the command that fetches a good copy."""
    path = tmp_path / "altered"
    path.write_text("A11 6 A34\n")
    with pytest.raises(OfsError, match=r"expected SHA-256 .* got .*sfumato ofs fetch"):
        load(path)


def test_wrong_shapes_name_what_was_found(tmp_path: Path) -> None:
    path = tmp_path / "german.data"
    path.write_text("A11 6 A34\n")
    with pytest.raises(OfsError, match="21 fields"):
        data.load_german(path, verify=False)
    path.write_text("age,sex\n1,Male\n")
    with pytest.raises(OfsError, match="'priors_count' is missing"):
        data.load_compas(path, verify=False)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("load", [data.load_german, data.load_compas])
def test_a_file_that_is_not_there_is_an_error_that_says_how_to_fetch_it(tmp_path: Path, load, verify: bool) -> None:
    """No bare FileNotFoundError."""
    with pytest.raises(OfsError, match=r"nowhere.data: there is no such file. 'sfumato ofs fetch .*SFUMATO_DATA"):
        load(tmp_path / "nowhere.data", verify=verify)

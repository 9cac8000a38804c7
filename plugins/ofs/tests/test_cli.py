"""Commands of the plugin."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from sfumato_ofs import cli


def test_a_failed_download_says_where_the_file_belongs(tmp_path: Path, monkeypatch) -> None:
    """No way to the source: exit status 1, the address, and where to put a copy."""
    from sfumato_ofs import fetch

    monkeypatch.setitem(
        fetch.SOURCES, "german", ("http://127.0.0.1:9/german.data", "0" * 64, "fairness/german.data")
    )
    result = CliRunner().invoke(cli.fetch, ["--only", "german", "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert str(tmp_path / "fairness" / "german.data") in result.output
    assert not (tmp_path / "fairness" / "german.data").exists()

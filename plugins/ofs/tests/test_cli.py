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


def test_sweep_tells_whether_a_threshold_is_feasible(tmp_path: Path) -> None:
    """A file with a feasible threshold: exit 0 and the best named; an impossible one: exit 1 and what to do."""
    rows = [f"{s / 100:.2f},{g},{int(s > 50)}" for s in range(100) for g in ("a", "b")]
    path = tmp_path / "log.csv"
    path.write_text("score,group,label\n" + "\n".join(rows) + "\n")
    result = CliRunner().invoke(cli.sweep, [str(path), "--thresholds", "11"])
    assert result.exit_code == 0 and "Best of those that hold: 0.5, reward 0.4800" in result.output
    # Everybody of a scores 0.9 and everybody of b 0.1: only accept-all has parity, and a ceiling forbids it.
    rows = [f"{0.9 if g == 'a' else 0.1},{g},1" for _ in range(5000) for g in ("a", "b")]
    path.write_text("score,group,label\n" + "\n".join(rows) + "\n")
    result = CliRunner().invoke(cli.sweep, [str(path), "--thresholds", "3", "--rho-max", "0.9"])
    assert result.exit_code == 1 and "No threshold can satisfy the constraints" in result.output
    result = CliRunner().invoke(cli.sweep, [str(path), "--thresholds", "3", "--json"])
    assert result.exit_code == 0 and '"tau": 0.5' in result.output
    result = CliRunner().invoke(cli.sweep, [str(path), "--group", "race"])
    assert result.exit_code == 1 and "column 'race' is not in log.csv" in result.output


def test_replay_and_report_from_a_log(tmp_path: Path) -> None:
    from sfumato_ofs import ThresholdBandit

    path = tmp_path / "audit.jsonl"
    bandit = ThresholdBandit(log=path)
    for _ in range(4):
        bandit.partial_fit(bandit.select(), groups=[0] * 6 + [1] * 6, accepted=[True] * 12, scores=[0.7] * 12)
    bandit.log.close()
    result = CliRunner().invoke(cli.replay, [str(path)])
    assert result.exit_code == 0 and "4 decisions come out again" in result.output
    result = CliRunner().invoke(cli.report, [str(path), "-o", str(tmp_path / "risk.md")])
    assert result.exit_code == 0 and (tmp_path / "risk.md").read_text().startswith("# Threshold decisions")
    path.write_text(path.read_text().replace('"n":12', '"n":13', 1))
    result = CliRunner().invoke(cli.replay, [str(path)])
    assert result.exit_code == 1 and "was altered" in result.output

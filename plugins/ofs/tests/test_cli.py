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


def test_sweep_takes_several_columns_and_names_groups_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [f"{s / 100:.2f},{r},{x},{int(s > 50)}" for s in range(100) for r in "ns" for x in "fm"]
    path.write_text("score,region,sex,label\n" + "\n".join([*rows, "0.5,e,f,1"]) + "\n")
    base = [str(path), "--group", "region", "--group", "sex", "--thresholds", "11"]
    result = CliRunner().invoke(cli.sweep, [*base, "--min-count", "30"])
    assert result.exit_code == 0 and "n & f" in result.output
    assert "Too few to be compared, and not protected by any bound: e & f: 1." in result.output
    result = CliRunner().invoke(cli.sweep, [*base, "--min-count", "30", "--overlapping"])
    assert result.exit_code == 0 and "region=n" in result.output and "region=e: 1" in result.output
    for option, value, message in (
        ("--loss", "-3", "loss must be"),
        ("--min-count", "0", "min_count must be"),
    ):
        result = CliRunner().invoke(cli.sweep, [*base, option, value])
        assert result.exit_code == 1 and message in result.output


def test_replay_notices_a_log_cut_off_at_the_end(tmp_path: Path) -> None:
    """With a signed head: exit 0 while the log holds it, 1 with the reason when lines are gone or the key is another."""
    from sfumato_ofs import ThresholdBandit

    path, head, key = tmp_path / "audit.jsonl", tmp_path / "head.json", tmp_path / "key"
    key.write_bytes(b"secret")
    bandit = ThresholdBandit(log=path)
    for _ in range(4):
        bandit.select()
    bandit.head.export(head, b"secret")
    bandit.select()
    bandit.log.close()
    base = [str(path), "--head", str(head), "--key-file", str(key)]
    result = CliRunner().invoke(cli.replay, base)
    assert result.exit_code == 0 and "the head of line 5 is in it" in result.output
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert CliRunner().invoke(cli.replay, [str(path)]).exit_code == 0
    result = CliRunner().invoke(cli.replay, base)
    assert result.exit_code == 1 and "lines were cut off" in result.output
    key.write_bytes(b"other")
    result = CliRunner().invoke(cli.replay, base)
    assert result.exit_code == 1 and "not made with this key" in result.output
    assert CliRunner().invoke(cli.replay, [str(path), "--key-file", str(key)]).exit_code == 2

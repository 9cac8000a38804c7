"""Every bad input of `ThresholdBandit`, one table: the message names the argument; learner and log are as they were."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfumato_ofs import ThresholdBandit
from sfumato_ofs.audit import AuditLog
from sfumato_ofs.bandit_state import Waiting
from sfumato_ofs.batches import check_batch
from sfumato_ofs.config import ObservedScoresConfig, OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import OfsError
from sfumato_ofs.log_replay import replay

GROUPS, TAKEN, SCORES = [0] * 6 + [1] * 6, [True] * 12, [0.7] * 12
NAN, INF = float("nan"), float("inf")
GAPS = [-0.1, -0.1, -0.3]


def fed(path: Path, hide: bool, **settings: Any) -> ThresholdBandit:
    """A bandit that has learned from three batches, the last of which waits for labels."""
    bandit = ThresholdBandit(log=path, **settings)
    for k in range(3):
        bandit.partial_fit(
            bandit.select(),
            groups=GROUPS,
            accepted=TAKEN,
            labels=None if k == 2 else [1.0] * 12,
            scores=None if hide else SCORES,
        )
    return bandit


def same(a: Any, b: Any) -> bool:
    """Deep equality that looks into arrays, attrs classes and deques."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if hasattr(a, "__attrs_attrs__"):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in a.__attrs_attrs__)
    if isinstance(a, str) or not hasattr(a, "__iter__"):
        return bool(a == b) or (a != a and b != b)
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def fit(**changes: Any) -> Any:
    given = {"tau": 0.5, "groups": GROUPS, "accepted": TAKEN, "scores": SCORES, **changes}
    return lambda b: b.partial_fit(given.pop("tau"), **given)


def stats(**changes: Any) -> Any:
    given = {"tau": 0.5, "reward": 0.1, "residuals": GAPS, "n": 200, **changes}
    return lambda b: b.partial_fit_stats(**given)


def state(**changes: Any) -> Any:
    """A state of the bandit's own with entries replaced; keys joined by `.`, `...` drops one."""

    def call(b: ThresholdBandit) -> None:
        own = b.state_dict()
        for path, value in changes.items():
            *outer, last = path.split("__")
            place = own
            for key in outer:
                place = place[key]
            if value is ...:
                del place[last]
            else:
                place[last] = value
        b.load_state_dict(own)

    return call


ROWS: list[tuple[str, Any, str]] = [
    ("scored", fit(tau=0.51), "tau must lie on the grid"),
    ("scored", fit(tau=NAN), "tau must be a finite number"),
    ("scored", fit(tau="0.5"), "tau must be a finite number"),
    ("scored", fit(tau=None), "tau must be"),
    ("scored", fit(scores=[1.7] * 12), "scores must lie"),
    ("scored", fit(scores=[NAN] * 12), "scores must lie"),
    ("scored", fit(scores=["high"] * 12), "scores must be numbers"),
    ("scored", fit(scores=[0.7] * 11), "scores must have one entry"),
    ("scored", fit(scores=None), "scores must be given"),
    ("scored", fit(scores=[0.7] * 11 + [0.2]), "accepted must be scores >= tau .*position 11"),
    ("scored", fit(accepted=[True] * 11 + [False]), "accepted must be scores >= tau"),
    ("scored", fit(accepted=[2] * 12), "accepted must be one true or false"),
    ("scored", fit(accepted="yes"), "accepted must be one true or false"),
    ("scored", fit(accepted=[[True], [True, False]]), "accepted must be"),
    ("scored", fit(labels=[3] * 12), "labels must be 0, 1 or NaN"),
    ("scored", fit(labels=[1.0] * 3), "labels must have one entry"),
    ("scored", fit(labels=["good"] * 12), "labels must be numbers"),
    ("scored", fit(groups=[7] * 12), "groups must be integers"),
    ("scored", fit(groups=[-1] * 12), "groups must be integers"),
    ("scored", fit(groups=["a"] * 12), "groups must be integers"),
    ("scored", fit(groups=[0.5] * 12), "groups must be integers"),
    ("scored", fit(groups=[0] * 3), "groups must have one entry"),
    ("scored", fit(groups=[[0.5, 1.5]] * 12), r"groups given as memberships must lie in \[0, 1\]"),
    ("scored", fit(groups=[[0.5, NAN]] * 12), "groups given as memberships must lie"),
    ("scored", fit(groups=[["a", "b"]] * 12), "groups given as memberships must be numbers"),
    ("scored", fit(groups=[[1.0, 0.0, 0.0]] * 12), r"groups must have shape \(12, 2\)"),
    ("scored", fit(groups=[[1.0], [1.0, 0.0]]), "groups must be"),
    ("scored", stats(), "partial_fit_stats is for hidden scores"),
    ("scored", lambda b: b.warm_start(scores=None, groups=GROUPS, accepted=TAKEN, labels=None), "scores must be given"),
    ("scored", lambda b: b.warm_start(scores=SCORES, groups=GROUPS, accepted=TAKEN, labels=None, tau=0.51), "tau must lie"),
    ("hidden", lambda b: b.warm_start(scores=SCORES, groups=GROUPS, accepted=TAKEN, labels=None), "warm_start needs observed"),
    ("hidden", stats(tau=0.51), "tau must lie on the grid"),
    ("hidden", stats(tau=NAN), "tau must be"),
    ("hidden", stats(reward=INF), "reward must be a finite number"),
    ("hidden", stats(reward=1.5), r"reward must be .* in \[-1, 1\] or NaN"),
    ("hidden", stats(reward="much"), "reward must be"),
    ("hidden", stats(reward=None), "reward must be"),
    ("hidden", stats(residuals=[0.0] * 2), "residuals must have 3 entries"),
    ("hidden", stats(residuals=[0.0, INF, 0.0]), r"residuals\[1\] must be"),
    ("hidden", stats(residuals=[0.0, 0.0, 1.2]), r"residuals\[2\] must be .* in \[-2, 1\] or NaN"),
    ("hidden", stats(residuals=[[0.0], 0.0, 0.0]), r"residuals\[0\] must be"),
    ("hidden", stats(residuals=0.1), "residuals must be 3 numbers"),
    ("hidden", stats(n=-1), "n must be an integer of at least 0"),
    ("hidden", stats(n=0.5), "n must be an integer"),
    ("hidden", stats(n=NAN), "n must be an integer"),
    ("hidden", stats(n=True), "n must be an integer"),
    ("hidden", stats(n="many"), "n must be an integer"),
    ("hidden", stats(rates=[0.5]), "rates must have 2 entries"),
    ("hidden", stats(rates=[0.5, 1.2]), r"rates\[1\] must be"),
    ("hidden", stats(rates="ab"), "rates must be 2 numbers"),
    ("hidden", stats(group_counts=[100]), "group_counts must have 2 entries"),
    ("hidden", stats(group_counts=[100, -1]), r"group_counts\[1\] must be"),
    ("hidden", stats(group_counts=[100, NAN]), r"group_counts\[1\] must be"),
    ("hidden", stats(group_counts=[150, 150]), "group_counts must be of disjoint groups"),
    ("monotone", stats(), "rates must be given"),
    ("monotone", stats(rates=[0.5, 0.5]), "group_counts must be given"),
    ("scored", fit(tau=10**400), "tau must be a finite number"),
    ("scored", fit(tau=np.str_("0.5")), "tau must be a finite number"),
    ("scored", fit(scores=["0.7"] * 12), "scores must be numbers, got dtype"),
    ("scored", fit(scores=np.full(12, 0.7 + 3j)), "scores must be numbers, got dtype complex"),
    ("scored", fit(scores=np.ma.masked_array(SCORES, mask=[True] * 12)), "scores must be a plain array, got a masked one"),
    ("scored", fit(labels=np.ma.masked_array([1.0] * 12, mask=[True] * 12)), "labels must be a plain array"),
    ("scored", fit(labels=["1"] * 12), "labels must be numbers, got dtype"),
    ("scored", fit(groups=[["1", "0"]] * 12), "groups given as memberships must be numbers"),
    ("hidden", stats(n=10**400), "n must be an integer of at least 0 and at most"),
    ("hidden", stats(n=1e300), "n must be an integer of at least 0 and at most"),
    ("hidden", stats(reward=10**400), "reward must be a finite number"),
    ("hidden", stats(reward=np.complex128(0.1 + 2j)), "reward must be a finite number"),
    ("hidden", stats(reward=np.str_("0.1")), "reward must be a finite number"),
    ("hidden", stats(residuals=[10**400, 0, 0]), r"residuals\[0\] must be"),
    ("hidden", stats(residuals=np.array(0.1)), "residuals must be 3 numbers"),
    ("hidden", stats(residuals=np.ma.masked_array(GAPS, mask=[True] * 3)), "residuals must be 3 numbers"),
    ("hidden", stats(group_counts=[10**400, 1]), r"group_counts\[0\] must be"),
    ("scored", lambda b: b.add_labels(99, [1.0]), "number must be"),
    ("scored", lambda b: b.add_labels("2", [1.0] * 12), "number must be"),
    ("scored", lambda b: b.add_labels([2], [1.0] * 12), "number must be"),
    ("scored", lambda b: b.add_labels(2, [1.0]), "labels must have one entry"),
    ("scored", lambda b: b.add_labels(2, [2.0] * 12), "labels must be 0, 1 or NaN"),
    ("scored", lambda b: b.load_state_dict(None), "state must be a mapping"),
    ("scored", lambda b: b.load_state_dict({}), "state must be of version"),
    ("scored", state(version=1), "state must be of version 2"),
    ("scored", state(settings=None), "state belongs to a bandit with another"),
    ("scored", state(settings__loss=3.0), "state belongs to a bandit with another loss"),
    ("scored", state(mode="best"), r"state\['mode'\] must be"),
    ("scored", state(round=...), "state must have the entries that state_dict gives; missing"),
    ("scored", state(extra=1), "state must have the entries .* unknown"),
    ("scored", state(round="ten"), r"state\['round'\] must be int"),
    ("scored", state(round=-1), r"state\['round'\] must be finite and not negative"),
    ("scored", state(selected=np.zeros(3, dtype=np.int64)), r"state\['selected'\] must be an array int64 \(41,\)"),
    ("scored", state(statistics__seen=np.zeros((1, 41))), r"state\['statistics'\]\['seen'\] must be an array"),
    ("scored", state(statistics__plays=np.full((1, 41), NAN)), r"state\['statistics'\]\['plays'\] must be finite"),
    ("scored", state(statistics__plays=...), r"state\['statistics'\] must have the entries"),
    ("scored", state(scored__counts__people=np.full(42, -1.0)), r"state\['scored'\]\['counts'\]\['people'\] must be finite"),
    ("scored", state(scored__counts__good=[0.0] * 42), r"state\['scored'\]\['counts'\]\['good'\] must be an array"),
    ("scored", state(waiting={99: "batch"}), r"state\['waiting'\] must map"),
    ("scored", state(waiting={2: Waiting(99, check_batch(groups=GROUPS, accepted=TAKEN), True)}), r"state\['waiting'\] must map"),
    ("scored", state(waiting={2: Waiting(20, "batch", True)}), r"state\['waiting'\] must map"),
    ("scored", state(statistics__reward_sum=np.full((1, 41), NAN)), r"state\['statistics'\]\['reward_sum'\] must be finite"),
    ("scored", state(waiting=None), r"state\['waiting'\] must map"),
    ("scored", state(proposal="high"), r"state\['proposal'\] must be"),
    ("scored", state(head=None), r"state\['head'\] must have the entries"),
    ("scored", state(search__reason=None), r"state\['search'\]\['reason'\] must be an array"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "call", "message"), ROWS, ids=[f"{k}-{m[:40]}" for k, _, m in ROWS])
def test_bad_input_names_the_argument_and_changes_nothing(
    kind: str, call: Any, message: str, tmp_path: Path
) -> None:
    """State, head and every byte of the log are as before the call."""
    settings = {"settings": OptimisticFeasibleConfig(monotone=True)} if kind == "monotone" else {}
    bandit = fed(tmp_path / "audit.jsonl", hide=kind != "scored", **settings)
    before, written = bandit.state_dict(), (tmp_path / "audit.jsonl").read_bytes()
    with pytest.raises(OfsError, match=message):
        call(bandit)
    assert same(before, bandit.state_dict())
    assert (tmp_path / "audit.jsonl").read_bytes() == written


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": [0.5]}, "grid must hold at least 2"),
        ({"grid": [0.5, 0.2]}, "grid must be strictly increasing"),
        ({"grid": [0.2, NAN]}, "grid must be finite"),
        ({"grid": [-0.1, 0.5]}, r"grid must lie in \[0, 1\]"),
        ({"grid": [0.5, 1.1]}, r"grid must lie in \[0, 1\]"),
        ({"grid": "fine"}, "grid must be numbers"),
        ({"grid": [[0.1], [0.2, 0.3]]}, "grid must be numbers"),
        ({"grid": ["0.5", "0.6"]}, "grid must be numbers"),
        ({"grid": np.array([0.5, 0.6 + 1j])}, "grid must be numbers"),
        ({"horizon": 10**400}, "horizon must be an integer of at least 1 and at most"),
        ({"batch_size": 10**20}, "batch_size must be an integer of at least 1 and at most"),
        ({"loss": 10**400}, "loss must be a finite number"),
        ({"constraints": 0.1}, "constraints must be Constraints"),
        ({"constraints": Constraints(measure="odds", explore_rate=0.5)}, "constraints: measure = odds"),
        ({"policy": "best"}, "policy must be"),
        ({"incumbent": 0.51}, "incumbent must lie on the grid, got 0.51; the nearest grid threshold is 0.5"),
        ({"incumbent": NAN}, "incumbent must be a finite number"),
        ({"incumbent": "0.5"}, "incumbent must be"),
        ({"incumbent": None}, "incumbent must be"),
        ({"corridor": 0.0}, "corridor must be a finite number above 0"),
        ({"corridor": -0.1}, "corridor must be"),
        ({"corridor": INF}, "corridor must be"),
        ({"loss": -1.0}, "loss must be a finite number at least 0"),
        ({"loss": INF}, "loss must be"),
        ({"loss": NAN}, "loss must be"),
        ({"loss_cap": -1.0}, "loss_cap must be"),
        ({"loss_cap": INF}, "loss_cap must be"),
        ({"margin": -0.1}, "margin must be"),
        ({"margin": NAN}, "margin must be"),
        ({"horizon": 0}, "horizon must be an integer of at least 1"),
        ({"horizon": -5}, "horizon must be"),
        ({"horizon": 10.5}, "horizon must be"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"batch_size": 1.5}, "batch_size must be"),
        ({"min_count": 0}, "min_count must be"),
        ({"seed": -1}, "seed must be"),
        ({"settings": {"beta": 1.0}}, "settings must be OptimisticFeasibleConfig"),
        ({"settings": ObservedScoresConfig()}, "settings must be OptimisticFeasibleConfig"),
        ({"observed": OptimisticFeasibleConfig()}, "observed must be ObservedScoresConfig"),
        ({"shadow": "yes"}, "shadow must be True or False"),
        ({"shadow": True, "policy": "ofs"}, "shadow does not go with policy='ofs'"),
        ({"settings": OptimisticFeasibleConfig(pessimistic=True, safe_arm=2)}, "safe_arm must lie inside the corridor"),
        ({"settings": OptimisticFeasibleConfig(pessimistic=True, safe_arm=90)}, "safe_arm must be an arm index"),
    ],
)  # fmt: skip
def test_bad_settings_name_the_argument_and_write_no_log(
    settings: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(OfsError, match=message):
        ThresholdBandit(**settings, log=tmp_path / "audit.jsonl")
    assert not (tmp_path / "audit.jsonl").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"constraints": Constraints(eps=np.float32(0.1), n_groups=np.int64(2))},
        {"settings": OptimisticFeasibleConfig(beta=np.float32(0.5), monotone=np.bool_(True))},
    ],
    ids=["constraints", "settings"],
)
def test_numpy_numbers_in_settings_are_numbers(settings: dict, tmp_path: Path) -> None:
    """They are logged, and a replay makes the same bandit of them."""
    bandit = fed(tmp_path / "audit.jsonl", hide=True, **settings)
    assert same(
        bandit.state_dict()["statistics"], replay(tmp_path / "audit.jsonl").bandit.state_dict()["statistics"]
    )


def test_a_log_in_no_folder_or_in_use_is_named(tmp_path: Path) -> None:
    with pytest.raises(OfsError, match="log .* cannot be written"):
        ThresholdBandit(log=tmp_path / "none" / "audit.jsonl")
    with pytest.raises(OfsError, match="log must be a path or None, got 3.5"):
        ThresholdBandit(log=3.5)  # type: ignore[arg-type]
    held = AuditLog(tmp_path / "audit.jsonl")
    with pytest.raises(OfsError, match="exists already"):
        ThresholdBandit(log=tmp_path / "audit.jsonl")
    held.close()


def test_hidden_scores_are_refused_in_shadow_mode() -> None:
    """Only the incumbent is in force: nothing would ever be learned of another threshold."""
    for call in (fit(scores=None), stats()):
        bandit = ThresholdBandit(shadow=True)
        before = copy.deepcopy(bandit.state_dict())
        with pytest.raises(OfsError, match="could be proposed"):
            call(bandit)
        assert same(before, bandit.state_dict())

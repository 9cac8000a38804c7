"""What one batch of applicants says: checked once, at the border, then arrays.

Groups may be indices, one membership row a person with probabilities (then rates are weighted by membership), or one
0/1 row a person where groups intersect. A group with fewer than `min_count` people in a batch gives no gap
observation.
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.errors import OfsError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@attrs.frozen
class Batch:
    """A checked batch of n people.

    Attributes:
        scores: [n] or None where they are hidden.
        membership: weight of each person in each group, [n, G].
        accepted: [n].
        labels: outcome 0/1, NaN unknown, [n].
        disjoint: whether everybody is in one group at most, for certain.
    """

    scores: FloatArray | None
    membership: FloatArray
    accepted: BoolArray
    labels: FloatArray
    disjoint: bool

    def __len__(self) -> int:
        return len(self.accepted)

    @property
    def people(self) -> FloatArray:
        """People of each group, or their weight [G]."""
        value: FloatArray = np.ones(len(self)) @ self.membership
        return value

    def rates(self, min_count: float = 1.0) -> FloatArray:
        """Return acceptance rates by group [G]; NaN below min_count people."""
        taken, people = self.accepted.astype(np.float64) @ self.membership, self.people
        rates = np.full(len(people), np.nan)
        np.divide(taken, people, out=rates, where=people >= min_count)
        return rates

    @property
    def unlabelled(self) -> int:
        """Accepted people whose outcome is not known."""
        return int(np.count_nonzero(np.isnan(self.labels) & self.accepted))

    def spread(self) -> FloatArray:
        """Return sum_i m_ia m_ib / (M_a M_b) over people [G, G]: 1 / n_a on the diagonal where groups are certain."""
        total = self.membership.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            value: FloatArray = (self.membership.T @ self.membership) / np.outer(total, total)
        return np.where(np.isnan(value), np.inf, value)

    def reward(self, loss: float) -> float:
        """Return (good - loss * bad) / n over accepted people; NaN while some accepted label is unknown."""
        outcome = self.labels[self.accepted]
        # Outcomes are 0, 1 or NaN, so their sum counts the good, and is NaN as soon as one is unknown.
        good = float(outcome.sum())
        return (good - loss * (len(outcome) - good)) / max(len(self), 1)


def check_batch(
    *,
    groups: object,
    accepted: object,
    labels: object = None,
    scores: object = None,
    n_groups: int = 2,
) -> Batch:
    """Return the batch, or raise OfsError naming the argument.

    Arguments:
        groups: ints 0..G-1 [n], or memberships in [0, 1] [n, G] (probabilities, or 0/1 where groups intersect).
        accepted: bool [n].
        labels: 0, 1 or NaN [n]; None for all unknown.
        scores: in [0, 1] [n]; None where hidden.
    """
    taken = _array("accepted", accepted)
    if taken.ndim != 1 or (taken.dtype != bool and not np.isin(taken, (0, 1)).all()):
        raise OfsError(
            f"accepted must be one true or false a person, got dtype {taken.dtype}, shape {taken.shape}"
        )
    n = len(taken)
    membership, disjoint = _membership(groups, n, n_groups)
    return Batch(
        scores=None if scores is None else _scores(scores, n),
        membership=membership,
        disjoint=disjoint,
        accepted=taken.astype(bool),
        labels=np.full(n, np.nan) if labels is None else _labels(labels, n),
    )


def _array(name: str, values: object) -> NDArray[np.generic]:
    if isinstance(values, np.ma.MaskedArray):
        raise OfsError(
            f"{name} must be a plain array, got a masked one, whose hidden entries would count. Fill it; unknown labels are NaN"
        )
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of unlike length
        raise OfsError(f"{name} must be an array, got {type(values).__name__}: {error}") from error


def _floats(name: str, values: NDArray[np.generic]) -> FloatArray:
    """Return numbers as floats; text and complex numbers are refused, which numpy would convert without a word."""
    if values.dtype.kind not in "biufO":
        raise OfsError(f"{name} must be numbers, got dtype {values.dtype}")
    try:
        return values.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise OfsError(f"{name} must be numbers: {error}") from error


def _vector(name: str, values: object, n: int) -> FloatArray:
    array = _floats(name, _array(name, values))
    if array.shape != (n,):
        raise OfsError(f"{name} must have one entry a person ({n}), got shape {array.shape}")
    return array


def _scores(values: object, n: int) -> FloatArray:
    scores = _vector("scores", values, n)
    wrong = ~((scores >= 0.0) & (scores <= 1.0))
    if wrong.any():
        raise OfsError(
            f"scores must lie in [0, 1], got {scores[wrong][0]} at position {int(np.argmax(wrong))}; scores are estimated "
            "probabilities of a good outcome"
        )
    return scores


def _labels(values: object, n: int) -> FloatArray:
    labels = _vector("labels", values, n)
    wrong = ~(np.isnan(labels) | (labels == 0.0) | (labels == 1.0))
    if wrong.any():
        raise OfsError(
            f"labels must be 0, 1 or NaN, got {labels[wrong][0]} at position {int(np.argmax(wrong))}"
        )
    return labels


def _membership(values: object, n: int, n_groups: int) -> tuple[FloatArray, bool]:
    """Return memberships [n, G] and whether everybody is in one group at most, for certain."""
    groups = _array("groups", values)
    if groups.ndim == 2:
        if groups.shape != (n, n_groups):
            raise OfsError(f"groups must have shape ({n}, {n_groups}) as memberships, got {groups.shape}")
        weights = _floats("groups given as memberships", groups)
        if not ((weights >= 0.0) & (weights <= 1.0)).all():
            raise OfsError("groups given as memberships must lie in [0, 1]")
        sure = ((weights == 0.0) | (weights == 1.0)).all() and (weights.sum(axis=1) <= 1.0).all()
        return weights, bool(sure)
    if groups.shape != (n,):
        raise OfsError(f"groups must have one entry a person ({n}), got shape {groups.shape}")
    if n and groups.dtype.kind not in "iub":
        raise OfsError(
            f"groups must be integers 0..{n_groups - 1}, got dtype {groups.dtype} with values {groups[:5].tolist()}"
        )
    index = groups.astype(np.int64)
    if n and (index.min() < 0 or index.max() >= n_groups):
        raise OfsError(f"groups must be integers 0..{n_groups - 1}, got {np.unique(index)[:5].tolist()}")
    return np.eye(n_groups)[index], True

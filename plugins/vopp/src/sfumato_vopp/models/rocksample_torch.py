"""RockSample on torch tensors, for the search on a device; same draws and rules as :mod:`sfumato_vopp.models.rocksample`."""

from __future__ import annotations

from typing import Any

import torch

from sfumato_vopp.model import CompiledModel, Step
from sfumato_vopp.models.rocksample import EAST, FIRST_CHECK, GOOD, NORTH, SAMPLE, SOUTH, WEST, RockSample

__all__ = ["TorchRockSample"]


class TorchRockSample(RockSample):
    """RockSample whose ``step`` and ``value_hint`` take and return tensors on ``device``."""

    array_library = "torch"

    def __init__(self, *args: Any, device: str = "cpu", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._t = {
            name: torch.as_tensor(array, device=device)
            for name, array in (
                ("rock_at", self._rock_at), ("accuracy", self.accuracy), ("reach", self._reach), ("exit", self._exit)
            )
        }  # fmt: skip
        self._bits = torch.arange(self.k, device=device)

    def compiled(self) -> CompiledModel | None:  # type: ignore[override]
        """Return nothing: this model lives on tensors."""
        return None

    def step(self, states: torch.Tensor, actions: torch.Tensor, rng: Any) -> Step:  # type: ignore[override]
        """Advance a batch; one draw an item."""
        packed = states[:, 0]
        cell, rocks = packed & 0xFFFF, packed >> 16
        x, y = cell % self.n, cell // self.n
        x2 = x + (actions == EAST).long() - (actions == WEST).long()
        y2 = y + (actions == NORTH).long() - (actions == SOUTH).long()
        leaves = x2 >= self.n
        off = (x2 < 0) | (y2 < 0) | (y2 >= self.n)
        moved = torch.where(leaves | off, cell, y2 * self.n + x2)
        here = self._t["rock_at"][cell]
        bit = torch.bitwise_left_shift(torch.ones_like(here), here.clamp(min=0))
        good_here = ((rocks & bit) != 0) & (here >= 0)
        sampling = actions == SAMPLE
        pay = torch.where(here < 0, -100.0, torch.where(good_here, 10.0, -10.0)).double()
        reward = torch.where(sampling, pay, 0.0) + 10.0 * leaves - 100.0 * off
        rocks_left = torch.where(sampling & good_here, rocks & ~bit, rocks)
        checked = (actions - FIRST_CHECK).clamp(min=0)
        right = rng.random(len(states)) < self._t["accuracy"][checked, cell]
        good = torch.bitwise_right_shift(rocks, checked) & 1 == 1
        reading = torch.where(actions >= FIRST_CHECK, torch.where(good == right, GOOD, GOOD - 1), 0)
        return Step((rocks_left << 16 | moved)[:, None], reading, reward, leaves)

    def value_hint(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Guess as :class:`RockSample` does."""
        packed = states[:, 0].to(self._bits.device)
        cell = packed & 0xFFFF
        good = torch.bitwise_right_shift((packed >> 16)[:, None], self._bits) & 1 == 1
        nearest = torch.where(good, self._t["reach"][:, cell].T, 0.0).max(1).values
        hint = torch.where(nearest >= 1.0, max(12.0 * self.discount, 10.0), 12.0 * nearest)
        return torch.where(nearest > 0.0, hint, self._t["exit"][cell])

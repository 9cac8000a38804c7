"""MARS on torch tensors, for the search on a device; same draws and rules as :mod:`sfumato_vopp.models.mars`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sfumato_vopp.model import Array, CompiledModel, Step
from sfumato_vopp.models.mars import Mars

__all__ = ["TorchMars"]

EAST, NORTH, SOUTH, WEST, SAMPLE, FIRST_SENSE = 0, 1, 2, 3, 4, 5


class TorchMars(Mars):
    """MARS whose ``step`` and ``value_hint`` take and return tensors on ``device``; the filter's methods stay on NumPy."""

    array_library = "torch"

    def __init__(self, *args: Any, device: str = "cpu", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cells, m, f = self.n * self.n, self.m, self._floats
        parts = np.split(f[1:], np.cumsum([cells, cells * m, cells * m]))
        self._on_rock = float(f[0])
        self._t = {
            "rock_at": torch.as_tensor(self._ints[2:], device=device),
            "exit": torch.as_tensor(parts[0], device=device),
            **{
                name: torch.as_tensor(part.reshape(cells, m), device=device)
                for name, part in zip(("accuracy", "distance", "reach"), parts[1:], strict=True)
            },
        }
        self._bits = torch.arange(m, device=device)

    def compiled(self) -> CompiledModel | None:  # type: ignore[override]
        """Return nothing: this model lives on tensors."""
        return None

    def log_likelihood(self, observation: int, states: Array, action: int, next_states: Array) -> Array:
        """Return log P(o | s, a, s'); float64 [B]. On NumPy arrays, as :class:`Mars` does it."""
        if not hasattr(self, "_scalar"):
            self._scalar = Mars(self.n, self.m, discount=self.discount)
            self._scalar._ints, self._scalar._floats = self._ints, self._floats
        return self._scalar.log_likelihood(observation, states, action, next_states)

    def _parts(self, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = actions // (FIRST_SENSE + self.m)
        return first, actions - first * (FIRST_SENSE + self.m)

    def _move(self, packed: torch.Tensor, shift: int, there: torch.Tensor, act: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the packed positions after one rover's move, and what the move paid."""
        x, y = (packed >> shift) & 0xFF, (packed >> (shift + 8)) & 0xFF
        leaves = there & (act == EAST) & (x + 1 >= self.n)
        off = there & (
            ((act == NORTH) & (y + 1 >= self.n)) | ((act == SOUTH) & (y == 0)) | ((act == WEST) & (x == 0))
        )
        across = (act == EAST).long() - (act == WEST).long() + 256 * ((act == NORTH).long() - (act == SOUTH).long())
        moved = torch.where(there & ~leaves & ~off & (act < SAMPLE), packed + across * (1 << shift), packed)
        gone = 1 << (32 + shift // 16)
        return torch.where(leaves, packed & ~gone, moved), 10.0 * leaves - 100.0 * off

    def step(self, states: torch.Tensor, actions: torch.Tensor, rng: Any) -> Step:  # type: ignore[override]
        """Advance a batch; two draws an item, rover 0 first."""
        rocks, packed = states[:, 0], states[:, 1]
        reward = torch.zeros(len(states), dtype=torch.float64, device=states.device)
        joint = torch.zeros_like(rocks)
        for rover, act in enumerate(self._parts(actions)):
            u = rng.random(len(states))
            there = (packed >> (32 + rover)) & 1 == 1
            shift = 16 * rover
            cell = ((packed >> (shift + 8)) & 0xFF) * self.n + ((packed >> shift) & 0xFF)
            rock = (act - FIRST_SENSE).clamp(min=0)
            right = u < self._t["accuracy"][cell, rock]
            good = torch.bitwise_right_shift(rocks, rock) & 1 == 1
            reading = torch.where(there & (act >= FIRST_SENSE), torch.where(good == right, 2, 1), 0)
            here = self._t["rock_at"][cell]
            bit = torch.bitwise_left_shift(torch.ones_like(here), here.clamp(min=0))
            sampling = there & (act == SAMPLE)
            gain = sampling & (here >= 0) & ((rocks & bit) != 0)
            reward = reward + 10.0 * gain - 100.0 * (sampling & (here < 0)) - 10.0 * (sampling & (here >= 0) & ~gain)
            rocks = torch.where(gain, rocks & ~bit, rocks)
            packed, pay = self._move(packed, shift, there, act)
            reward = reward + pay
            joint = joint * 3 + reading
        return Step(torch.stack([rocks, packed], 1), joint, reward, packed >> 32 == 0)

    def value_hint(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Guess as :class:`Mars` does."""
        states, actions = states.to(self._bits.device), actions.to(self._bits.device)
        packed = states[:, 1]
        good = torch.bitwise_right_shift(states[:, :1], self._bits) & 1 == 1
        total = torch.zeros(len(states), dtype=torch.float64, device=states.device)
        on = torch.full_like(packed, -1)
        for rover, act in enumerate(self._parts(actions)):
            there = (packed >> (32 + rover)) & 1 == 1
            cell = ((packed >> (16 * rover + 8)) & 0xFF) * self.n + ((packed >> (16 * rover)) & 0xFF)
            nearest = torch.where(good, self._t["reach"][cell], 0.0).max(1).values
            on_rock = nearest >= 1.0
            at = self._on_rock + (on == cell).double() * (12.0 - 2.0 * self._on_rock)
            value = torch.where(nearest <= 0.0, self._t["exit"][cell], torch.where(on_rock, at, 12.0 * nearest))
            far = (self._t["distance"][cell, (act - FIRST_SENSE).clamp(min=0)] - 2.0).clamp(min=0.0)
            value = value - torch.where(act >= FIRST_SENSE, far, 0.0)
            total = total + torch.where(there, value, 0.0)
            on = torch.where(there & on_rock & (on != cell), cell, on)
        return total

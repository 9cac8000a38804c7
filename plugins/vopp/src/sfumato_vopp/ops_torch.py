"""The array operations of :mod:`sfumato_vopp.ops` for torch, the counter-based draws, and the bridge for NumPy models.

Eager torch: each operation is one kernel, and the number of new nodes is read back once a level. Sums by ``index_add_`` are
in order on the CPU; on CUDA their order, and so the last bits, may change from run to run unless
``torch.use_deterministic_algorithms(True)`` is set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sfumato_vopp.counter import CounterDraws
from sfumato_vopp.errors import ModelError
from sfumato_vopp.model import Model, Step, check_step
from sfumato_vopp.search_array import ArrayTree

__all__ = ["GAMMA", "TorchDraws", "TorchOps", "TorchTree", "check_types", "mix64", "signed"]


def signed(value: int) -> int:
    """Return the int64 with the same bits as an unsigned 64-bit number."""
    return value - (1 << 64) if value >= 1 << 63 else value


GAMMA = signed(0x9E3779B97F4A7C15)
_M1, _M2 = signed(0xBF58476D1CE4E5B9), signed(0x94D049BB133111EB)
_TO_UNIT = 1.0 / (1 << 53)


def _shift(z: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift right without the sign: torch has no unsigned 64-bit arithmetic."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def mix64(z: torch.Tensor) -> torch.Tensor:
    """Return the SplitMix64 finaliser of each element, as :func:`sfumato_vopp.counter.mix64` on the same bits."""
    z = (z ^ _shift(z, 30)) * _M1
    z = (z ^ _shift(z, 27)) * _M2
    return z ^ _shift(z, 31)


class TorchDraws:
    """Counter-based draws for one batched call; the same numbers as :class:`sfumato_vopp.counter.CounterDraws`."""

    def __init__(self, keys: torch.Tensor, position: int = 0, limit: int | None = None) -> None:
        self._keys, self._position = keys, position
        self._end = None if limit is None else position + limit

    def random(self, size: int | None = None) -> torch.Tensor:
        """Return uniform numbers on [0, 1); float64 [B]."""
        if size is not None and size != len(self._keys):
            raise ValueError(f"expected a draw for each of the {len(self._keys)} items, got size={size}")
        if self._end is not None and self._position >= self._end:
            raise ValueError("the model drew more numbers in one step than there are places for")
        self._position += 1
        z = mix64(self._keys + signed(self._position * (GAMMA % (1 << 64)) % (1 << 64)))
        return _shift(z, 11).to(torch.float64) * _TO_UNIT

    def standard_normal(self, size: int | None = None) -> torch.Tensor:
        """Return standard normal numbers, two places each; float64 [B]."""
        radius = torch.sqrt(-2.0 * torch.log(1.0 - self.random(size)))
        return radius * torch.cos(2.0 * torch.pi * self.random(size))

    def on_numpy(self) -> CounterDraws:
        """Return the same draws for a model that works on NumPy arrays."""
        limit = None if self._end is None else self._end - self._position
        return CounterDraws(self._keys.cpu().numpy().view(np.uint64), self._position, limit)


class TorchOps:
    """Tensors on one device."""

    name = "torch"

    def __init__(self, device: str = "cpu", dtype: str = "float64") -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(
                f"expected a CUDA device for device={device!r}, but torch {torch.__version__} sees none; use device='cpu'"
            )
        self.device = torch.device(device)
        self.float_dtype = {"float64": torch.float64, "float32": torch.float32}[dtype]
        self._kinds = {"ids": torch.int64, "floats": self.float_dtype, "flags": torch.bool}

    def ids(self, values: Any) -> torch.Tensor:
        """Return int64 ids."""
        return torch.as_tensor(values, device=self.device).to(torch.int64)

    def floats(self, values: Any) -> torch.Tensor:
        """Return floats of this object's dtype."""
        return torch.as_tensor(values, device=self.device).to(self.float_dtype)

    def full(self, shape: Any, value: float, like: str) -> torch.Tensor:
        """Return a tensor filled with a value."""
        return torch.full(shape if isinstance(shape, tuple) else (shape,), value, dtype=self._kinds[like], device=self.device)

    def arange(self, first: int, last: int) -> torch.Tensor:
        """Return the ids first … last-1."""
        return torch.arange(first, last, device=self.device)

    def concatenate(self, arrays: list[torch.Tensor]) -> torch.Tensor:
        """Join along the first axis."""
        return torch.cat(arrays)

    def unique(self, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sorted distinct keys and, for each key given, its place among them."""
        values, inverse = torch.unique(keys, sorted=True, return_inverse=True)
        return values, inverse

    def argsort(self, keys: torch.Tensor) -> torch.Tensor:
        """Return the stable order of keys."""
        return torch.argsort(keys, stable=True)

    def searchsorted(self, sorted_keys: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Return the first place whose key is not smaller."""
        return torch.searchsorted(sorted_keys, keys)

    def first_above(self, cumulative: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return, row by row, the number of entries not above ``x``."""
        return torch.clamp((cumulative <= x[:, None]).sum(1), max=cumulative.shape[1] - 1)

    def nonzero(self, flags: torch.Tensor) -> torch.Tensor:
        """Return the ids at which flags are set."""
        return torch.nonzero(flags).reshape(-1)

    def add_at(self, target: torch.Tensor, ids: torch.Tensor, values: Any) -> None:
        """Add values into ``target`` at ids, repeated ids included."""
        if not isinstance(values, torch.Tensor):
            values = torch.full((len(ids),), values, device=self.device)
        target.index_add_(0, ids, values.to(target.dtype))

    def cumsum(self, values: torch.Tensor, axis: int = 0) -> torch.Tensor:
        """Return running sums in float64."""
        return torch.cumsum(values, axis, dtype=torch.float64)

    exp = staticmethod(torch.exp)
    log = staticmethod(torch.log)
    where = staticmethod(torch.where)
    maximum = staticmethod(torch.maximum)

    def max_rows(self, values: torch.Tensor) -> torch.Tensor:
        """Return the largest entry of each row."""
        return values.max(1).values

    def truncate(self, values: torch.Tensor) -> torch.Tensor:
        """Return floats cut to int64 ids."""
        return values.to(torch.int64)

    def to_numpy(self, values: torch.Tensor) -> Any:
        """Return a NumPy array."""
        return values.detach().cpu().numpy()

    def draws(self, keys: torch.Tensor, position: int, limit: int | None = None) -> TorchDraws:
        """Return the counter-based source of one batched call."""
        return TorchDraws(keys, position, limit)

    def keys(self, seed: int, first: int, count: int) -> torch.Tensor:
        """Return the stream keys of episodes first … first+count-1."""
        ids = torch.arange(first + 1, first + count + 1, device=self.device)
        return mix64(ids * GAMMA + signed(seed % (1 << 64)))


class _Bridge:
    """A NumPy model seen from torch: arrays cross to the host and back at every step, which only pays on the CPU."""

    def __init__(self, model: Model, ops: TorchOps) -> None:
        self._model, self._ops = model, ops
        self.uses_counter_draws = model.uses_counter_draws
        self.n_actions, self.discount, self.n_observations = model.n_actions, model.discount, model.n_observations

    def step(self, states: torch.Tensor, actions: torch.Tensor, rng: Any) -> Step:
        out = self._model.step(
            states.cpu().numpy(), actions.cpu().numpy(), rng.on_numpy() if isinstance(rng, TorchDraws) else rng
        )
        ops = self._ops
        check_step(self._model, out, len(states))
        terminal = torch.as_tensor(np.asarray(out.terminal, bool), device=ops.device)
        states = torch.as_tensor(np.asarray(out.states), device=ops.device)
        return Step(states, ops.ids(out.observations), ops.floats(out.rewards), terminal)

    def value_hint(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return self._ops.floats(self._model.value_hint(states.cpu().numpy(), actions.cpu().numpy()))


class TorchTree(ArrayTree):
    """The level-order search on tensors.

    A model whose attribute ``array_library`` is "torch" is stepped on tensors of the device; any other is a NumPy model and
    is called on the host.
    """

    def __init__(self, model: Model, config: Any, eta: float, device: str = "cpu", dtype: str = "float64") -> None:
        ops = TorchOps(device, dtype)
        native = getattr(model, "array_library", "numpy") == "torch"
        super().__init__(model if native else _Bridge(model, ops), config, eta, ops)  # type: ignore[arg-type]
        self._native = native

    def begin(self, particles: Any, cumulative: Any | None, seed: int) -> None:
        """Empty the tree and set the root belief, moved to the device."""
        device = self._ops.device
        cumulative = None if cumulative is None else torch.as_tensor(cumulative, device=device, dtype=torch.float64)
        super().begin(torch.as_tensor(particles, device=device), cumulative, seed)

    def _joined(self, parts: list[Any]) -> torch.Tensor:
        return torch.cat([torch.as_tensor(part, device=self._ops.device) for part in parts])

    def _check(self, out: Step, n: int) -> None:
        if not self._native:
            return  # checked on the host, before anything was converted
        check_types(self._model, out, n)
        if not bool(torch.isfinite(out.rewards).all()):
            raise ModelError("step should return finite rewards, got NaN or infinity; check the model")
        if out.states.is_floating_point() and not bool(torch.isfinite(out.states[~out.terminal]).all()):
            raise ModelError("step should return finite states, got NaN or infinity in at least one row; check the model")
        limit = self._model.n_observations
        if limit is not None and n and not bool(((out.observations >= 0) & (out.observations < limit)).all()):
            raise ModelError(f"step should return observations in 0 … {limit - 1}; set n_observations = None for any number")


def check_types(model: Model, out: Step, n: int) -> None:
    """Raise ModelError where shapes or dtypes of a step on tensors are wrong; looks at no content."""
    if tuple(out.states.shape) != (n, model.state_width):
        raise ModelError(f"step should return states of shape {(n, model.state_width)}, got {tuple(out.states.shape)}")
    for name, value in (("observations", out.observations), ("rewards", out.rewards), ("terminal", out.terminal)):
        if tuple(value.shape) != (n,):
            raise ModelError(f"step should return {name} of shape {(n,)}, got {tuple(value.shape)}")
    if out.observations.is_floating_point() or out.observations.dtype == torch.bool:
        raise ModelError(f"step should return whole-number observations, got dtype {out.observations.dtype}")
    if out.terminal.dtype != torch.bool:
        raise ModelError(f"step should return terminal flags of dtype bool, got {out.terminal.dtype}")

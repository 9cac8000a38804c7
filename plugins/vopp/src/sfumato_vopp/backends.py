"""Which search runs a model: chosen by name, checked, never replaced in silence."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from sfumato_vopp.config import SearchConfig
from sfumato_vopp.errors import ModelError
from sfumato_vopp.model import CompiledModel, Model

__all__ = ["compiled_or_raise", "make_tree"]

DENSE_LIMIT = 64


def make_tree(model: Model, config: SearchConfig, eta: float, backend: str | None, device: str) -> tuple[Any, str]:
    """Return (tree, backend name) for a model.

    Raises:
        ModelError: the backend cannot run this model.
        ImportError: the backend's library is not installed.
    """
    if backend is None:
        backend = "numba" if find_spec("numba") is not None and model.compiled() is not None else "numpy"
    if backend not in ("numpy", "numba", "torch"):
        raise ValueError(f"expected backend 'numpy', 'numba' or 'torch', got {backend!r}")
    if backend != "torch" and device != "cpu":
        raise ValueError(f"backend {backend!r} runs on device 'cpu', got {device!r}; choose backend='torch' for others")
    if backend != "torch" and (config.capacity is not None or config.capture is not None):
        raise ModelError(f"capacity and capture are for backend 'torch', got {backend!r}; leave them out, or choose backend='torch'")
    if config.capture is not None and config.capacity is None:
        raise ValueError(f"expected a capacity with capture={config.capture!r}, got none; say how many nodes a depth may hold")
    if backend == "numba":
        compiled = compiled_or_raise(model)
        from sfumato_vopp.tree_numba import NumbaTree

        storage = config.storage or ("dense" if model.n_actions <= DENSE_LIMIT else "sparse")
        return NumbaTree(model, compiled, config, eta, storage), backend
    if config.storage == "sparse":
        raise ModelError(f"backend {backend!r} stores dense rows; leave storage out, or choose backend='numba' for sparse")
    if backend == "torch":
        _need("torch")
        if getattr(model, "array_library", "numpy") != "torch":
            model = model.on_tensors(device) or model
        if config.capacity is not None:
            from sfumato_vopp.tree_torch import FixedTree

            return FixedTree(model, config, eta, device, config.capacity, config.capture), backend
        from sfumato_vopp.ops_torch import TorchTree

        return TorchTree(model, config, eta, device), backend
    if getattr(model, "array_library", "numpy") == "torch":
        raise ModelError(f"{type(model).__name__} works on tensors; choose backend='torch'")
    from sfumato_vopp.search_array import ArrayTree

    return ArrayTree(model, config, eta), backend


def compiled_or_raise(model: Model) -> CompiledModel:
    """Return a model's compiled functions.

    Raises:
        ImportError: numba is not installed.
        ModelError: the model has none.
    """
    _need("numba")
    compiled = model.compiled()
    if compiled is None:
        raise ModelError(
            f"backend 'numba' needs compiled functions, and {type(model).__name__}.compiled() gives none; "
            "write them (see sfumato_vopp.CompiledModel) or choose backend='numpy'"
        )
    return compiled


def _need(module: str) -> None:
    if find_spec(module) is None:
        raise ImportError(f"backend {module!r} needs {module}; run: pip install 'sfumato-vopp[{module}]'")

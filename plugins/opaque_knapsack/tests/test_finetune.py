"""Fine-tuning and the transformers backend, on a random Llama of a few thousand weights made here."""

import json

import pytest

from sfumato_opaque_knapsack.traces import TraceSettings, make_pairs, write_jsonl

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers")
pytestmark = pytest.mark.optional

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A transformers folder: byte-level tokenizer with a chat template, and a random model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    torch.set_num_threads(1)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner)
    tokenizer.add_special_tokens(
        {"eos_token": "<|im_end|>", "pad_token": "<pad>", "additional_special_tokens": ["<|im_start|>"]}
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=4096, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture
def tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


CHAT = [
    {"role": "system", "content": "S."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "One."},
    {"role": "user", "content": "More."},
    {"role": "assistant", "content": "Two."},
]


def test_exactly_the_assistants_turns_are_learnt_with_their_end_marks(tokenizer):
    from sfumato_opaque_knapsack.finetune import encode

    tokens, mask = encode(tokenizer, CHAT)
    learnt = tokenizer.decode([t for t, m in zip(tokens, mask, strict=True) if m])
    assert learnt.replace("\n", "") == "One.<|im_end|>Two.<|im_end|>"
    assert tokenizer.decode(tokens) == tokenizer.apply_chat_template(CHAT, tokenize=False)


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer):
    from sfumato_opaque_knapsack.finetune import TemplateError, encode

    tokenizer.chat_template = "{{ messages|length }}" + TEMPLATE
    with pytest.raises(TemplateError, match="earlier turns"):
        encode(tokenizer, CHAT)


def test_the_counts_say_what_the_length_cuts(tokenizer):
    from sfumato_opaque_knapsack.finetune import dataset, encode

    tokens, mask = encode(tokenizer, CHAT)
    rows, counts = dataset(tokenizer, [{"messages": CHAT}, {"messages": CHAT[:3]}], len(tokens) - 3)
    assert counts["cut_episodes"] == 1
    assert counts["assistant_tokens_lost"] == sum(mask[-3:])
    assert [len(row["input_ids"]) for row in rows] == [len(tokens) - 3, len(encode(tokenizer, CHAT[:3])[0])]


def test_the_kept_cache_changes_nothing_but_time(folder):
    """Greedy messages of a growing conversation equal those of a backend that starts afresh for each."""
    from sfumato_opaque_knapsack.backends import TransformersBackend

    kept = TransformersBackend(folder, temperature=0.0, max_tokens=12)
    other = [{"role": "user", "content": "Something else."}]
    for messages in (CHAT[:2], CHAT[:4], other, CHAT[:4], CHAT[:2]):
        fresh = TransformersBackend(folder, temperature=0.0, max_tokens=12)
        ours, theirs = kept.complete(messages, 0), fresh.complete(messages, 0)
        assert (ours.text, ours.finish, ours.prompt_tokens) == (
            theirs.text,
            theirs.finish,
            theirs.prompt_tokens,
        )


def test_sampling_repeats_for_a_seed_and_a_full_context_is_refused(folder):
    from sfumato_opaque_knapsack.backends import ModelCallFailed, TransformersBackend

    backend = TransformersBackend(folder, temperature=1.0, max_tokens=20, context=64)
    first, second = (backend.complete(CHAT[1:2], seed).text for seed in (1, 2))
    assert first == backend.complete(CHAT[1:2], 1).text
    assert first != second
    with pytest.raises(ModelCallFailed, match="the context holds 64"):
        backend.complete([{"role": "user", "content": "x" * 100}], 0)


def test_a_dry_run_counts_and_writes_nothing(folder, tmp_path):
    from sfumato_opaque_knapsack.finetune import PRESETS, finetune

    path = tmp_path / "t.jsonl"
    write_jsonl(path, make_pairs(TraceSettings(level="micro", prompt="short"), range(3)))
    figures = finetune(path, "stateless", folder, None, PRESETS["small"])
    assert figures["episodes"] == 3
    assert 0 < figures["assistant_tokens"] < figures["tokens"]
    assert list(tmp_path.iterdir()) == [path]


def test_four_bit_weights_without_cuda_are_refused_with_the_way_out(folder, tmp_path):
    from sfumato_opaque_knapsack.finetune import PRESETS, finetune

    path = tmp_path / "t.jsonl"
    write_jsonl(path, make_pairs(TraceSettings(level="micro"), range(1)))
    with pytest.raises(ValueError, match="--preset small"):
        finetune(path, "persistent", folder, tmp_path / "out", PRESETS["paper"])


@pytest.mark.slow
def test_lora_training_runs_through_trl_and_its_adapter_loads(folder, tmp_path):
    """Two steps on micro traces: the loss is finite, the adapter is written, and the backend takes it."""
    pytest.importorskip("trl", reason="needs trl")
    pytest.importorskip("peft", reason="needs peft")
    from sfumato_opaque_knapsack.backends import TransformersBackend
    from sfumato_opaque_knapsack.finetune import PRESETS, finetune

    path = tmp_path / "t.jsonl"
    write_jsonl(path, make_pairs(TraceSettings(level="micro", style="compact", prompt="short"), range(4)))
    out = tmp_path / "adapter"
    figures = finetune(path, "persistent", folder, out, PRESETS["plumbing"])
    assert figures["steps"] == 2
    assert 0 < figures["loss_last"] < 20
    assert json.loads((out / "training.json").read_text())["regime"] == "persistent"
    backend = TransformersBackend(folder, adapter=out, temperature=0.0, max_tokens=3)
    assert backend.complete(CHAT[:2], 0).completion_tokens >= 1


def test_smollm2s_end_marks_are_mended():
    """Read from GGUF, its messages would end with the mark that begins them."""
    from types import SimpleNamespace

    from sfumato_opaque_knapsack.smollm2 import mend_ends

    class Marks:
        ids = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
        eos_token, pad_token = "<|im_start|>", None
        eos_token_id = property(lambda self: self.ids[self.eos_token])
        pad_token_id = property(lambda self: self.ids[self.pad_token])

    model = SimpleNamespace(
        config=SimpleNamespace(eos_token_id=1, pad_token_id=2),
        generation_config=SimpleNamespace(eos_token_id=1, pad_token_id=2),
    )
    mend_ends(Marks(), model)
    assert (model.config.eos_token_id, model.generation_config.eos_token_id, model.config.pad_token_id) == (
        2,
        2,
        0,
    )

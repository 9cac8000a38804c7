"""The tokenizer for small models, and the decoder that copies from birth."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato_opaque_knapsack.tokenizer import TraceTokenizer
from sfumato_opaque_knapsack.traces import TraceSettings, make_pairs

TEXTS = [
    m["content"]
    for r in make_pairs(TraceSettings(level="micro", words=False), range(6))
    for m in r["messages"]
]
TOKENIZER = TraceTokenizer.train(TEXTS)


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_comes_back_from_its_tokens(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text.encode("utf-8", "replace").decode(
        "utf-8", "replace"
    )


def test_ids_are_hex_pairs_and_numbers_are_whole_wherever_they_stand():
    for text in ("3fa9,12,55,B", '("3fa9", 12, 55, "B")', "3fa9 12 55 B"):
        pieces = [TOKENIZER.decode([t]) for t in TOKENIZER.encode(text)]
        assert {"3f", "a9", "12", "55"} <= set(pieces)


def test_a_tokenizer_survives_saving(tmp_path):
    TOKENIZER.save(tmp_path / "t.json")
    assert TraceTokenizer.load(tmp_path / "t.json").encode(TEXTS[3]) == TOKENIZER.encode(TEXTS[3])


def test_only_assistant_tokens_are_learnt():
    tokens, learn = TOKENIZER.render(
        [{"role": "user", "content": "left 3"}, {"role": "assistant", "content": "look(3)"}]
    )
    assert tokens[learn.index(True) - 1] == TOKENIZER.assistant
    assert tokens[-1] == TOKENIZER.end
    assert learn[-1]
    assert not any(learn[: tokens.index(TOKENIZER.assistant) + 1])


@pytest.fixture(scope="module")
def torch():
    module = pytest.importorskip("torch", reason="needs torch")
    module.set_num_threads(1)
    return module


@pytest.mark.optional
@pytest.mark.parametrize("copy_heads", [True, False])
def test_step_by_step_decoding_equals_the_whole_forward_pass(torch, copy_heads):
    """The caches of keys, values and copy summaries give the logits that attention over everything gives."""
    from sfumato_opaque_knapsack.decoder import CopyDecoder, DecoderConfig, Stream

    torch.manual_seed(0)
    model = CopyDecoder(DecoderConfig(60, width=48, layers=2, heads=4, copy_heads=copy_heads)).eval()
    tokens = torch.randint(0, 60, (3, 300))
    whole = model(tokens).detach()
    stream = Stream(model, 3, 400)
    for t in range(270):
        logits = stream.step(tokens[:, t])
        assert torch.allclose(logits, whole[:, t], atol=2e-4)
    stream.keep(torch.tensor([2, 0]))
    assert torch.allclose(stream.step(tokens[[2, 0], 270]), whole[[2, 0], 270], atol=2e-4)


@pytest.mark.optional
def test_the_future_does_not_leak_into_the_past(torch):
    from sfumato_opaque_knapsack.decoder import CopyDecoder, DecoderConfig

    torch.manual_seed(0)
    model = CopyDecoder(DecoderConfig(60, width=48, layers=2, heads=4)).eval()
    a = torch.randint(0, 60, (1, 40))
    b = a.clone()
    b[0, 30:] = (b[0, 30:] + 1) % 60
    assert torch.allclose(model(a)[:, :30], model(b)[:, :30], atol=1e-5)
    assert not torch.allclose(model(a)[:, 30:], model(b)[:, 30:], atol=1e-3)


@pytest.mark.optional
def test_copy_heads_attend_to_what_followed_the_same_context_before_any_training(torch):
    """On a repeated random sequence, the first layer's copy heads look at the successor of the earlier occurrence."""
    from sfumato_opaque_knapsack.decoder import CopyDecoder, DecoderConfig

    torch.manual_seed(0)
    model = CopyDecoder(DecoderConfig(200, width=96, layers=1, heads=4)).eval()
    half = torch.randint(0, 200, (1, 30))
    tokens = torch.cat([half, half], 1)
    block = model.blocks[0]
    x = model.embedding(tokens) * 96**0.5
    q, k, _, _, _ = block.qkv(block.norm1(x), (model.cos[:60], model.sin[:60]), None, None)
    scores = (q @ k.transpose(-1, -2))[0, block.n_plain :].masked_fill(
        torch.ones(60, 60).triu(1).bool(), -1e9
    )
    found = scores[:, 38:59].argmax(-1)
    wanted = torch.arange(9, 30)
    assert (found == wanted).float().mean() > 0.95


@pytest.mark.optional
def test_training_lowers_the_loss_and_repeats_bit_for_bit(torch):
    from sfumato_opaque_knapsack.decoder import CopyDecoder, DecoderConfig, TrainConfig, train

    examples = [
        TOKENIZER.render(r["messages"])
        for r in make_pairs(
            TraceSettings(level="micro", words=False, prompt="short", style="compact"), range(8)
        )
    ]
    rows, weights = [], []
    for _ in range(2):
        torch.manual_seed(1)
        model = CopyDecoder(DecoderConfig(len(TOKENIZER), width=48, layers=2, heads=4))
        rows.append([])
        train(
            model,
            examples,
            TrainConfig(epochs=2, batch_tokens=2000),
            report=lambda r: rows[-1].append(r["loss"]),
        )
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert rows[0][-1] < rows[0][0]
    assert rows[0] == rows[1]
    assert torch.equal(*weights)


@pytest.mark.optional
def test_a_model_survives_saving(torch, tmp_path):
    from sfumato_opaque_knapsack.decoder import CopyDecoder, DecoderConfig, load, save

    model = CopyDecoder(DecoderConfig(60, width=48, layers=1, heads=4)).eval()
    save(tmp_path, model)
    tokens = torch.randint(0, 60, (1, 9))
    assert torch.equal(load(tmp_path)(tokens), model(tokens))

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch

from sfumato_alflb import ArgumentError, Balancer, attach, loads_by_rank, softmax_rate

E, K, D = 8, 2, 16


class SoftmaxRouter(torch.nn.Module):
    """Softmax over all experts, K best, normalised or not: what most of transformers' routers do."""

    def __init__(self, n_experts=E, normalise=True):
        super().__init__()
        self.top_k, self.num_experts, self.normalise = K, n_experts, normalise
        # Logits of standard deviation one: a gate that is not yet saturated.
        weight = torch.randn(n_experts, D, generator=torch.Generator().manual_seed(n_experts)) / D**0.5
        self.weight = torch.nn.Parameter(weight)

    def forward(self, x):
        logits = torch.nn.functional.linear(x, self.weight)
        weights, experts = logits.float().softmax(-1).topk(self.top_k, dim=-1)
        if self.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return logits, weights.to(logits.dtype), experts


class TopKThenSoftmax(SoftmaxRouter):
    """Softmax over the chosen logits, as in GPT-OSS and Granite: the same as normalising afterwards."""

    def forward(self, x):
        logits = torch.nn.functional.linear(x, self.weight)
        best, experts = logits.topk(self.top_k, dim=-1)
        return logits, best.softmax(-1), experts


class Odd(SoftmaxRouter):
    """Weights that follow none of the formulas."""

    def forward(self, x):
        logits, weights, experts = super().forward(x)
        return logits, weights**3 + 0.01, experts


class TitanBlock(torch.nn.Module):
    """The naming of torchtitan: the block holds expert_bias, its router returns the chosen indices second."""

    bias_name = "expert_bias"

    class Router(torch.nn.Module):
        def __init__(self, score_func):
            super().__init__()
            self.gate = torch.nn.Linear(D, E, bias=False)
            self.top_k, self.num_experts, self.score_func = K, E, score_func
            torch.nn.init.normal_(self.gate.weight, 0, D**-0.5, generator=torch.Generator().manual_seed(5))

        def forward(self, x, expert_bias):
            scores = self.gate(x)
            scores = scores.sigmoid() if self.score_func == "sigmoid" else scores.softmax(-1)
            experts = (scores + expert_bias).topk(K, dim=-1).indices
            return scores.gather(-1, experts), experts, scores

    def __init__(self, score_func="sigmoid"):
        super().__init__()
        self.router = self.Router(score_func)
        self.register_buffer(self.bias_name, torch.zeros(E))

    def forward(self, x):
        return self.router(x, getattr(self, self.bias_name))[0]


class NewTitanBlock(TitanBlock):
    """torchtitan 0.3: another name, and a batch axis that is kept."""

    bias_name = "expert_bias_E"

    def forward(self, x):
        return super().forward(x.unsqueeze(0))


class ErnieRouter(torch.nn.Module):
    """ERNIE 4.5 in transformers: softmax scores, and a bias [1, E] in a module below the router."""

    class Statics(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.e_score_correction_bias = torch.nn.Parameter(torch.zeros(1, E), requires_grad=False)

        def forward(self, x):
            return x + self.e_score_correction_bias.squeeze()

    def __init__(self):
        super().__init__()
        self.top_k, self.num_experts, self.moe_statics = K, E, self.Statics()
        weight = torch.randn(E, D, generator=torch.Generator().manual_seed(3)) / D**0.5
        self.weight = torch.nn.Parameter(weight)

    def forward(self, x):
        logits = torch.nn.functional.linear(x, self.weight)
        scores = logits.softmax(-1)
        experts = self.moe_statics(scores).topk(K, dim=-1).indices
        weights = scores.gather(-1, experts)
        return logits, weights / weights.sum(-1, keepdim=True), experts


class GroupLimited(SoftmaxRouter):
    """DeepSeek-V2's: only experts of the better half may be chosen."""

    def forward(self, x):
        logits = torch.nn.functional.linear(x, self.weight)
        scores = logits.softmax(-1)
        halves = scores.view(-1, 2, E // 2)
        best = halves.amax(-1).argmax(-1)
        mask = torch.nn.functional.one_hot(best, 2).bool().repeat_interleave(E // 2, dim=-1)
        weights, experts = scores.masked_fill(~mask, 0.0).topk(K, dim=-1)
        return logits, weights, experts


class MegatronRouter(torch.nn.Module):
    """The naming of Megatron: expert_bias on the router, which returns probabilities and a routing map."""

    def __init__(self):
        super().__init__()
        self.topk, self.score_function, self.drop = K, "sigmoid", 0
        self.weight = torch.nn.Parameter(torch.randn(E, D, generator=torch.Generator().manual_seed(1)))
        self.register_buffer("expert_bias", torch.zeros(E))
        self.register_buffer("local_tokens_per_expert", torch.zeros(E), persistent=False)

    def forward(self, x):
        scores = torch.nn.functional.linear(x, self.weight).sigmoid()
        experts = (scores + self.expert_bias).topk(K, dim=-1).indices
        routing_map = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, experts, True)
        routing_map[: self.drop] = False  # tokens over capacity, or padding
        return scores * routing_map, routing_map


class Stack(torch.nn.Module):
    """Layers with different numbers of experts."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x, attention_mask=None):
        return [layer(x.reshape(-1, D)) for layer in self.layers]


def tokens(*shape, seed=0):
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed)) + 0.5


@pytest.mark.parametrize("make", [SoftmaxRouter, lambda: SoftmaxRouter(normalise=False), TopKThenSoftmax])
def test_a_zero_bias_changes_nothing(make) -> None:
    """Before the first update the output equals that of the model alone."""
    router, x = make(), tokens(50)
    before = router(x)
    attach(Stack(router))
    after = router(x)
    assert torch.equal(before[2], after[2]) and torch.allclose(before[1], after[1], atol=1e-6)


def test_every_kind_of_router_becomes_balanced() -> None:
    """Softmax with 8 and 16 experts, torchtitan's, Megatron's and ERNIE's naming: MaxVio falls by more than half."""
    model = Stack(
        SoftmaxRouter(), SoftmaxRouter(16), TitanBlock(), MegatronRouter(), NewTitanBlock(), ErnieRouter()
    )
    attached = attach(model, "prop_sqrt", 0.2)
    assert [s.n_experts for s in attached.states] == [8, 16, 8, 8, 8, 8]
    x = tokens(512)
    vio = []
    for _ in range(150):
        model(x)
        attached.step()
        vio.append([report.max_vio for report in attached.reports().values()])
    first, last = torch.tensor(vio[0]), torch.tensor(vio[-1])
    assert (last < 0.5 * first).all(), (first, last)
    assert torch.equal(model.layers[2].expert_bias, attached.states[2].bias)
    assert torch.equal(model.layers[4].expert_bias_E, attached.states[4].bias)
    assert torch.equal(model.layers[5].moe_statics.e_score_correction_bias[0], attached.states[5].bias)
    assert set(attached.totals()) == set(attached.names)


def test_steps_for_softmax_gates_are_scaled_per_layer() -> None:
    """u counts in sigmoid scores; a softmax score of E experts is about 1/E."""
    attached = attach(Stack(SoftmaxRouter(8), SoftmaxRouter(16), MegatronRouter()), "sign", 1e-3)
    assert [s.rule.u for s in attached.states] == [softmax_rate(1e-3, 8), softmax_rate(1e-3, 16), 1e-3]
    plain = attach(Stack(SoftmaxRouter(8)), "sign", 1e-3, scale_softmax=False)
    assert plain.states[0].rule.u == 1e-3
    own = attach(Stack(TitanBlock("softmax"), TitanBlock("sigmoid"), ErnieRouter()), "sign", 1e-3)
    assert [s.rule.u for s in own.states] == [softmax_rate(1e-3, 8), 1e-3, softmax_rate(1e-3, 8)]


def test_a_router_that_does_not_tell_its_score_is_asked_about() -> None:
    """Its bias is added to something; what, the caller must say."""
    silent = MegatronRouter()
    del silent.score_function
    with pytest.raises(ArgumentError, match="score='sigmoid' or 'softmax'"):
        attach(Stack(silent))
    assert attach(Stack(silent), "sign", 1e-3, score="softmax").states[0].rule.u == softmax_rate(1e-3, 8)
    with pytest.raises(ArgumentError, match="score"):
        attach(Stack(MegatronRouter()), score="tanh")


def test_tokens_that_a_map_leaves_out_are_not_counted() -> None:
    """Megatron's map has no entries for tokens over capacity."""
    router = MegatronRouter()
    attached = attach(Stack(router))
    router.drop = 5
    router(tokens(20))
    assert int(attached.states[0].counts.sum()) == 15 * K


def test_logits_that_are_no_numbers_are_refused_and_nothing_is_counted() -> None:
    """A model that has diverged says so here."""
    model = Stack(SoftmaxRouter())
    attached = attach(model)
    with pytest.raises(ArgumentError, match="logits"):
        model(tokens(3) * float("nan"))
    assert int(attached.states[0].counts.sum()) == 0


def test_the_weights_come_from_unbiased_scores_and_carry_gradients() -> None:
    """Forcing an expert changes who is chosen, not how the chosen are weighed."""
    router = SoftmaxRouter(normalise=False)
    attached = attach(Stack(router))
    attached.states[0].bias[3] = 5.0
    logits, weights, experts = router(tokens(20))
    assert (experts == 3).any(-1).all()
    assert torch.allclose(weights, logits.softmax(-1).gather(-1, experts))
    weights.sum().backward()
    assert router.weight.grad is not None


def test_biases_stay_float32_through_casts_and_checkpoints() -> None:
    """Also the model's own bias; and each is saved once."""
    model = Stack(SoftmaxRouter(), TitanBlock())
    attached = attach(model, u=1 / 3)
    model(tokens(64))
    attached.step()
    want = [s.bias.clone() for s in attached.states]
    saved = {key: value.clone() for key, value in model.state_dict().items()}
    assert (
        "layers.1.expert_bias" in saved
        and "layers.1.balance.bias" not in saved
        and "layers.0.balance.bias" in saved
    )
    model.bfloat16()
    kept = model.state_dict()  # before any forward after the cast
    assert torch.equal(kept["layers.1.expert_bias"], want[1]) and torch.equal(
        kept["layers.0.balance.bias"], want[0]
    )
    model(tokens(4).bfloat16())
    assert model.layers[1].expert_bias.dtype == torch.float32
    assert all(torch.equal(s.bias, w) for s, w in zip(attached.states, want))
    other = Stack(SoftmaxRouter(), TitanBlock())
    again = attach(other, u=1 / 3)
    other.load_state_dict(saved, assign=True)
    other(tokens(4))
    assert all(torch.equal(s.bias, w) for s, w in zip(again.states, want))
    other(tokens(64))
    again.step()
    assert torch.equal(other.layers[1].expert_bias, again.states[1].bias)


def test_padding_is_left_out_of_the_counts() -> None:
    """7 real tokens of 12, told by attention_mask; a mask of another length is refused."""
    model = Stack(SoftmaxRouter(), TitanBlock())
    attached = attach(model)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
    model(tokens(2, 6), attention_mask=mask)
    assert [int(s.counts.sum()) for s in attached.states] == [7 * K, 7 * K]
    with pytest.raises(ArgumentError, match="attention_mask"):
        model(tokens(2, 6), attention_mask=mask[:, :5])


def test_a_mask_given_by_position_counts_and_is_forgotten_after_the_call() -> None:
    """A part of the model that is called alone afterwards has no mask."""
    model = Stack(SoftmaxRouter(), TitanBlock())
    attached = attach(model)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
    model(tokens(2, 6), mask)
    assert [int(s.counts.sum()) for s in attached.states] == [7 * K, 7 * K]
    model.layers[0](tokens(12))
    assert int(attached.states[0].counts.sum()) == (7 + 12) * K


def test_evaluation_is_not_counted_and_detach_restores_the_model() -> None:
    """Hooks, state and keys are gone."""
    model = Stack(SoftmaxRouter(), TitanBlock(), ErnieRouter())
    keys, x = set(model.state_dict()), tokens(30)
    parameters = [name for name, _ in model.named_parameters()]
    want = model(x)[0][2]
    attached = attach(model, u=0.5)
    model.eval()
    model(x)
    assert all(int(s.counts.sum()) == 0 for s in attached.states)
    model.train()
    model(x)
    attached.step()
    attached.detach()
    assert set(model.state_dict()) == keys
    assert {name for name, _ in model.named_parameters()} == set(parameters)
    assert torch.equal(model(x)[0][2], want)


def test_what_is_not_understood_is_refused_and_left_alone() -> None:
    """Unknown weights, no routers, attached twice: nothing is half attached."""
    model = Stack(SoftmaxRouter(), Odd())
    with pytest.raises(ArgumentError, match=r"layers.1 \(Odd\)"):
        attach(model)
    assert not any("balance" in key for key in model.state_dict())
    with pytest.raises(ArgumentError, match="chooses otherwise"):
        attach(Stack(SoftmaxRouter(), GroupLimited(normalise=False)))
    with pytest.raises(ArgumentError, match="routers as"):
        attach(torch.nn.Linear(2, 2))
    good = Stack(SoftmaxRouter())
    attach(good)
    with pytest.raises(ArgumentError, match="detach"):
        attach(good)
    with pytest.raises(ArgumentError, match="at least one BiasRouter"):
        Balancer(torch.nn.Linear(2, 2))


def test_load_per_expert_parallel_rank() -> None:
    """Two ranks of two experts; or any placement; and in every report where the number is given."""
    assert loads_by_rank(torch.tensor([1, 2, 3, 4]), 2).tolist() == [3, 7]
    assert loads_by_rank(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 0, 0, 1])).tolist() == [5, 5]
    with pytest.raises(ArgumentError, match="ranks"):
        loads_by_rank(torch.tensor([1, 2, 3]), 2)
    with pytest.raises(ArgumentError, match="ranks"):
        loads_by_rank(torch.tensor([1, 2, 3]), torch.tensor([0, 1]))
    model = Stack(SoftmaxRouter(), SoftmaxRouter(16))
    attached = attach(model, expert_ranks=4)
    model(tokens(30))
    attached.step()
    for report in attached.reports().values():
        assert report.rank_counts.tolist() == report.counts.view(4, -1).sum(1).tolist()
        assert report.rank_max_vio == pytest.approx(float(report.rank_counts.max()) / (30 * K / 4) - 1)
    with pytest.raises(ArgumentError, match="expert_ranks"):
        attach(Stack(SoftmaxRouter()), expert_ranks=3)

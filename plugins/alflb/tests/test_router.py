from __future__ import annotations

import copy
import io

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch

from sfumato_alflb import AlfProblem, ArgumentError, BiasRouter, BiasRule, alf_run, update_biases
from sfumato_alflb.router import limit_to_groups, softmax_rate
from sfumato_alflb.state import BalanceState


@pytest.fixture
def router() -> BiasRouter:
    router = BiasRouter(16, 8, 2, u=0.01)
    router.reset_parameters(torch.Generator().manual_seed(0))
    return router


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_routes_by_the_biased_score_and_gates_by_the_unbiased_one(router: BiasRouter) -> None:
    """A large bias draws every token, and leaves its weight as it was."""
    router.normalise = False
    router.bias[3] = 10.0
    out = router(tokens(5, 16))
    assert (out.experts == 3).any(dim=-1).all()
    assert torch.equal(out.weights, out.scores.gather(-1, out.experts))
    assert out.weights.max() < 1.0


def test_the_router_follows_the_numpy_rule_on_fixed_scores(skew: np.ndarray) -> None:
    """Same loads, update by update, as the reference run in float64."""
    scores = skew[:512, :16]
    for rule, u in [("sign", 1e-3), ("prop_sqrt", 0.1), ("sign_inv", 0.1), ("prop_inv", 0.5)]:
        router = BiasRouter(4, 16, 4, rule=rule, u=u)
        run = alf_run(AlfProblem(scores, 4), rule, u, steps=30, keep_loads=True, stop_when_optimal=False)
        assert run.loads is not None
        logits = torch.logit(torch.from_numpy(scores)).float()
        for want in run.loads:
            router.route_logits(logits)
            # float32 scores may settle a near tie the other way.
            assert np.abs(router.counts.numpy() - want).max() <= 1
            router.update_()


def test_no_gradient_passes_through_the_bias_and_one_reaches_the_weight(router: BiasRouter) -> None:
    """The bias is a buffer, not a parameter."""
    router(tokens(32, 16)).weights.square().sum().backward()
    assert router.weight.grad is not None and router.weight.grad.abs().sum() > 0
    assert not router.bias.requires_grad
    assert [name for name, _ in router.named_parameters()] == ["weight"]


def test_the_bias_stays_float32_bit_for_bit_when_the_model_is_cast(router: BiasRouter) -> None:
    """half(), bfloat16() and to(dtype) cast the weight alone; double() does not promote either."""
    router.bias.copy_(tokens(8) / 3)
    want = router.bias.clone()
    for cast in (
        lambda m: m.half(),
        lambda m: m.bfloat16(),
        lambda m: m.to(torch.float16),
        lambda m: m.double(),
    ):
        model = cast(torch.nn.Sequential(copy.deepcopy(router)))
        assert model[0].bias.dtype == torch.float32 and torch.equal(model[0].bias, want)
        assert model[0].counts.dtype == torch.int64 and model[0].step.dtype == torch.int64
    low = torch.nn.Sequential(copy.deepcopy(router)).bfloat16()
    out = low[0](tokens(4, 16).bfloat16())
    assert out.scores.dtype == torch.float32 and out.weights.dtype == torch.float32


def test_routing_is_float32_under_autocast(router: BiasRouter) -> None:
    """Autocast to bfloat16 must not change which experts are chosen."""
    x = tokens(64, 16)
    want = router(x).scores
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(router(x).scores, want)


def test_a_checkpoint_returns_every_bit(router: BiasRouter) -> None:
    """bias and step are saved, counts are not."""
    for seed in range(3):
        router(tokens(40, 16, seed=seed))
        router.update_()
    file = io.BytesIO()
    torch.save(router.state_dict(), file)
    file.seek(0)
    other = BiasRouter(16, 8, 2, u=0.01)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.bias, router.bias) and int(other.step) == 3
    assert set(router.state_dict()) == {"weight", "bias", "step"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.update(bias=torch.zeros(9)), r"bias: expected shape \(8,\), got \(9,\)"),
        (lambda s: s.update(bias=s["bias"].bfloat16()), "bias: expected float32, got torch.bfloat16"),
        (lambda s: s.update(bias=torch.full((8,), float("nan"))), "bias: expected finite"),
        (lambda s: s.pop("bias"), "bias"),
    ],
)
def test_a_spoilt_checkpoint_is_refused_and_leaves_the_bias(
    router: BiasRouter, spoil: object, message: str
) -> None:
    """Wrong length, a rounded bias, NaN, or no bias at all."""
    router.bias.fill_(0.25)
    state = {key: value.clone() for key, value in BiasRouter(16, 8, 2).state_dict().items()}
    spoil(state)  # type: ignore[operator]
    with pytest.raises(RuntimeError, match=message):
        router.load_state_dict(state)
    assert (router.bias == 0.25).all()


def test_evaluation_and_serving_never_count(router: BiasRouter) -> None:
    """Neither validation traffic nor a frozen router moves anything."""
    router.eval()
    router(tokens(8, 16))
    assert router.counts.sum() == 0
    router.train()
    router.freeze()
    router(tokens(8, 16))
    assert router.counts.sum() == 0
    router.freeze(False)
    router(tokens(8, 16))
    assert router.counts.sum() == 16


def test_padding_is_neither_counted_nor_weighted(router: BiasRouter) -> None:
    """The mask leaves 5 real tokens of 12."""
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[0, :3] = mask[1, :2] = True
    x = tokens(2, 6, 16)
    out = router(x, mask)
    assert router.counts.sum() == 10
    assert (out.weights[~mask] == 0).all()
    want = torch.bincount(out.experts[mask].flatten(), minlength=8)
    assert torch.equal(router.counts, want)


def test_accumulated_microbatches_equal_one_large_batch(router: BiasRouter) -> None:
    """One update per optimiser step, whatever the number of microbatches."""
    other = copy.deepcopy(router)
    x = tokens(64, 16)
    router(x)
    router.update_()
    for part in x.split(16):
        other(part)
    other.update_()
    assert torch.equal(router.bias, other.bias) and int(other.step) == 1


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_recomputation_does_not_count_twice(router: BiasRouter, use_reentrant: bool) -> None:
    """Activation checkpointing runs the router again in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    x = tokens(32, 16).requires_grad_()
    runs = []

    def block(y: torch.Tensor) -> torch.Tensor:
        runs.append(1)
        return router(y).weights

    checkpoint(block, x, use_reentrant=use_reentrant).square().sum().backward()
    assert len(runs) == 2
    assert router.counts.sum() == 64


@pytest.mark.parametrize("order", ["checkpoint in a compiled graph", "compiled graph in a checkpoint"])
def test_compiled_recomputation_does_not_count_twice(router: BiasRouter, order: str) -> None:
    """Also where the graph was traced in a forward pass and is then run by the backward pass."""
    from torch.utils.checkpoint import checkpoint

    def block(y: torch.Tensor) -> torch.Tensor:
        return router(y).weights

    def compiled(f):
        return torch.compile(f, backend="aot_eager", fullgraph=True)

    inside = order.startswith("checkpoint")
    part = block if inside else compiled(block)

    def whole(y: torch.Tensor) -> torch.Tensor:
        return checkpoint(part, y, use_reentrant=False)

    run = compiled(whole) if inside else whole
    x = tokens(32, 16).requires_grad_()
    for n in (1, 2):
        run(x).square().sum().backward()
        assert router.counts.sum() == 64 * n


def test_an_empty_batch_makes_no_update(router: BiasRouter) -> None:
    """Neither the bias nor the step counter moves."""
    router(tokens(0, 16))
    router.update_()
    assert int(router.step) == 0 and (router.bias == 0).all()


def test_many_routers_of_different_size_are_updated_together() -> None:
    """One flat vector of counts for 4, 8 and 16 experts."""
    states = [BalanceState(n, 2, "sign", 0.5) for n in (4, 8, 16)]
    for state in states:
        state.counts[0] = 10
    summed = update_biases(states)
    assert [len(c) for c in summed] == [4, 8, 16]
    for state in states:
        assert state.bias[0] == -0.5 and (state.bias[1:] == 0.5).all() and state.counts.sum() == 0


def test_int64_counts_keep_the_sign_that_bfloat16_loses() -> None:
    """64 ranks with 608 to 676 tokens each: the true sum is 40,840, and bf16 near 40k is 256 apart."""
    rng = np.random.default_rng(0)
    ranks = rng.integers(608, 677, 64)
    while ranks.sum() != 40840:
        i = rng.integers(64)
        ranks[i] = np.clip(ranks[i] + np.sign(40840 - ranks.sum()), 608, 676)
    exact = torch.from_numpy(ranks).sum()
    assert int(exact) == 40840
    orders = [ranks, np.sort(ranks), np.sort(ranks)[::-1].copy()]
    low = [torch.from_numpy(order).to(torch.bfloat16) for order in orders]
    sums = {float(sum(x[1:], x[0])) for x in low}
    assert 40840.0 not in sums
    mean = 40900  # the expert is a little below the mean load, and its bias must rise
    assert {float(np.sign(mean - total)) for total in sums} == {
        -1.0,
        1.0,
    }  # bfloat16: it depends on the order
    state = BalanceState(2, 1, "sign", 1.0)
    state.add_counts(torch.tensor([40840, 2 * mean - 40840]), 2 * mean)
    state.update_()
    assert state.bias.tolist() == [1.0, -1.0]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (torch.tensor([1.0, 1.0]), "integer dtype"),
        (torch.tensor([1, 2]), "sum to k"),
        (torch.tensor([-1, 3]), "entries >= 0"),
        (torch.tensor([1, 1, 0]), "shape"),
    ],
)
def test_counts_that_cannot_be_are_refused(counts: torch.Tensor, message: str) -> None:
    """Float counts, wrong sums, negative entries; the state stays as it was."""
    state = BalanceState(2, 1)
    with pytest.raises(ArgumentError, match=message):
        state.add_counts(counts, 2)
    assert state.counts.sum() == 0


def test_group_limited_routing_stays_in_the_best_groups() -> None:
    """4 groups of 4 experts, at most 2 groups a token; checked against a loop in plain Python."""
    router = BiasRouter(8, 16, 4, groups=4, top_groups=2)
    out = router(tokens(50, 8))
    for score, experts in zip(out.scores.detach() + router.bias, out.experts, strict=True):
        groups = score.view(4, 4)
        strength = [sum(sorted(g.tolist())[-2:]) for g in groups]
        best = sorted(range(4), key=lambda g: -strength[g])[:2]
        allowed = [e for e in range(16) if e // 4 in best]
        want = sorted(allowed, key=lambda e: -float(score[e]))[:4]
        assert sorted(experts.tolist()) == sorted(want)
    assert limit_to_groups(torch.zeros(1, 4), 2, 2).isfinite().all()


def test_recentring_and_clipping_bound_the_bias() -> None:
    """An expert that can never be balanced does not run away."""
    state = BalanceState(4, 1, "sign", 0.1, recentre=True, clip=0.3)
    for _ in range(20):
        state.add_counts(torch.tensor([8, 0, 0, 0]), 8)
        state.update_()
    assert state.bias.abs().max() <= 0.3


def test_the_softmax_step_moves_logits_as_far_as_the_sigmoid_step() -> None:
    """At even routing both change of score / slope agree."""
    with pytest.raises(ArgumentError, match="experts"):
        softmax_rate(1e-3, 1)
    with pytest.raises(ArgumentError, match="u:"):
        softmax_rate(-1.0, 8)
    n = 64
    slope = (1 / n) * (1 - 1 / n)
    assert softmax_rate(1e-3, n) / slope == pytest.approx(1e-3 / 0.25)


def test_the_theory_step_needs_its_modulus() -> None:
    """ogd divides by mu n, in tokens."""
    state = BalanceState(2, 1, BiasRule("ogd", mu=10.0))
    state.add_counts(torch.tensor([3, 1]), 4)
    state.update_()
    assert state.bias.tolist() == pytest.approx([-0.1, 0.1])


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"k": 8}, "k"),
        ({"k": 0}, "k"),
        ({"k": 1.5}, "k"),
        ({"experts": 4.5}, "experts"),
        ({"dim": 0}, "dim"),
        ({"scale": float("nan")}, "scale"),
        ({"groups": 2.0}, "groups"),
        ({"u": -1.0}, "u"),
        ({"rule": "signs"}, "rule"),
        ({"score": "tanh"}, "score"),
        ({"groups": 3}, "groups"),
        ({"groups": 4, "top_groups": 5}, "top_groups"),
        ({"kernel": "cuda"}, "kernel"),
        ({"clip": 0.0}, "clip"),
    ],
)
def test_bad_settings_are_refused_by_name(change: dict[str, object], argument: str) -> None:
    """The error names the argument."""
    with pytest.raises(ArgumentError) as caught:
        BiasRouter(**{"dim": 4, "experts": 8, "k": 2, **change})  # type: ignore[arg-type]
    assert caught.value.argument == argument


def test_counts_of_another_length_are_refused(router: BiasRouter) -> None:
    """The bias stays as it was."""
    before = router.bias.clone()
    with pytest.raises(ArgumentError, match="counts"):
        router.apply_counts(torch.tensor([1, 2, 3]))
    assert torch.equal(router.bias, before) and int(router.step) == 0


def test_bad_tokens_and_masks_are_refused_before_anything_is_counted(router: BiasRouter) -> None:
    """State unchanged."""
    with pytest.raises(ArgumentError, match="x:"):
        router(tokens(3, 15))
    with pytest.raises(ArgumentError, match="mask:"):
        router(tokens(3, 16), torch.ones(4, dtype=torch.bool))
    assert router.counts.sum() == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_are_refused_before_anything_is_counted(
    router: BiasRouter, bad: float
) -> None:
    """One NaN token would otherwise be routed somewhere and counted; check_finite=False leaves that to the caller."""
    x = tokens(4, 16)
    x[2, 3] = bad
    with pytest.raises(ArgumentError, match="logits"):
        router(x)
    assert router.counts.sum() == 0
    router.check_finite = False
    router(x)
    assert router.counts.sum() == 8
    with pytest.raises(ArgumentError, match="logits"):
        router.route_logits(torch.zeros(3, 7))


def test_deepcopy_and_meta_device_work() -> None:
    """Large models are built on the meta device and materialised later: what memory held before is no balance."""
    router = BiasRouter(16, 8, 2, device="meta").bfloat16()
    assert router.bias.dtype == torch.float32
    torch.use_deterministic_algorithms(True)  # new memory is then filled with NaN and huge integers
    try:
        router.to_empty(device="cpu")
    finally:
        torch.use_deterministic_algorithms(False)
    assert router.weight.isnan().all()
    assert router.bias.dtype == torch.float32
    assert not router.counts.any() and not router.bias.any() and int(router.step) == 0

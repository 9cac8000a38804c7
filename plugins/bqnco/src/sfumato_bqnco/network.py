"""The network: one encoder over the whole remaining instance, run again at every step.

No decoder, no positions and no cached embeddings: the origin and, except for the TSP, a scalar on every token
change at each step, so everything is computed anew.

Source: Drakulic, Michel, Mai, Sors, Andreoli, "BQ-NCO: Bisimulation Quotienting for Efficient Neural Combinatorial
Optimization", NeurIPS 2023, section 4 (architecture). PerceiverIO: Jaegle et al., ICLR 2022. ReZero: Bachlechner
et al., UAI 2021. The distance bias, the relative features and the ATSP edge bias are ours.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import NetworkConfig
from .features import Tokens, arc_features, n_features

_BIAS_DIMS = 3


class _Attention(nn.Module):
    """Multi-head attention; `context_width` differs from `width` in the Perceiver's cross-attentions."""

    def __init__(
        self, width: int, n_heads: int, *, context_width: int | None = None, scaled: bool, distance_bias: bool = False,
        inner: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        inner = inner or width
        context_width = context_width or width
        self.n_heads = n_heads
        self.head = inner // n_heads
        # The bias takes three of the head's dimensions, so that queries, keys and values keep one common size:
        # the fused kernels ask for that.
        self.content = self.head - (_BIAS_DIMS if distance_bias else 0)
        self.scale = 1.0 / math.sqrt(self.head) if scaled else 1.0
        # A bias on the keys shifts all logits of a query alike and cancels in the softmax; queries have none either.
        self.query = nn.Linear(width, self.content * n_heads, bias=False)
        self.key = nn.Linear(context_width, self.content * n_heads, bias=False)
        self.value = nn.Linear(context_width, inner)
        self.out = nn.Linear(inner, width, bias=False)
        self.square = context_width == width == inner
        self._cache: tuple[Any, Tensor, Tensor] | None = None
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.value.bias)
        if distance_bias:
            slopes = torch.logspace(-2.0, 0.7, n_heads)
            self.slope = nn.Parameter(torch.log(torch.expm1(slopes)))

    def _split(self, x: Tensor, size: int) -> Tensor:
        return x.unflatten(-1, (self.n_heads, size)).transpose(1, 2)

    def _fused(self) -> tuple[Tensor, Tensor]:
        """One matrix for queries, keys and values of self-attention, and the bias of the output; inference only.

        Its input is x, followed, with the distance bias, by p, -|p|^2 and 1. The bias of the values passes through the
        softmax unchanged (its rows sum to one), so it is added once, behind the output matrix.
        """
        parameters = list(self.parameters())
        # In-place updates (an optimiser, load_state_dict) raise a version, a move to another device the address.
        state = tuple((w._version, w.data_ptr()) for w in parameters if not w.is_inference())
        if self._cache is None or self._cache[0] != state:
            rows = []
            for which, weight in enumerate(
                (self.query.weight * self.scale, self.key.weight, self.value.weight)
            ):
                block = weight.unflatten(0, (self.n_heads, -1))
                if hasattr(self, "slope"):
                    block = F.pad(block, (0, 4, 0, _BIAS_DIMS if which < 2 else 0))
                    if which == 0:
                        slope = F.softplus(self.slope)
                        block[:, -3, -4] = block[:, -2, -3] = 2.0 * slope
                        block[:, -1, -1] = slope
                    elif which == 1:
                        block[:, -3, -4] = block[:, -2, -3] = block[:, -1, -2] = 1.0
                rows.append(block.flatten(0, 1))
            self._cache = (state, torch.cat(rows), self.out.weight @ self.value.bias)
        return self._cache[1], self._cache[2]

    def _infer(self, x: Tensor, mask: Tensor | None, xy: Tensor | None) -> Tensor:
        """Self-attention with one product for queries, keys and values."""
        weight, bias = self._fused()
        if xy is not None:
            square = -xy.square().sum(-1, keepdim=True)
            x = torch.cat((x, xy, square, torch.ones_like(square)), -1)
        q, k, v = F.linear(x, weight).unflatten(-1, (3, self.n_heads, self.head)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        return F.linear(out.transpose(1, 2).flatten(-2), self.out.weight, bias)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None, xy: Tensor | None = None) -> Tensor:
        # The compiler makes its own fused kernels, and could not trace the cache of this one.
        eager = not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()
        if eager and x is context and self.square and x.dtype == torch.float32:
            return self._infer(x, mask, xy)
        q = self._split(self.query(x), self.content) * self.scale
        k = self._split(self.key(context), self.content)
        v = self._split(self.value(context), self.head)
        if xy is not None:
            # -s |p_i - p_j|^2 = 2 s p_i.p_j - s |p_j|^2 - s |p_i|^2, and the last term cancels in the softmax.
            slope = F.softplus(self.slope.float()).to(xy.dtype)[:, None, None]
            p = xy[:, None]
            ones = torch.ones_like(p[..., :1])
            q = torch.cat((q, (2.0 * slope) * p, slope * ones), -1)
            square = -p.square().sum(-1, keepdim=True)
            k = torch.cat((k, torch.cat((p, square), -1).expand(-1, self.n_heads, -1, -1).to(k.dtype)), -1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        return self.out(out.transpose(1, 2).flatten(-2))


class _Block(nn.Module):
    """Attention and feed-forward, each behind pre-LayerNorm or a ReZero scalar."""

    def __init__(
        self, width: int, n_heads: int, feed_forward: int, *, norm: str, scaled: bool, bias: bool
    ) -> None:
        super().__init__()
        self.attention = _Attention(width, n_heads, scaled=scaled, distance_bias=bias)
        self.inner = nn.Linear(width, feed_forward)
        self.outer = nn.Linear(feed_forward, width)
        self.rezero = norm == "rezero"
        if self.rezero:
            self.alpha = nn.Parameter(torch.zeros(2))
        else:
            self.norms = nn.ModuleList((nn.LayerNorm(width), nn.LayerNorm(width)))

    def forward(self, x: Tensor, mask: Tensor | None, xy: Tensor | None) -> Tensor:
        if self.rezero:
            x = x + self.alpha[0] * self.attention(x, x, mask, xy)
            return x + self.alpha[1] * self.outer(F.relu(self.inner(x), inplace=True))
        h = self.norms[0](x)
        x = x + self.attention(h, h, mask, xy)
        return x + self.outer(F.relu(self.inner(self.norms[1](x)), inplace=True))


class _Perceiver(nn.Module):
    """Tokens into latents, latents among themselves, latents back to tokens: cost linear in the number of tokens."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        c = config
        self.latents = nn.Parameter(torch.randn(c.n_latents, c.latent_width) * 0.02)
        self.norm_in = nn.LayerNorm(c.width)
        self.norm_latents = nn.LayerNorm(c.latent_width)
        self.read = _Attention(
            c.latent_width, c.latent_heads, context_width=c.width, scaled=True, inner=c.width
        )
        self.blocks = nn.ModuleList(
            _Block(c.latent_width, c.latent_heads, c.feed_forward, norm="pre", scaled=True, bias=False)
            for _ in range(c.n_layers)
        )
        self.norm_out = nn.LayerNorm(c.latent_width)
        self.write = _Attention(
            c.width, c.latent_heads, context_width=c.latent_width, scaled=True, inner=c.width
        )
        self.norm_token = nn.LayerNorm(c.width)
        self.inner = nn.Linear(c.width, c.feed_forward)
        self.outer = nn.Linear(c.feed_forward, c.width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        h = self.norm_in(x)
        latents = self.latents.expand(len(x), -1, -1)
        latents = latents + self.read(self.norm_latents(latents), h, mask)
        for block in self.blocks:
            latents = block(latents, None, None)
        x = x + self.write(h, self.norm_out(latents), None)
        return x + self.outer(F.relu(self.inner(self.norm_token(x)), inplace=True))


class _AtspInput(nn.Module):
    """Embeddings from a cost matrix: identifiers passed once along the outgoing and incoming softmax graphs.

    h_i = Linear[A_out r, A_in r, r_i, f_i] with A_out = softmax(-c / tau) over rows, A_in likewise of the transpose, a
    learned tau for each of four groups of identifier channels, and features f_i of the token (the costs to and from
    both ends, or `arc_features`).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.n_groups = 4
        self.log_tau = nn.Parameter(torch.linspace(-3.0, 0.0, self.n_groups))
        self.linear = nn.Linear(3 * config.n_identifiers + n_features(config), config.width)

    def forward(self, matrix: Tensor, valid: Tensor, identifiers: Tensor, features: Tensor) -> Tensor:
        n = matrix.shape[1]
        blocked = ~valid[:, None, :] | torch.eye(n, dtype=torch.bool, device=matrix.device)
        r = identifiers.unflatten(-1, (self.n_groups, -1)).transpose(1, 2)
        tau = self.log_tau.exp()[:, None, None]

        def mixed(cost: Tensor) -> Tensor:
            logits = (-cost[:, None] / tau).masked_fill(blocked[:, None], -1e9)
            return (logits.softmax(-1) @ r).transpose(1, 2).flatten(-2)

        return self.linear(torch.cat((mixed(matrix), mixed(matrix.mT), identifiers, features), -1))


class _ArcBias(nn.Module):
    """What the features of an arc add to the attention logits of each head, in every layer: [B, layers, heads, N, N].

    One hidden layer serves all layers of the network, because its N^2 activations are what costs.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        relative = config.features == "relative"
        self.n_heads = config.n_heads
        self.hidden = nn.Linear(6 if relative else 2, 16 if relative else 8)
        self.out = nn.Linear(self.hidden.out_features, config.n_layers * config.n_heads)

    def forward(self, arcs: Tensor) -> Tensor:
        bias: Tensor = self.out(F.relu(self.hidden(arcs)))
        return bias.permute(0, 3, 1, 2).unflatten(1, (-1, self.n_heads))


class BQNetwork(nn.Module):
    """Logits for every option of a BQ state: [B, N, 1], or [B, N, 2] for the CVRP (direct, via the depot).

    The ends and padding are not masked here: the environment knows what is feasible.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.has_ends = c.problem != "kp"
        if c.problem == "atsp":
            self.atsp_input = _AtspInput(c)
            if c.edge_bias:
                self.edge = _ArcBias(c)
        else:
            self.input = nn.Linear(n_features(c), c.width)
        if self.has_ends:
            self.ends = nn.Parameter(torch.randn(2, c.width) * 0.1)
        if c.kind == "perceiver":
            self.perceiver = _Perceiver(c)
        else:
            self.blocks = nn.ModuleList(
                _Block(
                    c.width,
                    c.n_heads,
                    c.feed_forward,
                    norm=c.norm,
                    scaled=c.scaled_attention,
                    bias=c.distance_bias,
                )
                for _ in range(c.n_layers)
            )
        self.norm = nn.LayerNorm(c.width) if c.norm == "pre" and c.kind == "transformer" else nn.Identity()
        self.head = nn.Linear(c.width, 2 if c.problem in ("cvrp", "cvrptw") else 1)

    def forward(self, tokens: Tokens, identifiers: Tensor | None = None) -> Tensor:
        """Logits [B, N, 1 or 2]; `identifiers` [B, N, n_identifiers], ATSP only: U(0, 1), fixed through a rollout."""
        if self.config.problem == "atsp" and (tokens.matrix is None or identifiers is None):
            raise ValueError("BQNetwork: an ATSP network needs `tokens.matrix` and `identifiers`")
        # Without padding no mask at all: the fused kernel is then the fastest, and its memory is O(N).
        valid = None if bool(tokens.valid.all()) else tokens.valid
        return self.logits(tokens.x, valid, tokens.xy, tokens.matrix, identifiers)

    def logits(
        self, x: Tensor, valid: Tensor | None, xy: Tensor | None, matrix: Tensor | None, identifiers: Tensor | None
    ) -> Tensor:
        """`forward` on plain tensors (see `Tokens`); `valid` None: no token is padding."""
        c = self.config
        if c.problem == "atsp":
            assert matrix is not None and identifiers is not None
            full = torch.ones_like(matrix[:, 0, 0], dtype=torch.bool) if valid is None else valid
            if c.features == "relative":
                features, arcs = arc_features(matrix, full)
            else:
                cost = matrix[:, 0]
                features = torch.stack((cost[:, 0], cost[:, :, 1], cost[:, :, 0], cost[:, 1]), -1)
                arcs = torch.stack((cost, cost.mT), -1)
            x = self.atsp_input(matrix[:, 0], full, identifiers, features)
        else:
            x = self.input(x)
        if self.has_ends:
            x = torch.cat((x[:, :2] + self.ends, x[:, 2:]), 1)
        mask = None if valid is None else valid[:, None, None, :]
        if c.kind == "perceiver":
            return self.head(self.perceiver(x, mask))
        bias = None
        if c.problem == "atsp" and c.edge_bias:
            bias = self.edge(arcs)
            if mask is not None:
                bias = bias.masked_fill(~mask[:, None], -torch.inf)
        for i, block in enumerate(self.blocks):
            x = block(x, mask if bias is None else bias[:, i], xy if c.distance_bias else None)
        return self.head(self.norm(x))

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters())

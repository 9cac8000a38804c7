"""Tasks: assign batches of tokens whose scores are given, or configure the routers of a model to be trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import attrs
import numpy as np

from sfumato.errors import ProtocolError
from sfumato.protocols import Context, Episode, Task
from sfumato.records import Start, Step

from .config import CharLmConfig, RouterChoice, ScoresConfig, StreamConfig
from .errors import ArgumentError
from .problem import AlfProblem, Bools, Floats, affinity, checked_bias
from .scorefiles import load_scores
from .streams import ScoreStream, StreamSpec, fixed_scores

ROUTER_CHOICE = "router_choice"
SCORES = "scores"


@attrs.frozen(eq=False)
class Batches:
    """An instance: how to draw the same batches again. `scores` is a fixed matrix, or None for a stream."""

    k: int
    n_batches: int
    scores: Floats | None = attrs.field(default=None, repr=False)
    spec: StreamSpec | None = None
    seed: int = 0

    def __iter__(self) -> Iterator[tuple[Floats, Floats | None]]:
        """Yield (scores [T, E], best fixed bias [E] in expectation where it is known)."""
        if self.scores is not None:
            for _ in range(self.n_batches):
                yield self.scores, None
            return
        assert self.spec is not None
        stream = ScoreStream(self.spec, self.n_batches, np.random.default_rng(self.seed))
        for scores in stream:
            yield scores, stream.best_bias


def chosen_by(action: Any, scores: Floats, k: int) -> tuple[Bools, Floats | None]:
    """Return the assignment [T, E] that an action means, and its bias when it is one.

    An action is a bias, float [E], which routes every token to its top K of score + bias; or an assignment,
    bool [T, E]. Raises ArgumentError otherwise.
    """
    action = np.asarray(action)
    if action.dtype == np.bool_ and action.shape == scores.shape:
        return action, None
    if action.ndim == 1 and action.dtype.kind == "f":
        bias = checked_bias(action, scores.shape[1], "action")
        return AlfProblem(scores, k).route(bias).chosen, bias
    raise ArgumentError(
        "action",
        f"a bias (float [{scores.shape[1]}]) or an assignment (bool {scores.shape})",
        f"{action.dtype} {action.shape}",
    )


class BatchEpisode(Episode[Floats, Any]):
    """Shows one batch of scores at a time; the reward is the mean chosen score per token, in units of score.

    `info["loads"]`, int [E], tells how many tokens each expert got.
    """

    def __init__(self, instance: Batches) -> None:
        self._instance = instance
        self._batches = iter(instance)
        self._left = instance.n_batches
        self._first = self._next()  # drawn once: a second reset shows the same

    def _next(self) -> Floats:
        self._scores, _ = next(self._batches)
        return self._scores

    def reset(self) -> Start[Floats]:
        scores = self._first
        public = {
            "kind": SCORES, "k": self._instance.k, "n_batches": self._instance.n_batches,
            "n_tokens": scores.shape[0], "n_experts": scores.shape[1],
        }  # fmt: skip
        return Start(scores, public)

    def step(self, action: Any) -> Step[Floats]:
        if self._left == 0:
            raise ProtocolError("step after the last batch: this episode is over. Start another one.")
        scores = self._scores
        chosen, _ = chosen_by(action, scores, self._instance.k)
        reward = affinity(AlfProblem(scores, self._instance.k), chosen) / max(1, scores.shape[0])
        self._left -= 1
        done = self._left == 0
        return Step(scores if done else self._next(), reward, done, False, {"loads": chosen.sum(axis=0)})


class ScoresTask(Task[Batches, Floats, Any]):
    """`alflb/scores`: one fixed matrix of scores, to be assigned in one step."""

    offers: ClassVar[frozenset[str]] = frozenset({SCORES})
    max_steps: int | None = 1

    def __init__(self, config: ScoresConfig | None = None) -> None:
        self.config = config or ScoresConfig()

    def instances(self, ctx: Context) -> Iterable[Batches]:
        config = self.config
        for index in ctx.indices:
            if config.path:
                scores = load_scores(config.path)
            else:
                rng = ctx.stream("scores", index)
                scores = fixed_scores(config.kind, config.n_tokens, config.n_experts, rng)
            yield Batches(AlfProblem(scores, config.k).k, 1, scores)

    def start(self, instance: Batches, ctx: Context, rng: np.random.Generator) -> BatchEpisode:
        return BatchEpisode(instance)


class StreamTask(Task[Batches, Floats, Any]):
    """`alflb/stream`: fresh scores at every step from experts of unequal quality, constant or drifting."""

    offers: ClassVar[frozenset[str]] = frozenset({SCORES})

    def __init__(self, config: StreamConfig | None = None) -> None:
        self.config = config or StreamConfig()
        self.max_steps = self.config.n_batches

    def instances(self, ctx: Context) -> Iterable[Batches]:
        config = self.config
        if config.k >= config.n_experts:
            raise ArgumentError("k", f"less than n_experts = {config.n_experts}", repr(config.k))
        spec = StreamSpec(config.n_tokens, config.n_experts, config.kind, config.spread, config.drift)
        for index in ctx.indices:
            seed = int(ctx.stream("scores", index).integers(2**62))
            yield Batches(config.k, config.n_batches, None, spec, seed)

    def start(self, instance: Batches, ctx: Context, rng: np.random.Generator) -> BatchEpisode:
        return BatchEpisode(instance)


@attrs.frozen
class CharLmInstance:
    """One training run: its number; weights and batches come from the world's stream."""

    index: int


class CharLmEpisode(Episode[Mapping[str, Any], Mapping[str, Any]]):
    """One step: the action is a `RouterChoice` as a mapping; the model is then trained under it."""

    def __init__(self, config: CharLmConfig, ctx: Context, rng: np.random.Generator) -> None:
        self.config, self._ctx, self._rng = config, ctx, rng
        self._truth: dict[str, Any] | None = None

    def reset(self) -> Start[Mapping[str, Any]]:
        sizes = {"experts": self.config.experts, "k": self.config.k, "steps": self.config.steps}
        return Start(sizes, {"kind": ROUTER_CHOICE, **sizes})

    def step(self, action: Mapping[str, Any]) -> Step[Mapping[str, Any]]:
        if self._truth is not None:
            raise ProtocolError("step after training: this episode is over. Start another one.")
        from .lm import train
        from .text import help_topics

        choice = RouterChoice(**action)
        text = help_topics()
        total = self.config.steps

        def on_step(step: int, loss: float) -> None:
            if step % 10 == 0:
                self._ctx.progress(step / total, f"step {step} of {total}, loss {loss:.3f}")

        report = train(text, self.config, choice, self._rng, device=self._ctx.device, on_step=on_step)
        self._truth = {
            "valid_loss": report.valid_loss,
            "max_vio_global": report.max_vio_global,
            "min_vio_global": report.min_vio_global,
            "max_vio_batch": report.max_vio_batch,
            "max_abs_bias": report.max_abs_bias,
            "train_cpu_seconds": report.cpu_seconds,
            "losses": report.losses,
            "max_vio_by_step": report.vio.mean(axis=1),
            "text_sha256": text.sha256,
            "n_weights": report.n_weights,
        }
        return Step({}, -report.valid_loss, True)

    def truth(self) -> Mapping[str, Any] | None:
        return self._truth


class CharLmTask(Task[CharLmInstance, Mapping[str, Any], Mapping[str, Any]]):
    """`alflb/char-lm`: train a small mixture-of-experts character model for real."""

    offers: ClassVar[frozenset[str]] = frozenset({ROUTER_CHOICE})
    max_steps: int | None = 1

    def __init__(self, config: CharLmConfig | None = None) -> None:
        self.config = config or CharLmConfig()

    def instances(self, ctx: Context) -> Iterable[CharLmInstance]:
        for index in ctx.indices:
            yield CharLmInstance(index)

    def start(self, instance: CharLmInstance, ctx: Context, rng: np.random.Generator) -> CharLmEpisode:
        return CharLmEpisode(self.config, ctx, rng)

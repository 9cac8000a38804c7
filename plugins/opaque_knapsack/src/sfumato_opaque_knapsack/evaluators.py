"""Evaluators: what an episode was worth, and how its agent worked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sfumato.protocols import Evaluator
from sfumato.records import Metric, Trace
from sfumato_opaque_knapsack.instances import Instance
from sfumato_opaque_knapsack.metrics import count_words, longest_run
from sfumato_opaque_knapsack.world import World, replay


def _call(action: Any) -> tuple[Any, Sequence[Any], Mapping[str, Any]]:
    """Return tool, args and kwargs as the task read them; what is malformed becomes a call to no tool."""
    if not isinstance(action, Mapping):
        return None, (), {}
    args, kwargs = action.get("args") or (), action.get("kwargs") or {}
    if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping):
        return None, (), {}
    return action.get("tool"), args, kwargs


def _spelt_out(action: Any, world: World, form: str) -> tuple[Any, Sequence[Any], Mapping[str, Any]]:
    """Return a call, or a numbered action of the POMDP form, as tool, args and kwargs."""
    if not isinstance(action, bool) and hasattr(action, "__index__"):
        from sfumato_opaque_knapsack.pomdp import call_of, item_action

        ids = [item.id for item in world.instance.items]
        action = call_of(item_action(int(action), world, form), ids)
    return _call(action)


class ScoreEvaluator(Evaluator[Instance]):
    """Replay the calls in a fresh world; rewards, notes and the policy's claims are not looked at."""

    def score(self, instance: Instance, trace: Trace) -> Iterable[Metric]:
        truth = trace.truth or {}
        form = str(truth.get("pomdp_actions", "items"))
        outcome = replay(
            instance,
            list(trace.native.actions),
            strict_take=bool(truth.get("strict_take", False)),
            spell=lambda action, world: _spelt_out(action, world, form),
        )
        yield Metric("score", outcome.score, "1", "max")
        yield Metric("solved", float(outcome.solved), "1", "max")
        yield Metric("gap", outcome.gap, "1", "min")
        yield Metric("weight_share", outcome.weight / instance.capacity, "1")
        yield Metric("items_taken", outcome.n_taken, "items")
        yield Metric("items_inspected", outcome.n_inspected, "items")
        yield Metric("coverage", outcome.n_inspected / instance.n, "1")
        yield Metric("repeat_inspections", outcome.n_inspect_calls - outcome.n_inspected, "calls")
        yield Metric("refused_takes", outcome.n_refused, "calls")
        yield Metric("leaked_refusals", outcome.n_leaks, "calls")
        yield Metric("finished", float(outcome.finished), "1", "max")


def _text(action: Any) -> str | None:
    """Return what an agent said; None when the action is not text."""
    if isinstance(action, Mapping):
        action = action.get("message")
    return action if isinstance(action, str) else None


class AgentEvaluator(Evaluator[Instance]):
    """How an agent that writes code worked: turns, words, failing actions, missing variables.

    What failed is told by the runtime (`truth["runtime"]`), never by the policy. Without a runtime that tells, only
    turns and words are given. Words are counted by `metrics.count_words`, which needs no tokenizer and cannot be
    claimed; a policy's own token counts appear as `claimed_…`.
    """

    def score(self, instance: Instance, trace: Trace) -> Iterable[Metric]:
        said = [_text(action) for action in trace.actions]
        if any(text is None for text in said):
            return
        yield Metric("turns", len(said), "turns", "min")
        yield Metric("completion_words", sum(count_words(text or "") for text in said), "words", "min")
        runtime = (trace.truth or {}).get("runtime")
        actions = runtime.get("actions") if isinstance(runtime, Mapping) else None
        if actions is not None:
            failed = [not action.get("ok", True) for action in actions]
            missing = [action.get("error_type") == "NameError" for action in actions]
            strict = [
                m and bool(action.get("bound_earlier")) for m, action in zip(missing, actions, strict=True)
            ]
            n = max(len(actions), 1)
            yield Metric("failed_actions", sum(failed), "actions", "min")
            yield Metric("longest_failing_run", longest_run(failed), "actions", "min")
            yield Metric("missing_var_any", float(any(missing)), "1", "min")
            yield Metric("missing_var_strict", float(any(strict)), "1", "min")
            yield Metric("missing_var_step_rate", sum(missing) / n, "1", "min")
        notes = trace.notes or {}
        for name in ("completion_tokens", "cumulative_tokens", "unique_tokens", "model_seconds"):
            if isinstance(notes.get(name), int | float):
                yield Metric(
                    f"claimed_{name}", notes[name], "s" if name == "model_seconds" else "tokens", "min"
                )

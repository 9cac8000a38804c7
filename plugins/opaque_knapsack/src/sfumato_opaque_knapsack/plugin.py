"""What this plugin offers; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from sfumato import BackendSpec, CommandSpec, ComponentSpec, ReportSection, hookimpl

PLUGIN_API = 1

_SOURCE = "arXiv:2603.01209"
_PACKAGE = "sfumato_opaque_knapsack"
_EVALUATORS = ("opaque-knapsack/score", "opaque-knapsack/agent")
_TASKS = (
    (
        "easy",
        "EasyTask",
        "Hidden items behind budgeted tools: 25 to 40 items, 15 classes of which 3 may be taken",
    ),
    ("hard", "HardTask", "The same with 80 to 120 items and 26 classes of which 5 may be taken"),
    (
        "legacy-hard",
        "LegacyHardTask",
        "The level that the released configurations call hard (not the paper's Hard)",
    ),
    ("micro", "MicroTask", "8 to 12 items and 4 calls a block: for models trained in minutes"),
)
_MODELS = (
    ("transformers", "Transformers", "A language model of the transformers library, in process"),
    ("openai", "OpenAI", "A language model behind a server that speaks the OpenAI chat protocol"),
    ("replay", "Replay", "The messages of a trace file, said again"),
)


@hookimpl
def sfumato_components() -> Iterator[ComponentSpec]:
    for name, target, summary in _TASKS:
        yield ComponentSpec(
            "task",
            f"opaque-knapsack/{name}",
            target=f"{_PACKAGE}.tasks:{target}",
            config=f"{_PACKAGE}.config:TaskConfig",
            summary=summary,
            source=_SOURCE,
            evaluators=_EVALUATORS,
        )
    yield ComponentSpec(
        "solver",
        "opaque-knapsack/expert",
        target=f"{_PACKAGE}.solvers:ExpertSolver",
        config=f"{_PACKAGE}.config:ExpertConfig",
        summary="Scripted reference policies: by tool calls, or by code of the persistent or stateless kind",
        source=_SOURCE,
    )
    yield ComponentSpec(
        "solver",
        "opaque-knapsack/injector",
        target=f"{_PACKAGE}.solvers:InjectorSolver",
        config=f"{_PACKAGE}.config:InjectorConfig",
        summary="An expert that fails in known ways at a known rate",
        source=_SOURCE,
    )
    yield _decoder()
    for name, target, summary in _MODELS:
        yield ComponentSpec(
            "solver",
            f"opaque-knapsack/{name}",
            target=f"{_PACKAGE}.chat:{target}Solver",
            config=f"{_PACKAGE}.config:{target}Config",
            summary=summary,
            source=_SOURCE,
            backends=(BackendSpec("torch", devices=("cpu", "cuda"), extra="train"),)
            if name == "transformers"
            else (),
        )
    yield ComponentSpec(
        "evaluator",
        "opaque-knapsack/score",
        target=f"{_PACKAGE}.evaluators:ScoreEvaluator",
        summary="Score against the full-information optimum, recomputed from the calls that reached the task",
        source=_SOURCE,
    )
    yield ComponentSpec(
        "evaluator",
        "opaque-knapsack/agent",
        target=f"{_PACKAGE}.evaluators:AgentEvaluator",
        summary="Turns, tokens, failing actions and missing variables of agents that write code",
        source=_SOURCE,
    )


def _decoder() -> ComponentSpec:
    return ComponentSpec(
        "solver",
        "opaque-knapsack/copy-decoder",
        target=f"{_PACKAGE}.chat:DecoderSolver",
        config=f"{_PACKAGE}.config:DecoderSolverConfig",
        summary="A small decoder trained on traces of one interpreter: the learned agent of the 2 x 2",
        source=_SOURCE,
        backends=(BackendSpec("torch", devices=("cpu", "cuda"), extra="torch"),),
    )


@hookimpl
def sfumato_commands() -> Iterator[CommandSpec]:
    cli = f"{_PACKAGE}.cli"
    yield CommandSpec("traces", target=f"{cli}:traces", help="Write paired traces of scripted experts")
    yield CommandSpec("smollm2", target=f"{cli}:smollm2", help="Write SmolLM2-135M as a transformers folder")
    yield CommandSpec("train", target=f"{cli}:train", help="Fine-tune a model on one regime's traces")
    yield CommandSpec(
        "two-by-two", target=f"{cli}:two_by_two", help="Train on each regime, play in both interpreters"
    )


@hookimpl
def sfumato_report_sections() -> Iterator[ReportSection]:
    levels = tuple(f"opaque-knapsack/{name}" for name in ("easy", "hard", "legacy-hard", "micro"))
    yield ReportSection("Transcript", target="sfumato_opaque_knapsack.report:transcripts", tasks=levels)
    yield ReportSection("Agent", target="sfumato_opaque_knapsack.report:agent", tasks=levels)

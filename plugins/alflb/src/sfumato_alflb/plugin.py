"""What this plugin offers. Light: imports the core's declarations alone."""

from __future__ import annotations

from collections.abc import Iterator

from sfumato import BackendSpec, CommandSpec, ComponentSpec, Finding, ReportSection, hookimpl

PLUGIN_API = 1
_PAPER = "arXiv:2512.03915"
_METHOD = "arXiv:2408.15664"
_NUMPY = (BackendSpec("numpy", devices=("cpu",)),)
_TORCH = (BackendSpec("torch", devices=("cpu", "cuda"), extra="torch"),)


def _solver(name: str, target: str, config: str, summary: str, source: str) -> ComponentSpec:
    return ComponentSpec(
        "solver", f"alflb/{name}", target=f"sfumato_alflb.solvers:{target}",
        config=f"sfumato_alflb.config:{config}", summary=summary, source=source,
    )  # fmt: skip


@hookimpl
def sfumato_components() -> Iterator[ComponentSpec]:
    """Yield three tasks, seven solvers and two evaluators."""
    yield ComponentSpec(
        "task", "alflb/scores", target="sfumato_alflb.tasks:ScoresTask",
        config="sfumato_alflb.config:ScoresConfig", evaluators=("alflb/balance",), backends=_NUMPY,
        sample={"n_tokens": 64, "n_experts": 8, "k": 2},
        summary="assign one fixed matrix of router scores to experts", source=_PAPER,
    )  # fmt: skip
    yield ComponentSpec(
        "task", "alflb/stream", target="sfumato_alflb.tasks:StreamTask",
        config="sfumato_alflb.config:StreamConfig", evaluators=("alflb/balance",), backends=_NUMPY,
        sample={"n_batches": 3, "n_tokens": 32, "n_experts": 8},
        summary="assign a stream of batches, i.i.d. or drifting", source=_PAPER,
    )  # fmt: skip
    yield ComponentSpec(
        "task", "alflb/char-lm", target="sfumato_alflb.tasks:CharLmTask",
        config="sfumato_alflb.config:CharLmConfig", evaluators=("alflb/training",), backends=_TORCH,
        sample={
            "steps": 2, "dim": 16, "n_layers": 1, "heads": 2, "experts": 4, "expert_width": 16, "batch": 4,
            "context": 32, "valid_characters": 512,
        },
        summary="train a small mixture-of-experts character model; the action configures its routers",
        source=_METHOD,
    )  # fmt: skip
    yield _solver(
        "bias", "BiasSolver", "BiasConfig", "bias per expert, updated from past loads; every rule", _METHOD
    )
    yield _solver(
        "lp", "LpSolver", "LpConfig", "the exact optimum of each batch, by linear program or flow", _PAPER
    )
    yield _solver(
        "quantile", "QuantileSolver", "SweepsConfig", "two-sided quantile prices on each batch", "own work"
    )
    yield _solver(
        "bip", "BipSolver", "SweepsConfig", "clipped dual coordinate sweeps on each batch", "arXiv:2502.15451"
    )
    yield _solver(
        "sinkhorn", "SinkhornSolver", "SinkhornConfig", "Sinkhorn scaling, then top K", "arXiv:2202.01169"
    )
    yield _solver(
        "expert-choice", "ExpertChoiceSolver", "ExpertChoiceConfig", "every expert takes its best tokens",
        "arXiv:2202.09368",
    )  # fmt: skip
    yield _solver(
        "aux-loss", "AuxLossSolver", "AuxLossConfig", "Switch/GShard loss and z-loss", "arXiv:2101.03961"
    )
    yield ComponentSpec(
        "evaluator", "alflb/balance", target="sfumato_alflb.evaluators:BalanceEvaluator",
        summary="load violation, affinity lost, regret",
    )  # fmt: skip
    yield ComponentSpec(
        "evaluator", "alflb/training", target="sfumato_alflb.evaluators:TrainingEvaluator",
        summary="validation loss and load violation of a trained model",
    )  # fmt: skip


@hookimpl
def sfumato_commands() -> Iterator[CommandSpec]:
    """Yield `sfumato alflb diagnose`."""
    yield CommandSpec(
        "diagnose", target="sfumato_alflb.cli:diagnose",
        help="Read router scores and print the optimum, the best balance, and how each rule fares.",
    )  # fmt: skip


@hookimpl
def sfumato_doctor() -> Iterator[Finding]:
    """Yield which optional parts are installed, without importing them."""
    from importlib.util import find_spec

    for extra, module, what in (
        ("compiled", "numba", "the compiled engine"),
        ("flow", "ortools", "minimum-cost flow as a second exact solver"),
        ("torch", "torch", "the router for torch models and alflb/char-lm"),
        ("plots", "matplotlib", "the pictures of diagnose"),
    ):
        if find_spec(module):
            yield Finding("ok", module, f"present: {what}")
        else:
            yield Finding("warning", module, f"absent: {what}", f"pip install 'sfumato-alflb[{extra}]'")


@hookimpl
def sfumato_report_sections() -> Iterator[ReportSection]:
    """Yield loads over batches, biases and rewards of a stream, and training curves."""
    given = ("alflb/scores", "alflb/stream")
    yield ReportSection("Load of each expert", target="sfumato_alflb.sections:loads", tasks=given)
    yield ReportSection("Biases over steps", target="sfumato_alflb.report:biases", tasks=("alflb/stream",))
    yield ReportSection("Reward over steps", target="sfumato_alflb.report:reward", tasks=("alflb/stream",))
    yield ReportSection("Training", target="sfumato_alflb.report:training", tasks=("alflb/char-lm",))

"""Playing many episodes at once, and the plumbing of the 2 x 2."""

import numpy as np
import pytest

from sfumato.context import ArtifactStore, RunContext
from sfumato.errors import SfumatoError
from sfumato_opaque_knapsack.config import TaskConfig
from sfumato_opaque_knapsack.instances import EVAL_SEED_BASE, LEVELS, generate
from sfumato_opaque_knapsack.tasks import KnapsackEpisode
from sfumato_opaque_knapsack.tokenizer import TraceTokenizer
from sfumato_opaque_knapsack.traces import TraceSettings, make_pair

torch = pytest.importorskip("torch", reason="needs torch")
pytestmark = pytest.mark.optional

from sfumato_opaque_knapsack import learned, study  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def runtime_of(regime, **settings):
    try:
        return RunContext().component(f"runtime-{regime}/python", settings, kind="runtime")
    except SfumatoError as error:
        pytest.skip(f"the runtimes are not installed: {error}")


class _Recorded:
    """In place of a decoder's stream: foretells the tokens of recorded conversations, whatever it is fed."""

    conversations: list

    def __init__(self, model, rows, most):
        self.t, self.most = 0, 4000
        self._rows = list(range(rows))
        self.fed = [[] for _ in range(rows)]

    def step(self, tokens):
        logits = torch.zeros(len(self._rows), 2000)
        for place, (row, token) in enumerate(zip(self._rows, tokens.tolist(), strict=True)):
            assert token == self.conversations[row][self.t], "what was fed is not what was recorded"
            logits[place, self.conversations[row][self.t + 1]] = 100.0
        self.t += 1
        return logits

    def keep(self, rows):
        self._rows = [self._rows[i] for i in rows.tolist()]


def replayed(monkeypatch, records, regime, cues):
    """Play recorded conversations in a runtime, the model foretelling what was recorded; return what was played."""
    tokenizer = TraceTokenizer.train(m["content"] for r in records for m in r["messages"])
    _Recorded.conversations = [tokenizer.render(r["messages"])[0] for r in records]
    monkeypatch.setattr(study, "Stream", _Recorded)
    episodes = []
    for record in records:
        instance = generate("micro", record["meta"]["seed"])
        episodes.append((instance, KnapsackEpisode(instance, LEVELS["micro"], TaskConfig())))
    runtime = runtime_of(regime, cues=cues)

    class Model:
        class embedding:
            weight = torch.zeros(1)

    settings = study.PlaySettings(temperature=0.0, show_cue=cues != "none")
    played = study.play_batch(Model, tokenizer, runtime, episodes, RunContext(), settings)
    for record, got in zip(records, played, strict=True):
        assert got.ended == "finish"
        assert got.score == pytest.approx(record["meta"]["score"], abs=1e-6)
        assert got.messages == [m["content"] for m in record["messages"] if m["role"] == "assistant"]
        said = [len(tokenizer.encode(m)) + 1 for m in got.messages]
        assert got.tokens.completion == sum(said)
        assert got.tokens.unique == len(tokenizer.render(record["messages"])[0])
    return played


@pytest.mark.parametrize("cues", ["none", "globals_list"])
@pytest.mark.parametrize("regime", [0, 1])
def test_recorded_conversations_are_played_token_by_token_with_the_recorded_outcome(
    monkeypatch, regime, cues
):
    """Batched play feeds prompts, messages and outputs exactly as the traces have them, and counts them so."""
    settings = TraceSettings(level="micro", style="compact", prompt="short", words=False, cues=cues)
    records = [make_pair(settings, EVAL_SEED_BASE + k)[regime] for k in range(5)]
    for got in replayed(monkeypatch, records, ("persistent", "stateless")[regime], cues):
        assert (got.missing_any, got.failed_actions) == (False, 0)


@pytest.mark.parametrize("cues", ["none", "globals_list"])
def test_traces_of_a_lost_state_are_what_a_stateless_interpreter_shows(monkeypatch, cues):
    """Lost from the second block on: token by token the stateless runtime; a missing name unless a cue tells of it."""
    settings = TraceSettings(
        level="micro", style="compact", prompt="short", words=False, cues=cues, losses=1.0
    )
    made = (make_pair(settings, EVAL_SEED_BASE + k)[0] for k in range(100))
    records = [record for record in made if record["meta"].get("lost_from") == 1][:5]
    assert len(records) == 5
    for got in replayed(monkeypatch, records, "stateless", cues):
        failed = int(cues == "none")
        assert (got.missing_strict, got.failed_actions) == (bool(failed), failed)


def test_the_smallest_study_gives_every_cell_figure_and_test(tmp_path):
    """Plumbing only: the model is of no use, and every figure is there with its interval."""
    runtime_of("persistent")
    ctx = RunContext(artifacts=ArtifactStore(tmp_path))
    result = learned.two_by_two(ctx, learned.SIZES["smoke"])
    assert list(result["cells"]) == ["P->P", "P->S", "S->P", "S->S"]
    for cell in result["cells"].values():
        assert cell["n"] == 2
        assert cell["score"]["low"] <= cell["score"]["value"] <= cell["score"]["high"]
        assert cell["completion_tokens"]["value"] > 0
    assert len(result["tests"]["score_wilcoxon"]) == 6
    assert 0 < result["tests"]["token_interaction"]["p"] <= 1
    assert result["training"]["stateless"]["regime"] == "stateless"


def test_the_learned_agent_is_a_solver_whose_model_is_kept(tmp_path):
    """Through the driver: trained once, played in the stateless interpreter, tokens claimed in the notes."""
    from sfumato.driver import drive
    from sfumato_opaque_knapsack.chat import DecoderSolver
    from sfumato_opaque_knapsack.config import DecoderSolverConfig
    from sfumato_opaque_knapsack.evaluators import AgentEvaluator
    from sfumato_opaque_knapsack.tasks import EasyTask, MicroTask

    runtime = runtime_of("stateless")
    solver = DecoderSolver(DecoderSolverConfig(size="smoke", trained_on="stateless"))
    assert solver.supports(MicroTask(), runtime) is None
    assert "micro" in solver.supports(EasyTask(), runtime).advice
    ctx = RunContext(artifacts=ArtifactStore(tmp_path))
    task = MicroTask(TaskConfig(max_turns=2))
    results = [drive(task, solver, runtime, {"agent": AgentEvaluator()}, ctx) for _ in range(2)]
    assert results[0].digest == results[1].digest
    names = {m["name"] for m in results[0].rows[0]["metrics"]}
    assert "claimed_completion_tokens" in names
    assert len(list((tmp_path / "opaque-knapsack--decoder").glob("*/training.json"))) == 1


def test_a_drawn_token_follows_the_softmax():
    """Gumbel's trick draws in proportion: checked against the exact probabilities."""
    rng = np.random.default_rng(0)
    logits = np.log(np.array([0.5, 0.3, 0.2]))
    counts = np.bincount([study._draw(logits, 1.0, rng) for _ in range(4000)], minlength=3) / 4000
    assert counts == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    assert study._draw(logits, 0.0, rng) == 0

"""What this distribution offers."""

from collections.abc import Iterator

from sfumato import BackendSpec, ComponentSpec, hookimpl

PLUGIN_API = 1


@hookimpl
def sfumato_components() -> Iterator[ComponentSpec]:
    yield ComponentSpec(
        "task",
        "crossings/cartpole",
        target="sfumato_crossings.cartpole:HiddenCartPole",
        config="sfumato_crossings.config:CartPoleConfig",
        summary="Gymnasium's CartPole seen through coarse sensors without velocities, with a batched model to plan on",
        source="Barto, Sutton, Anderson 1983",
        backends=(BackendSpec("gymnasium"),),
    )
    yield ComponentSpec(
        "solver",
        "crossings/endgame",
        target="sfumato_crossings.endgame:EndgameSolver",
        config="sfumato_crossings.config:EndgameConfig",
        summary="Plays Opaque Knapsack by near-exact search once the inspections are spent, and brackets what can be had",
        source="Smith and Simmons 2005, through vopp/sarsop",
        backends=(BackendSpec("numpy", requires=("numba",)),),
    )
    yield ComponentSpec(
        "evaluator",
        "crossings/bracket",
        target="sfumato_crossings.endgame:BracketEvaluator",
        summary="The bounds that crossings/endgame claims to have proved",
    )

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

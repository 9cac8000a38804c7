"""What this distribution offers."""

from collections.abc import Iterator

from sfumato import BackendSpec, ComponentSpec, hookimpl

PLUGIN_API = 1
PAPER = "Raffin et al. 2021, Stable-Baselines3, JMLR 22(268)"


@hookimpl
def sfumato_components() -> Iterator[ComponentSpec]:
    yield ComponentSpec(
        "task",
        "sb3/cartpole",
        target="sfumato_sb3.tasks:CartPole",
        summary="Balance a pole on a cart; 1 point a step, at most 500",
        source="Barto, Sutton, Anderson 1983",
        backends=(BackendSpec("gymnasium"),),
    )
    yield ComponentSpec(
        "solver",
        "sb3/ppo",
        target="sfumato_sb3.solvers:PPOSolver",
        config="sfumato_sb3.config:PPOConfig",
        summary="Proximal policy optimisation, trained on the task's own episodes",
        source=PAPER,
        backends=(BackendSpec("torch", devices=("cpu", "cuda")),),
        sample={"total_steps": 512, "n_steps": 256},
    )
    yield ComponentSpec(
        "solver",
        "sb3/random",
        target="sfumato_sb3.solvers:RandomSolver",
        summary="Draws actions from the space",
        source="own work",
    )

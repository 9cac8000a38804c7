"""What a component declares, what this machine has, and how the two are matched. Never a silent fallback.

Packages are checked through metadata, in any process; devices only in the worker, where importing the array
library is wanted anyway. Third parties add backends through the entry-point group `sfumato.backends`.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any, Protocol

import attrs

from sfumato.errors import BackendUnavailable, UsageError, did_you_mean
from sfumato.records import BackendSpec, ComponentSpec

GROUP = "sfumato.backends"


class Backend(Protocol):
    """An array library. `distributions` are looked up through metadata; `devices` imports the library."""

    name: str
    distributions: tuple[str, ...]

    def devices(self) -> dict[str, str]:
        """Return the devices that work now, each with a description: {"cpu": "...", "cuda": "NVIDIA H200"}."""

    def synchronise(self, device: str) -> None:
        """Wait until the device has finished its work, so that clocks tell the truth."""


class NumpyBackend:
    """NumPy: the reference, always there."""

    name = "numpy"
    distributions = ("numpy",)

    def devices(self) -> dict[str, str]:
        return {"cpu": "NumPy"}

    def synchronise(self, device: str) -> None:
        return


class TorchBackend:
    """PyTorch on CPU, CUDA or Apple's MPS."""

    name = "torch"
    distributions = ("torch",)

    def devices(self) -> dict[str, str]:
        import torch

        found = {"cpu": f"torch {torch.__version__}"}
        if torch.cuda.is_available():
            found["cuda"] = str(torch.cuda.get_device_name(0))
        if torch.backends.mps.is_available():
            found["mps"] = "Apple MPS"
        return found

    def synchronise(self, device: str) -> None:
        if device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()


class JaxBackend:
    """JAX on CPU or CUDA."""

    name = "jax"
    distributions = ("jax", "jaxlib")

    def devices(self) -> dict[str, str]:
        import jax

        found = {"cpu": f"jax {jax.__version__}"}
        try:
            gpus = jax.devices("gpu")
        except RuntimeError:
            gpus = []
        if gpus:
            found["cuda"] = str(gpus[0].device_kind)
        return found

    def synchronise(self, device: str) -> None:
        import jax

        jax.effects_barrier()


@attrs.frozen
class Choice:
    """What a component will compute with."""

    backend: str
    device: str


def backend(name: str) -> Backend | None:
    """Return the backend object registered under a name, or None (a library without devices of its own, as numba)."""
    for point in entry_points(group=GROUP, name=name):
        loaded: Any = point.load()
        found: Backend = loaded() if isinstance(loaded, type) else loaded
        return found
    return None


def missing(spec: BackendSpec) -> list[str]:
    """Return the distributions that this backend of a component needs and that are not installed."""
    wanted = spec.requires
    if not wanted:
        known = backend(spec.name)
        wanted = known.distributions if known else (spec.name,)
    absent = []
    for distribution in wanted:
        try:
            version(distribution)
        except PackageNotFoundError:
            absent.append(distribution)
    return absent


def resolve(
    component: ComponentSpec, *, wanted: str | None = None, device: str | None = None, distribution: str = ""
) -> Choice:
    """Return the backend and device for a component: what the user asked for, else the plugin's own order.

    Checks packages by metadata only. Raises BackendUnavailable with the next command to try, UsageError for a
    backend or device that the component does not declare.
    """
    kind = device.split(":")[0] if device else None
    offers = component.backends or (BackendSpec("numpy"),)
    if wanted is not None:
        offers = tuple(b for b in offers if b.name == wanted)
        if not offers:
            names = [b.name for b in component.backends] or ["numpy"]
            raise UsageError(
                f"{component.kind} {component.name!r} has no backend {wanted!r}.{did_you_mean(wanted, names)} It "
                f"declares: {', '.join(names)}. Choose one with --backend."
            )
    able = [b for b in offers if kind is None or kind in b.devices]
    if not able:
        declared = "; ".join(f"{b.name} on {', '.join(b.devices)}" for b in offers)
        raise BackendUnavailable(
            f"{component.kind} {component.name!r} does not run on {device!r}; it declares {declared}. Run with "
            "--device cpu."
        )
    for spec in able:
        if not missing(spec):
            return Choice(spec.name, device or spec.devices[0] if kind else "cpu" if "cpu" in spec.devices else spec.devices[0])
    first = able[0]
    package = distribution or "sfumato-" + component.name.split("/")[0]
    extra = f"pip install '{package}[{first.extra}]'" if first.extra else f"pip install {' '.join(missing(first))}"
    raise BackendUnavailable(
        f"{component.kind} {component.name!r} needs backend {first.name!r}, but {', '.join(missing(first))} is not "
        f"installed. Install it: {extra}"
    )


def check_dtype(component: ComponentSpec, choice: Choice, dtype: str | None) -> None:
    """Refuse a dtype that the component does not declare for the chosen backend: it would be ignored, and recorded."""
    if dtype is None:
        return
    allowed = next((b.dtypes for b in component.backends if b.name == choice.backend), ())
    if dtype not in allowed:
        raise UsageError(
            f"{component.kind} {component.name!r} has no dtype {dtype!r} on {choice.backend}.{did_you_mean(dtype, allowed)} "
            + (f"It declares: {', '.join(allowed)}." if allowed else "It declares none: leave --dtype out.")
        )


def verify_device(component: ComponentSpec, choice: Choice) -> str:
    """Check, in the worker, that the device works; return its description.

    Raises BackendUnavailable naming what the library sees and the next command.
    """
    known = backend(choice.backend)
    if known is None:
        return choice.backend
    seen = known.devices()
    kind = choice.device.split(":")[0]
    if kind not in seen:
        try:
            found = version(known.distributions[0])
        except PackageNotFoundError:
            found = "?"
        raise BackendUnavailable(
            f"{component.kind} {component.name!r} needs backend {choice.backend!r} on {choice.device!r}, but "
            f"{choice.backend} {found} sees only {', '.join(seen)}. Run with --device cpu, or run 'sfumato doctor "
            f"{component.name.split('/')[0]}' for the full check."
        )
    return seen[kind]

"""What this plugin offers. Light: nothing here starts a process or imports the machinery."""

from __future__ import annotations

from collections.abc import Iterator

from sfumato import ComponentSpec, Finding, hookimpl

PLUGIN_API = 1


@hookimpl
def sfumato_components() -> Iterator[ComponentSpec]:
    """Yield the runtime."""
    yield ComponentSpec(
        "runtime",
        "runtime-persistent/python",
        target="sfumato_runtime_persistent.runtime:PersistentPython",
        config="sfumato_runtime_persistent.config:PersistentConfig",
        version=1,
        summary="One Python process for an episode: what an action binds, the next one finds",
        source="arXiv:2603.01209",
        sample={"packages": ()},  # warming up pandas takes seconds
    )


@hookimpl
def sfumato_doctor() -> Iterator[Finding]:
    """Yield the isolation level that this machine permits, and what keeps it from a higher one."""
    from sfumato_sandbox.capability import isolation

    best = isolation(2, strict=False)
    missing = "; ".join(best.missing)
    level = "ok" if best.level == 2 else "warning" if best.level == 1 else "error"
    yield Finding(
        level,  # type: ignore[arg-type]
        "runtime-persistent/isolation",
        f"this machine permits level {best.level} of 2" + (f": {missing}" if missing else ""),
        ""
        if best.level == 2
        else f"Run with -r level={best.level}, and only code that you would trust so far.",
    )

"""Settings of the runtime: those of the sandbox's turns, all of them."""

from __future__ import annotations

import attrs

from sfumato_sandbox.turns import TurnSettings


@attrs.frozen
class StatelessConfig(TurnSettings):
    __doc__ = TurnSettings.__doc__

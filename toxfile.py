"""What tox does here beyond tox.ini: give back the disk that an environment took, as soon as its tests have passed.

The environments hold about 14 GB when all of them stand (torch is in seven), 3 GB one after the other. On a machine of
one's own they stay, so that the next run starts at once; they go where TIDY is set, which `./dev test` does when the
disk is small or CI is set.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from tox.plugin import impl

TIDY = "SFUMATO_TIDY"


@impl
def tox_after_run_commands(tox_env: Any, exit_code: int, outcomes: list[Any]) -> None:
    """Remove the environment when it has passed; one that failed stays to be looked into."""
    if os.environ.get(TIDY) == "1" and exit_code == 0:
        shutil.rmtree(tox_env.env_dir, ignore_errors=True)

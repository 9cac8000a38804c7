"""Try out, each in a process that ends at once, what this machine permits; print it as JSON."""

import json
import os
import sys
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import confine


def in_child(attempt: Callable[..., object], *arguments: object) -> bool:
    """Run something irrevocable in a forked child; True when it raised nothing."""
    pid = os.fork()
    if not pid:
        try:
            attempt(*arguments)
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def filtered(program: bytes) -> None:
    confine.no_new_privileges()
    confine.seccomp_install(program)


if __name__ == "__main__":
    program = bytes.fromhex(sys.stdin.read())
    print(
        json.dumps(
            {
                "landlock_abi": confine.landlock_abi(),
                "seccomp": bool(program) and in_child(filtered, program),
                "namespaces": in_child(confine.unshare, int(sys.argv[1])),
            }
        )
    )

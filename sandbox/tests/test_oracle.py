"""An independent sandbox as oracle: what bubblewrap lets through or stops, level 2 lets through or stops as well."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from sfumato_sandbox import Interpreter
from sfumato_sandbox.capability import isolation

pytestmark = pytest.mark.optional
BWRAP = shutil.which("bwrap")

# Each does a thing or raises; True: a sandbox should let it pass.
PROBES = {
    "read the standard library": ("open(os.__file__).read()", True),
    "write in the own directory": ("open('own', 'w').write('x')", True),
    "start a thread": (
        "import threading; t = threading.Thread(target=print); t.start(); t.join()",
        True,
    ),
    "a stream pair": ("import socket; socket.socketpair()", True),
    "random bytes": ("os.urandom(8)", True),
    "read a secret": ("open(SECRET).read()", False),
    "list its folder": ("os.listdir(os.path.dirname(SECRET))", False),
    "write beside it": ("open(SECRET + '.new', 'w')", False),
    "write to the standard library": ("open(os.path.dirname(os.__file__) + '/new', 'w')", False),
    "signal the operator": ("os.kill(OPERATOR, 0)", False),
    "environment of the operator": ("open(f'/proc/{OPERATOR}/environ', 'rb').read()", False),
    "connect to the operator": ("import socket; socket.create_connection(('127.0.0.1', PORT), 1)", False),
    "mount": (
        "import ctypes\nif ctypes.CDLL(None, use_errno=True).mount(b'none', b'/', b'tmpfs', 0, None): raise OSError",
        False,
    ),
}
CODE = """
import json, os
SECRET, OPERATOR, PORT, PROBES = {known!r}
found = {{}}
for name, code in PROBES.items():
    try:
        exec(code)
        found[name] = True
    except Exception:
        found[name] = False
print(json.dumps(found))
"""


@pytest.fixture
def code(tmp_path):
    """The probes as one program, with a secret to read and a server to reach."""
    import socket

    secret = tmp_path / "secret"
    secret.write_text("do not tell")
    with socket.create_server(("127.0.0.1", 0)) as server:
        probes = {name: probe for name, (probe, _) in PROBES.items() if name != "mount" or os.getuid() == 0}
        known = (str(secret), os.getpid(), server.getsockname()[1], probes)
        yield CODE.format(known=known)


def last_line(text):
    return json.loads(text.strip().splitlines()[-1])


def test_what_bubblewrap_lets_through_or_stops_so_do_we(code, tmp_path):
    if BWRAP is None:
        pytest.skip("bubblewrap is not installed; apt-get install bubblewrap")
    best = isolation(2, strict=False)
    if best.level < 2:
        pytest.skip(f"level 2 is not permitted here: {'; '.join(best.missing)}")
    scratch = tmp_path / "own"
    scratch.mkdir()
    binds = []
    for path in dict.fromkeys((sys.base_prefix, "/usr", "/lib", "/lib64")):
        if os.path.isdir(path) and not os.path.islink(path):
            binds += ["--ro-bind", path, path]
        elif os.path.islink(path):
            binds += ["--symlink", os.readlink(path), path]
    python = os.path.join(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    ran = subprocess.run(
        [BWRAP, *binds, "--bind", str(scratch), "/own", "--chdir", "/own", "--dev", "/dev", "--proc", "/proc",
         "--unshare-all", "--cap-drop", "ALL", "--die-with-parent", "--clearenv", python, "-I", "-S", "-c", code],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if ran.returncode:
        pytest.skip(f"bubblewrap does not run here: {ran.stderr.strip()[:200]}")
    oracle = last_line(ran.stdout)
    with Interpreter(level=2, strict=True, packages=()) as interpreter, interpreter.open() as session:
        ours = last_line(session.step(code).stdout)
    assert ours == {name: PROBES[name][1] for name in ours}
    assert ours == oracle


def test_without_a_sandbox_every_harmless_probe_reaches_what_it_is_after(code, tmp_path):
    """So that none of them fails for a reason of its own."""
    dangerous = {"mount", "write to the standard library"}
    wanted = code
    for name in dangerous:
        wanted = wanted.replace(repr(PROBES[name][0]), "'raise OSError'")
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", wanted], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    found = last_line(ran.stdout)
    assert [name for name, reached in found.items() if not reached and name not in dangerous] == []

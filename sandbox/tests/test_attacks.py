"""The attack suite: escape, tamper, exhaust. Runs at every level that this machine permits.

Each attack prints REACHED where it got what it wanted. An attack that a level does not claim to stop is
left out at that level, and the skip says so.
"""

import os
import pathlib
import time

import attrs
import pytest

from sfumato_sandbox import Interpreter, Limits, SandboxError, snapshots
from sfumato_sandbox.capability import isolation

BEST = isolation(2, strict=False)
LIMITS = Limits(
    timeout_seconds=1.5,
    grace_seconds=0.2,
    memory_bytes=128 << 20,
    disk_bytes=8 << 20,
    file_bytes=4 << 20,
    disk_files=200,
)
SECRET = "do not tell"
UNDECLARED = [pytest.__file__, attrs.__file__]


@pytest.fixture(scope="module", params=[1, 2])
def confined(request):
    if BEST.level < request.param:
        pytest.skip(f"level {request.param} is not permitted here: {'; '.join(BEST.missing)}")
    with Interpreter(level=request.param, strict=True) as interpreter:
        yield interpreter


@pytest.fixture(scope="module")
def best():
    """The highest level that this machine permits, for what does not depend on the level."""
    if BEST.level < 1:
        pytest.skip(f"level 1 is not permitted here: {'; '.join(BEST.missing)}")
    with Interpreter(level=BEST.level, strict=True) as interpreter:
        yield interpreter


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_text(SECRET)
    return path


# Each tries a thing and prints REACHED when it worked; any exception is a refusal.
ESCAPES = {
    "fork": "import os\npid = os.fork()\nif pid == 0: os._exit(0)\nprint('REACHED')",
    "vfork through posix_spawn": "import os; os.posix_spawn('/bin/true', ['true'], {}); print('REACHED')",
    "a subprocess": "import subprocess; subprocess.run(['/bin/true']); print('REACHED')",
    "a shell": "import os; print('REACHED' if os.system('true') == 0 else 'no')",
    "execve": "import os; os.execv('/bin/echo', ['echo', 'REACHED'])",
    "multiprocessing": "import multiprocessing as m; p = m.Process(target=print); p.start(); print('REACHED')",
    "raw clone": "import ctypes, os\nr = ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0)\nif r == 0: os._exit(0)\nprint('REACHED' if r > 0 else 'no')",
    "clone3": "import ctypes, os, struct\na = struct.pack('11Q', 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)\nr = ctypes.CDLL(None).syscall(435, a, 88)\nif r == 0: os._exit(0)\nprint('REACHED' if r > 0 else 'no')",
    "a user namespace": "import ctypes; print('REACHED' if ctypes.CDLL(None).unshare(0x10000000) == 0 else 'no')",
    "internet socket": "import socket; socket.socket(); print('REACHED')",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX); print('REACHED')",
    "netlink socket": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); print('REACHED')",
    "datagram pair": "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); print('REACHED')",
    "connecting a stream pair elsewhere": "import socket; a, b = socket.socketpair(); a.connect('/run/x'); print('REACHED')",
    "ptrace of the parent": "import ctypes, os; print('REACHED' if ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0 else 'no')",
    "memory of the parent": "import os; open(f'/proc/{os.getppid()}/mem', 'rb'); print('REACHED')",
    "environment of the parent": "import os; open(f'/proc/{os.getppid()}/environ', 'rb').read(); print('REACHED')",
    "own memory file": "open('/proc/self/mem', 'rb'); print('REACHED')",
    "process_vm_readv": "import ctypes, os; print('REACHED' if ctypes.CDLL(None).process_vm_readv(os.getppid(), 0, 0, 0, 0, 0) == 0 else 'no')",
    "pidfd of the parent": "import os; os.pidfd_open(os.getppid()); print('REACHED')",
    "kill the parent": "import os; os.kill(os.getppid(), 0); print('REACHED')",
    "kill everybody": "import os; os.kill(-1, 0); print('REACHED')",
    "kill the group": "import os; os.killpg(0, 0); print('REACHED')",
    "signal through fcntl": "import fcntl, os, socket\na, b = socket.socketpair()\nfcntl.fcntl(a, 8, os.getppid()); print('REACHED')",
    "the operator's share of pipe memory": "import fcntl, os; fcntl.fcntl(os.pipe()[0], 1031, 1 << 20); print('REACHED')",
    "a lease on a system file": "import fcntl, os; fcntl.fcntl(os.open(os.__file__, os.O_RDONLY), 1024, 0); print('REACHED')",
    "signal number through fcntl": "import fcntl, socket\na, b = socket.socketpair()\nfcntl.fcntl(a, 10, 9); print('REACHED')",
    "signal through ioctl": "import fcntl, socket, struct, os\na, b = socket.socketpair()\nfcntl.ioctl(a, 0x8901, struct.pack('i', os.getppid())); print('REACHED')",
    "type into a terminal": "import fcntl; fcntl.ioctl(0, 0x5412, b'x'); print('REACHED')",
    "limits of the parent": "import resource, os; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1)); print('REACHED')",
    "raise own limits": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); print('REACHED')",
    "priority of others": "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19); print('REACHED')",
    "leave the group": "import os; os.setsid(); print('REACHED')",
    "join another group": "import os; os.setpgid(0, os.getppid()); print('REACHED')",
    "become root": "import os; os.setuid(0) if os.getuid() else os.setuid(1); print('REACHED')",
    "gain capabilities": "import ctypes, struct; r = ctypes.CDLL(None).syscall(126, struct.pack('Ii', 0x20080522, 0), struct.pack('6I', *[0xffffffff] * 6)); print('REACHED' if r == 0 else 'no')",
    "mount": "import ctypes; print('REACHED' if ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0 else 'no')",
    "chroot": "import os; os.chroot('.'); print('REACHED')",
    "bpf": "import ctypes; print('REACHED' if ctypes.CDLL(None).syscall(321, 0, 0, 0) >= 0 else 'no')",
    "perf events": "import ctypes; print('REACHED' if ctypes.CDLL(None).syscall(298, bytes(128), 0, -1, -1, 0) >= 0 else 'no')",
    "kernel keyring": "import ctypes; print('REACHED' if ctypes.CDLL(None).syscall(250, 0, -3, 1, 0, 0) >= 0 else 'no')",
    "io_uring": "import ctypes; print('REACHED' if ctypes.CDLL(None).syscall(425, 4, bytes(120)) >= 0 else 'no')",
    "userfaultfd": "import ctypes; print('REACHED' if ctypes.CDLL(None).syscall(323, 0) >= 0 else 'no')",
    "memfd": "import os; os.memfd_create('x'); print('REACHED')",
    "system v shared memory": "import ctypes; print('REACHED' if ctypes.CDLL(None).shmget(1234, 4096, 0o1600) >= 0 else 'no')",
    "another seccomp filter": "import ctypes; print('REACHED' if ctypes.CDLL(None).prctl(22, 2, 0) == 0 else 'no')",
    "32-bit personality": "import ctypes; print('REACHED' if ctypes.CDLL(None).personality(8) >= 0 else 'no')",
    "write to the host": "open('/tmp/reached', 'w'); print('REACHED')",
    "write to shared memory": "open('/dev/shm/reached', 'w'); print('REACHED')",
    "write to the standard library": "import os; open(os.__file__, 'a'); print('REACHED')",
    "make the standard library writable": "import os; os.chmod(os.__file__, 0o777); print('REACHED')",
    "own the standard library": "import os; os.chown(os.__file__, 0, 0); print('REACHED')",
    "date the standard library": "import os; os.utime(os.__file__); print('REACHED')",
    "through an open descriptor": "import os; f = open(os.__file__); os.fchmod(f.fileno(), 0o777); print('REACHED')",
    "extended attributes": "import os; os.setxattr(os.__file__, 'user.x', b'1'); print('REACHED')",
    "delete a system file": "import os; os.unlink('/etc/hostname'); print('REACHED')",
    "hard link": "import os; os.link(os.__file__, 'link'); print('REACHED')",
    "read a secret": "open(SECRET_PATH).read(); print('REACHED')",
    "read it through a link": "import os; os.symlink(SECRET_PATH, 'l'); open('l').read(); print('REACHED')",
    "list its folder": "import os; os.listdir(os.path.dirname(SECRET_PATH)); print('REACHED')",
    "a package that was not declared": "import os, sys, ctypes\np = [q for q in UNDECLARED if os.path.exists(q)][0]\nopen(p).read(); print('REACHED')",
    "password file": "open('/etc/passwd').read(); print('REACHED')",
    "home of the operator": "import os; os.listdir(os.path.expanduser('~root')); print('REACHED')",
    "other sessions' files": "import os; os.listdir('..'); print('REACHED')",
    "device file": "import os; os.mknod('d', 0o20600, os.makedev(1, 1)); print('REACHED')",
    "fifo": "import os; os.mkfifo('f'); print('REACHED')",
    "kernel log": "import ctypes; print('REACHED' if ctypes.CDLL(None).klogctl(10, None, 0) >= 0 else 'no')",
    "raw i/o ports": "import ctypes; print('REACHED' if ctypes.CDLL(None).iopl(3) == 0 else 'no')",
    "set the clock": "import time; time.clock_settime(0, 0); print('REACHED')",
    "descriptors of the zygote": "import os\nfor fd in range(4, 300):\n try: os.fstat(fd); print('REACHED', fd)\n except OSError: pass",
    "handle of a file": "import ctypes; print('REACHED' if ctypes.CDLL(None).open_by_handle_at(-100, bytes(64), 0) >= 0 else 'no')",
    "secrets in the environment": "import os; print('REACHED' if 'SANDBOX_TEST_SECRET' in os.environ else 'no')",
}  # fmt: skip

# Escapes out of a Python-level jail; here they change nothing, because there is no such jail to leave.
PYTHON = {
    "closures of a tool": "c = tool.__closure__; print([type(x.cell_contents).__name__ for x in c])\nx = [x.cell_contents for x in c]\nfor y in x:\n for n in ('score', 'value', 'world'):\n  if hasattr(y, n): print('REACHED')",
    "frames": "import sys\nf = sys._getframe()\nwhile f:\n if 'world' in f.f_locals or 'world' in f.f_globals: print('REACHED')\n f = f.f_back",
    "all objects": "import gc; print('REACHED' if any(type(o).__name__ == 'World' for o in gc.get_objects()) else 'no')",
    "subclasses": "print('REACHED' if any(c.__name__ == 'World' for c in object.__subclasses__()) else 'no')",
    "modules": "import sys; print('REACHED' if any('test_attacks' in m or m == 'pytest' for m in sys.modules) else 'no')",
    "own the runner": "import sys\nr = [f for f in [sys._getframe(i) for i in range(4)] if 'self' in f.f_locals][0].f_locals['self']\nr.call('tool', (), {'value': 7})\nr.message_bytes = 1 << 40\nr.running = True",
}  # fmt: skip


@pytest.mark.parametrize("attack", ESCAPES)
def test_no_way_out(confined, secret, monkeypatch, attack):
    with confined.open({}, LIMITS) as session:
        session.step(f"SECRET_PATH = {str(secret)!r}\nUNDECLARED = {UNDECLARED!r}")
        result = session.step(ESCAPES[attack])
        assert "REACHED" not in result.stdout, result
        assert session.step("print('alive')").stdout == "alive\n", "the session goes on"


class World:
    """What the attacks below are after."""

    def __init__(self):
        self.score = 0
        self.calls = 0

    def tool(self, value=0):
        self.calls += 1
        return value


@pytest.mark.parametrize("attack", PYTHON)
def test_the_world_cannot_be_reached_from_inside(confined, attack):
    world = World()
    with confined.open({"tool": world.tool}, LIMITS) as session:
        result = session.step(PYTHON[attack])
    assert "REACHED" not in result.stdout and world.score == 0 and world.calls <= 1


FORGERIES = {
    "another action's number": "forge({'t': 'done', 'n': 'x'})",
    "no object": "forge([1])",
    "an unknown kind": "forge({'t': 'score', 'n': nonce, 'value': 1})",
    "a call that is none": "forge({'t': 'call', 'n': nonce, 'tool': 3, 'args': {}, 'kwargs': []})",
    "a report full of wrong types": "forge({'t': 'done', 'n': nonce, 'error': 5, 'globals': 'x', 'value_repr': [], 'restored': 1, 'cpu': 'a', 'rss': None})",
    "endless numbers": "raw(b'{\"t\":' + b'1' * 100000 + b'}')",
    "endless nesting": "raw(b'[' * 100000)",
    "a length of four gigabytes": "os.write(3, b'\\xff' * 8)",
    "noise": "os.write(3, bytes(range(256)) * 10)",
    "not even UTF-8": "raw(b'\\xff\\xfe{}')",
    "a pickle": "raw(__import__('pickle').dumps({'t': 'done'}))",
    "ready once more": "forge({'t': 'ready', 'n': nonce})",
}  # fmt: skip
HELPERS = """
import os, json, struct, sys
def raw(b): os.write(3, struct.pack('<I', len(b)) + b)
def forge(m): raw(json.dumps(m).encode())
nonce = [f for f in [sys._getframe(i) for i in range(4)] if 'self' in f.f_locals][0].f_locals['self'].nonce
"""


@pytest.mark.parametrize("attack", FORGERIES)
def test_forged_messages_end_the_process_not_the_host(best, attack):
    world = World()
    with best.open({"tool": world.tool}, LIMITS) as session:
        result = session.step(HELPERS + FORGERIES[attack] + "\nimport time; time.sleep(0.1)")
        assert not result.ok and result.error.type in ("ProtocolViolation", "ProcessDied", "ActionTimeout"), (
            result
        )
        assert result.state == "lost" and world.calls == 0
        assert session.step("print(tool(4))").stdout == "4\n"


def test_a_forged_report_can_only_lie_about_the_process_itself(best):
    """A child that sends its own report early fools nobody about calls, and its later words end it."""
    world = World()
    lie = "{'t': 'done', 'n': nonce, 'error': None, 'globals': [], 'value_repr': None, 'restored': [], 'cpu': 0, 'rss': 0}"
    with best.open({"tool": world.tool}, LIMITS) as session:
        result = session.step(HELPERS + f"forge({lie})\ntool(1)")
        assert len(result.tool_calls) == world.calls
        time.sleep(0.1)
        after = session.step("print('x')")
        # The two messages may arrive together, in the first action, or apart.
        assert "ProtocolViolation" in [step.error.type for step in (result, after) if step.error]


EXHAUST = {
    "memory": ("b = []\nwhile True: b.append(bytearray(4 << 20))", ("MemoryError",)),
    "memory outside Python": ("import ctypes; c = ctypes.CDLL(None); c.malloc.restype = ctypes.c_void_p\nn = 0\nwhile c.malloc(ctypes.c_size_t(1 << 20)): n += 1\nprint(n < 200)\nraise MemoryError", ("MemoryError", "ProcessDied")),
    "processes": ("import os\nwhile True: os.fork()", ("PermissionError",)),
    "threads": ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()", ("RuntimeError", "MemoryError", "ProcessDied", "ActionTimeout")),
    "descriptors": ("import os\nwhile True: os.dup(0)", ("OSError",)),
    "pipes": ("import os\nwhile True: os.pipe()", ("OSError",)),
    "one big file": ("f = open('f', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()", ("OSError", "DiskLimit")),
    "many big files": ("import time\nfor i in range(40):\n open(f'f{i}', 'wb').write(bytes(3 << 20)); time.sleep(0.02)", ("DiskLimit",)),
    "many files": ("for i in range(10**7): open(f'f{i}', 'w').close()", ("DiskLimit",)),
    "many files at once": ("for i in range(300): open(f'f{i}', 'w').close()", ("DiskLimit",)),
    "deep folders": ("import os\nfor i in range(400): os.mkdir('d'); os.chdir('d')", ("DiskLimit", "ActionTimeout")),
    "files without a name": ("import os, time\nkeep = []\nfor i in range(20):\n f = open('x', 'wb', 0); os.unlink('x'); f.write(bytes(3 << 20)); keep.append(f); time.sleep(0.02)", ("DiskLimit",)),
    "temporary files": ("import tempfile\nkeep = []\nfor i in range(20): keep.append(tempfile.TemporaryFile(buffering=0)); keep[-1].write(bytes(3 << 20))", ("DiskLimit",)),
    "mapped files without a name": ("import os, mmap\nkeep = []\nfor i in range(9):\n f = open('x', 'w+b', 0); os.unlink('x'); f.write(bytes(3 << 20)); keep.append(mmap.mmap(f.fileno(), 4096)); f.close()", ("DiskLimit",)),
    "files on their way through a socket": ("import os, socket\na, b = socket.socketpair()\nfor i in range(20):\n f = open('x', 'wb', 0); os.unlink('x'); f.write(bytes(3 << 20)); socket.send_fds(a, [b'x'], [f.fileno()]); f.close()", ("PermissionError",)),
    "a sparse file": ("open('f', 'wb').truncate(1 << 40)", ("OSError",)),
    "output": ("import sys\nfor i in range(200): sys.stdout.write('x' * 100_000)\n1 / 0", ("ZeroDivisionError",)),
    "output without end": ("while True: print('x' * 10_000)", ("ActionTimeout",)),
    "output on the error stream": ("import os\nwhile True: os.write(2, b'x' * 65536)", ("ActionTimeout",)),
    "time in C": ("sum(range(10**15))", ("ActionTimeout",)),
    "time in a sleep": ("import time; time.sleep(1e6)", ("ActionTimeout",)),
    "tool calls": ("while True:\n try: tool()\n except Exception: pass", ("ToolCallLimit", "ActionTimeout")),
    "big arguments": ("for i in range(900): tool('x' * 200_000)", ("ToolCallLimit",)),
    "names": ("for i in range(10**5): globals()[f'n{i}' * 30] = i\n1 / 0", ("ZeroDivisionError",)),
    "a long message": ("raise ValueError('x' * 10**7)", ("ValueError",)),
    "a deep traceback": ("import sys; sys.setrecursionlimit(50_000)\ndef f(n): return f(n - 1) if n else 1 / 0\nf(20_000)", ("ZeroDivisionError", "ProcessDied", "MemoryError")),
}  # fmt: skip


@pytest.mark.parametrize("attack", EXHAUST)
def test_what_is_used_up_is_the_sessions_own(best, attack):
    code, kinds = EXHAUST[attack]
    world = World()
    started = time.monotonic()
    with best.open({"tool": world.tool}, LIMITS) as session:
        result = session.step(code)
        assert result.error is not None and result.error.type in kinds, result.error
        assert time.monotonic() - started < LIMITS.timeout_seconds + 0.9
        assert len(result.stdout) + len(result.stderr) < 3 * LIMITS.output_bytes
        assert len(result.error.message) < 10_000 and len(result.globals) <= 1000
        session.reset()
        assert session.step("print('alive')").stdout == "alive\n"


def test_a_flood_of_calls_whose_answers_are_never_read_does_not_hold_the_host_up(best):
    """Each call is well formed; the host must not wait for somebody who never listens."""
    code = HELPERS + (
        "m = json.dumps({'t': 'call', 'n': nonce, 'id': 1, 'tool': 'tool', 'args': ['x' * 5000], 'kwargs': {}}).encode()\n"
        "frame = struct.pack('<I', len(m)) + m\nwhile True: os.write(3, frame)"
    )
    world = World()
    with best.open({"tool": world.tool}, LIMITS) as session:
        started = time.monotonic()
        result = session.step(code)
        assert result.state == "lost" and result.error.type in ("ProtocolViolation", "ActionTimeout")
        assert time.monotonic() - started < 4
        assert session.step("print('alive')").stdout == "alive\n"


LIAR = (
    HELPERS
    + """
import socket, threading
sys.path.append(RUNNER_FOLDER)
wire = sys.modules['wire']
runner = [f for f in [sys._getframe(i) for i in range(4)] if 'self' in f.f_locals][0].f_locals['self']
def orders(fd):
    s = socket.socket(fileno=fd)
    while True:
        order, fds = wire.receive_with_fds(s)
        if order is None: break
        wire.send_with_fds(s, {'pid': VICTIM}, [])
        c = socket.socket(fileno=fds[0])
        wire.send_with_fds(c, {'t': 'ready', 'n': order['nonce']}, [])
        kept.append(c)
kept = []
def park():
    runner.send({'t': 'snapping', 'n': runner.nonce})
    with socket.socket(fileno=os.dup(3)) as carrier: _, (fd,) = wire.receive_with_fds(carrier)
    threading.Thread(target=orders, args=(fd,), daemon=True).start()
    runner.send({'t': 'snapped', 'n': runner.nonce, 'error': None})
runner.park = park
"""
)


@pytest.mark.parametrize("victim", ["os.getppid()", str(os.getpid()), "1"])
def test_a_copy_that_lies_about_its_process_number_gets_nobody_killed(best, victim):
    """The number of a restored process comes from inside; what is outside the session's group is not touched."""
    with best.open({}, LIMITS, snapshots=2) as session:
        assert session.step(LIAR.replace("VICTIM", victim).replace("sys.path.append(RUNNER_FOLDER)", "")).ok
        mark = session.snapshot()
        try:
            session.restore(mark)
            session.step("print(1)")
        except SandboxError:
            pass
    assert best._zygote.process.poll() is None
    with best.open() as session:
        assert session.step("print('alive')").stdout == "alive\n"


SILENT = (
    HELPERS
    + """
import socket
runner = [f for f in [sys._getframe(i) for i in range(4)] if 'self' in f.f_locals][0].f_locals['self']
def park():
    os.write(3, b'\\x10\\x00')
    while True: os.read(3, 1)
runner.park = park
"""
)


def test_a_process_that_never_answers_a_snapshot_does_not_hold_the_host_up(best, monkeypatch):
    monkeypatch.setattr(snapshots, "SECONDS", 0.5)
    monkeypatch.setattr(snapshots._await, "__defaults__", (0.5,))
    with best.open({}, LIMITS, snapshots=2) as session:
        session.step(SILENT)
        started = time.monotonic()
        with pytest.raises(SandboxError, match="no answer within"):
            session.snapshot()
        assert time.monotonic() - started < 2


def test_files_without_a_name_are_counted_at_every_level_and_after_a_restore(confined):
    """They fill the disk as any others do; a listing of the session's directory does not show them."""
    code = "f = open('x', 'wb', 0); os.unlink('x'); f.write(bytes(3 << 20)); keep.append(f)"
    with confined.open({}, LIMITS, snapshots=1) as session:
        session.step(f"import os; keep = []; {code}; {code}")
        assert session.step(code).error.type == "DiskLimit"
    with confined.open({}, LIMITS, snapshots=1) as session:
        session.step("import os; keep = []")
        mark = session.snapshot()
        session.restore(mark)
        assert session.step(f"{code}; {code}").ok
        result = session.step(f"{code}; import time; time.sleep(0.5)")
        assert result.error.type == "DiskLimit" and result.state == "lost"


def _census(interpreter):
    zygote = interpreter._zygote
    children = 0
    for task in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = task.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children += int(fields[3]) == zygote.process.pid or int(fields[1]) == zygote.process.pid
    return children, len(os.listdir("/proc/self/fd")), len(os.listdir(zygote.root))


def test_hostile_actions_leave_no_process_descriptor_or_file(best):
    """A short form of the benchmark's 1,000."""
    hostile = [
        "import os; os._exit(1)",
        "import ctypes; ctypes.string_at(0)",
        "import os\nfor i in range(50): os.makedirs(f'{i}/a/b', exist_ok=True)\nos.mkdir('closed', 0)",
        "import os\nwhile True: os.dup(0)",
        "import threading, time\nfor i in range(20): threading.Thread(target=time.sleep, args=(9,)).start()",
        "print('x' * 10**6)",
        "import os; os.write(3, b'noise' * 99)",
        "raise SystemExit",
    ]
    with best.open({}, LIMITS) as session:
        session.step("1")
    time.sleep(0.1)
    before = _census(best)
    for _ in range(3):
        with best.open({}, LIMITS) as session:
            for code in hostile:
                session.step(code)
    time.sleep(0.2)
    assert _census(best) == before


def test_the_level_that_holds_is_in_every_result(confined):
    with confined.open() as session:
        assert session.step("1").isolation_level == confined.isolation.level


def test_level_two_hides_the_processes_of_the_host():
    if BEST.level < 2:
        pytest.skip(f"level 2 is not permitted here: {'; '.join(BEST.missing)}")
    with Interpreter(level=2, strict=True) as interpreter, interpreter.open() as session:
        seen = session.step("import os; print(os.getpid() < 1000, os.getppid(), os.getuid())").stdout
    assert seen == "True 1 1000\n"

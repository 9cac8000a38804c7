"""Stateless means everything: whatever an action changes, the next one does not see."""

import pytest

LEAKS = {
    "namespace": ("x = 1", "print('x' in globals())"),
    "builtins": ("import builtins; builtins.abs = lambda s: 99; builtins.leak = 1",
                 "print(abs(-1) == 99 or hasattr(__builtins__, 'leak'))"),
    "module attributes": ("import json, math; json.leak = 1; math.pi = 3; json.dumps = None",
                          "import json, math; print(hasattr(json, 'leak') or math.pi == 3 or json.dumps is None)"),
    "imported modules": ("import sys, types; sys.modules['leak'] = types.ModuleType('leak')",
                         "import sys; print('leak' in sys.modules)"),
    "import path": ("import sys; sys.path.append('/leak'); sys.meta_path.clear()",
                    "import sys; print('/leak' in sys.path or not sys.meta_path)"),
    "environment": ("import os; os.environ['LEAK'] = '1'; os.putenv('LEAK2', '1')",
                    "import os; print('LEAK' in os.environ)"),
    "working directory": ("import os; os.mkdir('d'); os.chdir('d')", "import os; print(os.getcwd().endswith('/d'))"),
    "files": ("open('leak.txt', 'w').write('1')", "import os; print(os.listdir('.') != [])"),
    "temporary files": ("import tempfile; open(tempfile.gettempdir() + '/leak', 'w').write('1')",
                        "import tempfile, os; print(os.path.exists(tempfile.gettempdir() + '/leak'))"),
    "threads": ("import threading, time; threading.Thread(target=time.sleep, args=(30,), daemon=True).start()",
                "import threading; print(threading.active_count() > 1)"),
    "signal handlers": ("import signal; signal.signal(signal.SIGUSR1, lambda *a: None); signal.signal(signal.SIGALRM, signal.SIG_IGN)",
                        "import signal; print(signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL or signal.getsignal(signal.SIGALRM) != signal.SIG_DFL)"),
    "timers": ("import signal; signal.setitimer(signal.ITIMER_REAL, 60)", "import signal; print(signal.getitimer(signal.ITIMER_REAL)[0] > 0)"),
    "random state": ("import random; random.seed(12345); random.getstate()",
                     "import random; a = random.random(); random.seed(12345); print(a == random.random())"),
    "recursion limit": ("import sys; sys.setrecursionlimit(77)", "import sys; print(sys.getrecursionlimit() == 77)"),
    "switch interval and hooks": ("import sys; sys.setswitchinterval(1); sys.excepthook = 1; sys.displayhook = 1; sys.settrace(lambda *a: None)",
                                  "import sys; print(sys.getswitchinterval() == 1 or sys.excepthook == 1 or sys.gettrace() is not None)"),
    "descriptors": ("import os; [os.open('/dev/null', os.O_RDONLY) for _ in range(20)]",
                    "import os; fds = []\nfor fd in range(3, 60):\n try: os.fstat(fd); fds.append(fd)\n except OSError: pass\nprint(len(fds) > 1)"),
    "umask": ("import os; os.umask(0o777)", "import os; print(os.umask(0o22) == 0o777)"),
    "garbage collector": ("import gc; gc.disable(); gc.callbacks.append(1)", "import gc; print(not gc.isenabled() or bool(gc.callbacks))"),
    "resource limits": ("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))",
                        "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE) == (20, 20))"),
    "locale and decimal context": ("import decimal; decimal.getcontext().prec = 3", "import decimal; print(decimal.getcontext().prec == 3)"),
    "warnings filters": ("import warnings; warnings.simplefilter('error')", "import warnings; print(warnings.filters[0][0] == 'error')"),
    "interned tricks through ctypes": (
        "import ctypes; ctypes.memmove(id(257) + 24, (5).to_bytes(4, 'little'), 4)", "print(eval('256 + 1') != 257)"),
    "subclass hooks": ("class Leak(dict): pass", "print(any(c.__name__ == 'Leak' for c in dict.__subclasses__()))"),
    "system v shared memory": (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.shmget(0x4C45414B, 4096, 0o1600))",
        "import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.shmget(0x4C45414B, 0, 0) >= 0)"),
    "posix shared memory": (
        "from _posixshmem import shm_open\nimport os\ntry: shm_open('/leak', os.O_CREAT | os.O_RDWR, 0o600)\nexcept OSError: pass",
        "from _posixshmem import shm_open\nimport os\ntry: shm_open('/leak', os.O_RDWR, 0o600); print(True)\nexcept OSError: print(False)"),
}  # fmt: skip


@pytest.mark.parametrize("what", LEAKS)
def test_nothing_of_an_action_reaches_the_next_one(stateless, what):
    plant, look = LEAKS[what]
    with stateless.open() as session:
        planted = session.step(plant)
        assert planted.error is None or planted.error.type in ("ProcessDied", "PermissionError"), (
            planted.error
        )
        seen = session.step(look)
    assert seen.ok, seen.error
    assert seen.stdout == "False\n"


@pytest.mark.parametrize("what", ["namespace", "builtins", "module attributes", "files", "environment"])
def test_the_same_probes_do_see_a_leak_where_state_is_meant_to_last(persistent, what):
    """Otherwise the test above could not fail."""
    plant, look = LEAKS[what]
    with persistent.open() as session:
        session.step(plant)
        if what == "namespace":
            assert session.step(look).stdout == "True\n"
        else:
            assert "True" in session.step(look).stdout


def test_two_sessions_of_one_interpreter_see_nothing_of_each_other(persistent):
    with persistent.open() as one, persistent.open() as two:
        place = one.step(
            "open('secret', 'w').write('s'); import os; print(os.path.abspath('secret'))"
        ).stdout.strip()
        assert one.step(f"print(open({place!r}).read())").stdout == "s\n"
        assert two.step(f"open({place!r}).read()").error.type in ("PermissionError", "FileNotFoundError")


def test_a_fresh_session_has_a_fresh_directory(persistent):
    with persistent.open() as session:
        session.step("open('f', 'w').write('x')")
    with persistent.open() as session:
        assert session.step("import os; print(os.listdir())").stdout == "[]\n"

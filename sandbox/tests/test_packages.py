"""Declared packages work, undeclared ones are absent; files and figures come back."""

import importlib.util

import pytest

from sfumato_sandbox import Interpreter, Limits

NEEDS = [name for name in ("numpy", "pandas", "matplotlib") if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="module")
def session():
    """The packages of the default: those that a user gets who says nothing."""
    if NEEDS:
        pytest.skip(f"not installed: {', '.join(NEEDS)} (extra 'data')")
    with Interpreter(artifacts=True) as interpreter:
        assert (
            interpreter.packages.preload == ("numpy", "pandas", "matplotlib")
            and not interpreter.failed_packages
        )
        with interpreter.open(
            {"double": lambda n: [2 * x for x in n]}, Limits(timeout_seconds=30), seed=3
        ) as session:
            yield session


@pytest.mark.parametrize(
    ("code", "output"),
    [
        (
            "import numpy as np; print(np.linalg.det(np.eye(3)), (np.ones((300, 300)) @ np.ones(300))[0])",
            "1.0 300.0\n",
        ),
        (
            "import pandas as pd; pd.DataFrame({'a': [1, 2]}).to_csv('x.csv', index=False); print(pd.read_csv('x.csv').a.sum())",
            "3\n",
        ),
        (
            "import numpy as np; print(double(np.arange(3)), type(double([np.float64(1)])[0]).__name__)",
            "[0, 2, 4] float\n",
        ),
        ("import os; print(os.environ['OPENBLAS_NUM_THREADS'], len(os.listdir('.')) > 0)", "1 True\n"),
    ],
)
def test_declared_packages_work_confined(session, code, output):
    assert session.step(code).stdout == output


def test_figures_come_back_saved_or_shown(session):
    code = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.savefig('mine.pdf'); plt.show(); plt.plot([3]); plt.show()"
    result = session.step(code)
    assert result.ok, result.error
    files = {file.path: file.content for file in result.artifacts}
    assert sorted(files) == ["figure-1.png", "figure-2.png", "mine.pdf"]
    assert files["figure-1.png"].startswith(b"\x89PNG") and files["mine.pdf"].startswith(b"%PDF")
    assert session.step("1").artifacts == (), "only what is new or changed"


def test_numpy_draws_from_the_seed(session):
    with Interpreter(packages=("numpy",)) as interpreter:
        draws = []
        for seed in (1, 1, 2):
            with interpreter.open(seed=seed) as other:
                assert other.step("import sys; print('numpy.random' in sys.modules)").stdout == "True\n"
                draws.append(other.step("import numpy; print(numpy.random.rand())").stdout)
    assert draws[0] == draws[1] != draws[2]


def test_the_default_packages_start_no_thread_before_the_fork(recwarn):
    """A thread would be missing in the sessions, and one that holds a lock at the fork could hang them."""
    with Interpreter() as interpreter:
        assert interpreter._zygote.ready["threads"] == 1
    assert not [warning for warning in recwarn if "threads" in str(warning.message)]


def test_an_undeclared_package_is_not_there(session):
    error = session.step("import pytest").error
    assert error.type == "ModuleNotFoundError" and "numpy, pandas, matplotlib" in error.message
    with Interpreter(packages=()) as interpreter, interpreter.open() as bare:
        assert "imported here: none" in bare.step("import numpy").error.message
        assert bare.step("try: import numpy\nexcept ImportError: print('absent')").stdout == "absent\n"


def test_a_missing_declared_package_is_an_error_that_says_what_to_do():
    with pytest.raises(ModuleNotFoundError, match="pip install no_such_package"):
        Interpreter(packages=("no_such_package",))


def test_code_can_import_what_it_wrote(persistent):
    with persistent.open() as session:
        session.step("open('helper.py', 'w').write('def f(): return 8')")
        assert session.step("import helper; print(helper.f())").stdout == "8\n"


def test_links_and_pipes_are_no_artifacts():
    with Interpreter(packages=(), artifacts=True) as interpreter, interpreter.open() as session:
        result = session.step(
            "import os\nos.symlink('/etc/passwd', 'link'); os.mkdir('d'); os.symlink('..', 'd/up')\n"
            "open('d/real', 'w').write('content'); open('empty', 'w').close()"
        )
        assert {file.path: file.content for file in result.artifacts} == {"d/real": b"content", "empty": b""}

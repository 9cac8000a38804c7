"""What is compiled is kept, and compiled in a process of its own."""

import subprocess
import sys

from sfumato_cpto import CPTOSolver, compilation


def test_a_warm_machine_needs_no_second_process():
    CPTOSolver().warm_up()

    def run(*arguments, **options):
        raise AssertionError("a process was started")

    assert compilation.compile_apart(run)


def test_a_cold_one_starts_a_process_that_plans_and_failing_to_is_no_error(monkeypatch):
    calls = []
    monkeypatch.setattr(compilation, "kept", lambda: False)
    assert not compilation.compile_apart(lambda *a, **o: calls.append((a, o)))
    (((command,), options),) = calls
    assert command[0] == sys.executable
    assert "warm_up(apart=False)" in command[2]
    assert options["check"] is False

    def refuse(*arguments, **options):
        raise PermissionError("no processes here")

    assert not compilation.compile_apart(refuse)


def test_two_processes_that_load_what_was_compiled_find_the_same_bits():
    program = (
        "import hashlib, numpy as np; from sfumato_cpto import CPTOSolver, PlannerSettings;"
        "from sfumato_cpto.random_scenes import BOUNDS, scene;"
        "solver = CPTOSolver(PlannerSettings(bounds=BOUNDS)).warm_up();"
        "plans = [solver.plan(*scene(np.random.default_rng(seed), 5)) for seed in range(5)];"
        "print(hashlib.sha256(b''.join(p.coefficients.tobytes() for p in plans)).hexdigest())"
    )
    found = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 64

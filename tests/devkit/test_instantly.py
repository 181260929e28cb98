"""A run of tests names what fails when it fails, not when it ends."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import os, time, pytest

@pytest.fixture
def broken():
    raise RuntimeError("no setup")

def test_that_fails():
    assert 1 == 2, "the reason"

def test_without_a_setup(broken):
    pass

def test_that_hangs():
    time.sleep(100)
"""


def test_each_failing_test_is_named_while_others_run(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "devkit.instantly", "-n1", "test_some.py"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        assert run.stdout is not None
        seen = []
        for line in run.stdout:
            seen.append(line)
            if line.startswith("ERROR "):
                break
        run.terminate()
        assert run.poll() is None or run.returncode != 0
        run.wait(30)
    told = [line for line in seen if line.startswith(("FAILED ", "ERROR "))]
    assert told[0].startswith("FAILED test_some.py::test_that_fails: AssertionError: the reason")
    assert told[1].startswith("ERROR test_some.py::test_without_a_setup: ")

"""The search for secrets finds what it is there for."""

import sys
from pathlib import Path

import pytest

from tests import secrecy
from tests.run import Program


def test_a_secret_is_found_wherever_the_program_may_show_it(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "the-key-of-this-test"
    program("config", "show", "--config", f"/nowhere/{key}", env={"DAYTONA_API_KEY": key})
    sys.stdout.write("token hunter2")
    capsys.readouterr()
    (tmp_path / "guard.log").write_text(f"refused {key}")
    said = [*secrecy._said, *secrecy._files(tmp_path)]
    assert len(secrecy.shown(said, secrecy._secrets)) == 3
    assert key not in str(secrecy.shown(said, secrecy._secrets))
    (tmp_path / "guard.log").unlink()
    secrecy._said.clear()

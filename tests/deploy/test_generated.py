"""What is made from code is checked in as it would be made now."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from devkit.generate import __main__ as generate


def test_every_generated_file_is_up_to_date() -> None:
    assert sorted(map(str, generate.stale())) == [], "python -m devkit.generate writes them"


def test_the_command_writes_what_is_not_and_leaves_the_rest_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    for wanted in (sorted(map(str, generate.FILES)), []):
        assert generate.main() == 0
        assert sorted(capsys.readouterr().out.split()) == wanted
    for path, make in generate.FILES.items():
        assert (tmp_path / path).read_text() == make()
        assert path.parts[0] in ("deploy", "docs")


def test_the_manual_page_is_rendered_without_a_warning() -> None:
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("man and groff are not installed")
    page = generate.ROOT / "docs/reaper.1"
    command = ["man", "--warnings", "-E", "UTF-8", "-l", str(page)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "MANWIDTH": "80"}
    )
    assert ended.stderr == ""
    shown = " ".join(re.sub(".\b", "", ended.stdout).split())
    for part in ("reaper - delete the containers", "EXIT STATUS", "reaper init Write a reaper.toml", "--columns NAME,..."):
        assert part in shown

"""Every YAML file that an operator copies is read strictly, and is to the linter's taste."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import DEPLOY, ROOT, load

FILES = sorted([*DEPLOY.rglob("*.yml"), *DEPLOY.rglob("*.yaml")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_it_can_be_read_by_the_strict(file: Path) -> None:
    expected = (dict, list) if "ansible" in file.parts else dict  # Ansible's plays and tasks are lists
    assert all(isinstance(document, expected) for document in load(file.read_text()))


def test_the_linter_has_nothing_to_say() -> None:
    command = [sys.executable, "-m", "yamllint", "--strict", "--format", "parsable", "deploy"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="twice"):
        load("a: 1\nb: 2\na: 3\n")

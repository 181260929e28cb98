"""The distribution: a wheel that runs in an environment which holds nothing else, on every supported Python."""

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from reaper import __version__
from tests import needs
from tests.deploy.files import ROOT

PYTHONS = ("3.11", "3.12", "3.13")


def run(*argv: str | Path, cwd: Path) -> str:
    """The standard output of a command that must end with 0."""
    ended = subprocess.run(list(map(str, argv)), cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def bill() -> Any:
    """The bill of materials that is written beside the wheel."""
    return json.loads(run(sys.executable, "-m", "devkit.sbom", cwd=ROOT))


def test_the_bill_of_materials_is_cyclonedx() -> None:
    from cyclonedx.schema import SchemaVersion  # two seconds of a processor: not by each process that collects
    from cyclonedx.validation.json import JsonStrictValidator

    found = bill()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found)) is None
    refs = {each["bom-ref"] for each in (*found["components"], found["metadata"]["component"])}
    assert {each["ref"] for each in found["dependencies"]} == refs
    assert {ref for each in found["dependencies"] for ref in each["dependsOn"]} <= refs
    assert not {"pytest", "hypothesis", "daytona"} & {each["name"] for each in found["components"]}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the sdist of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


def test_both_are_named_for_the_distribution_and_hold_what_is_printed_from_them(dist: Path) -> None:
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    assert wheel.name == f"bench_reaper-{__version__}-py3-none-any.whl"
    assert sdist.name == f"bench_reaper-{__version__}.tar.gz"
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    own = f"bench_reaper-{__version__}"
    assert {name.split("/")[0] for name in held} == {"reaper", f"{own}.dist-info", f"{own}.data"}
    assert {name for name in held if name.startswith(f"{own}.data/")} == {f"{own}.data/data/share/man/man1/reaper.1"}
    assert {"reaper/reaper.example.toml", "reaper/schemas/report.schema.json", "reaper/schemas/history.schema.json"} <= held
    with tarfile.open(sdist) as sources:
        names = {name.partition("/")[2] for name in sources.getnames()}
    assert {"reaper/cli/__init__.py", "reaper.example.toml", "tests/conftest.py", "constraints.txt", "Makefile"} <= names
    assert "docs/reaper.1" in names


@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_runs_the_demo_in_an_environment_of_its_own(dist: Path, tmp_path: Path, version: str) -> None:
    python = needs.python(version)
    (wheel,) = dist.glob("*.whl")
    environment = tmp_path / "environment"
    run(python, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", environment, "install", "--quiet")
    run(*pip, "--no-compile", "--constraint", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    bin_ = environment / "bin"
    if sys.version.startswith(f"{version}."):
        brought = {"pip", "setuptools"}
        listed = json.loads(run(*pip[:-2], "list", "--format", "json", cwd=tmp_path))
        versions = {re.sub(r"[-_.]+", "-", each["name"]).lower(): each["version"] for each in listed}
        (own,) = {each["version"] for each in listed if each["name"] == "bench-reaper"}
        found = bill()
        assert {each["name"]: each["version"] for each in found["components"]} | {"bench-reaper": own} == {
            name: version for name, version in versions.items() if name not in brought
        }
    assert run(bin_ / "bench-reaper", "--version", cwd=tmp_path) == f"reaper {__version__}\n"
    assert "a second listing: nothing reapable is left" in run(bin_ / "reaper", "demo", cwd=tmp_path)
    assert run(bin_ / "reaper", "config", "example", cwd=tmp_path) == (ROOT / "reaper.example.toml").read_text()
    assert '"title"' in run(bin_ / "reaper", "config", "schema", cwd=tmp_path)
    assert (environment / "share/man/man1/reaper.1").read_text() == (ROOT / "docs/reaper.1").read_text()

"""A provider of another package: found by its entry point, and only where the configuration has its table."""

import json
import signal
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reaper import exits
from tests.program.wrapped import imported
from tests.run import NO_DAYTONA, Program
from tests.service.daemon import Daemon

ROOT = Path(__file__).parents[2]
CONFIG = """
[scope]
labels = ["team=rl"]
[[example]]
name = "attic"
folder = "{folder}"
[[policy]]
name = "stopped"
kinds = ["sandbox"]
states = ["down"]
"""


def install(where: Path, *providers: str) -> str:
    """Install a distribution for each; what goes into PYTHONPATH."""
    for number, value in enumerate(providers):
        info = where / f"another_{number}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: another-{number}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[reaper.providers]\nexample = {value}\n")
    return f"{where}:{ROOT}"


class Stage:
    """A folder of sandboxes, a configuration and the program."""

    def __init__(self, folder: Path, *providers: str) -> None:
        path = install(folder / "site", *providers)
        self.folder = folder / "sandboxes"
        self.folder.mkdir()
        env = {"PYTHONPATH": path, "EXAMPLE_TOKEN": "tok_secret", "DOCKER_HOST": "unix:///nowhere.sock", **NO_DAYTONA}
        self.program = Program(folder, env)
        self.configure()

    def configure(self, more: str = "") -> None:
        (self.program.folder / "reaper.toml").write_text(CONFIG.format(folder=self.folder) + more)

    def add(self, name: str, state: str = "down", labels: Mapping[str, str] | None = None, **fields: Any) -> None:
        created = (datetime.now(UTC) - timedelta(hours=30)).isoformat()
        row = {"state": state, "created": created, "labels": labels or {"team": "rl"}, **fields}
        (self.folder / f"{name}.json").write_text(json.dumps(row))

    def names(self) -> set[str]:
        return {file.stem for file in self.folder.iterdir()}


WORKING = "tests.example_provider:REGISTRATION"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, WORKING)


def test_the_command_line_sweeps_it_by_the_rules(stage: Stage) -> None:
    stage.add("leftover")
    stage.add("busy", "up")
    stage.add("odd", "haunted")
    stage.add("foreign", labels={"team": "web"})
    stage.add("kept", labels={"team": "rl", "reaper.keep": ""})
    stage.add("undated", created="yesterday")
    stage.add("unlabelled", labels=None)
    (stage.folder / "unlabelled.json").write_text('{"state": "down", "created": "2026-01-01T00:00:00+00:00"}')
    dry = stage.program("--once", "--dry-run", "--json")
    assert (dry.code, dry.outcomes()) == (0, {"leftover": "would_delete"}), dry.err
    ended = stage.program("--once", "--json")
    assert (ended.code, ended.outcomes()) == (0, {"leftover": "deleted"}), ended.err
    assert stage.names() == {"busy", "odd", "foreign", "kept", "undated", "unlabelled"}
    assert ended.document["endpoints"][0]["provider"] == "example"


def test_it_is_listed_explained_and_checked(stage: Stage) -> None:
    stage.add("leftover")
    stage.add("busy", "up")
    listed = stage.program("list", "--json")
    found = {r["name"]: r["verdict"] for e in listed.document["endpoints"] for r in e["resources"]}
    assert found == {"leftover": "reap", "busy": "keep"}
    assert "policy stopped" in stage.program("explain", "attic/leftover").out
    check = stage.program("config", "check")
    assert f"endpoint: attic, Example at {stage.folder}" in check.out
    assert stage.program("check", "--only", "example").code == exits.LEFT
    none = stage.program("list", "--only", "docker")
    assert (none.code, none.err) == (exits.USAGE, "reaper: --only: the configuration has no [[docker]]\n  add one\n")


def test_its_keys_are_checked_and_overridden_like_others(stage: Stage) -> None:
    other = stage.folder.parent / "other"
    other.mkdir()
    shown = stage.program("config", "show", env={"REAPER_EXAMPLE__ATTIC__FOLDER": str(other)})
    assert f'"{other}"' in next(line for line in shown.out.splitlines() if "example.attic.folder" in line)
    stage.configure('[[example]]\nname = "docker"\nfolder = "/x"\nfoldr = 1\n')
    wrong = stage.program("list")
    assert wrong.code == 2
    assert "[[example]] 'docker': unknown key 'foldr'; did you mean 'folder'?" in wrong.err
    assert "'docker' cannot be the name of an endpoint" in wrong.err


def test_its_secret_is_read_from_the_environment_and_never_told(stage: Stage) -> None:
    stage.add("leftover")
    told = stage.program("--once", "--log-level", "debug")
    assert "tok_secret" not in told.out + told.err
    missing = stage.program("list", env={"EXAMPLE_TOKEN": ""})
    assert (missing.code, missing.err) == (
        2,
        "reaper: EXAMPLE_TOKEN is not set\n  set it to the token of the service\n",
    )


def test_an_endpoint_that_cannot_be_listed_is_not_taken_for_an_empty_one(stage: Stage) -> None:
    stage.folder.rmdir()
    assert stage.program("--once", env={"REAPER_RETRY__ATTEMPTS": "1"}).code == exits.UNLISTED


def test_what_is_installed_is_not_loaded_without_its_table(stage: Stage) -> None:
    (stage.program.folder / "reaper.toml").write_text("# the defaults\n")
    modules = imported(stage.program, "config", "check")
    assert not {name for name in modules if name.startswith("tests.example_provider")}


BROKEN = {
    "it is not there": (
        ["tests.no_such:REGISTRATION"],
        "cannot be loaded, tests.no_such:REGISTRATION of the package another-0",
    ),
    "it is something else": (["tests.example_provider:STATES"], "is no registration of a provider called 'example'"),
    "two packages": ([WORKING, "tests.other:REGISTRATION"], "two packages bring a provider of this name"),
    "none": ([], "unknown key 'example'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_used_is_an_error_of_the_table(case: str, tmp_path: Path) -> None:
    providers, says = BROKEN[case]
    stage = Stage(tmp_path, *providers)
    stage.add("leftover")
    ended = stage.program("--once")
    assert ended.code == 2
    assert says in ended.err
    assert "Traceback" not in ended.err
    assert stage.names() == {"leftover"}


REFUSING = """
from reaper.errors import ConfigError
from tests.example_provider import REGISTRATION as EXAMPLE

class Refusing(type(EXAMPLE)):
    def connect(self, table, secret, state, *, act):
        if table.name == "cellar":
            raise ConfigError("it has no door", "make one")
        return super().connect(table, secret, state, act=act)

REGISTRATION = Refusing()
"""


def test_of_a_configuration_with_an_endpoint_that_cannot_be_had_a_reload_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "refusing.py").write_text(REFUSING)
    stage = Stage(tmp_path, "refusing:REGISTRATION")
    config = CONFIG.format(folder=stage.folder).replace('states = ["down"]', 'states = ["down"]\nevery = "1s"')
    cellar = f'[[example]]\nname = "cellar"\nfolder = "{tmp_path}"\n'
    stage.add("living", state="up")
    with Daemon(stage.program, config).start() as daemon:
        daemon.wait("sweep_finished", endpoint="attic")
        daemon.configure(config.replace('"down"', '"down", "up"') + cellar)
        daemon.signal(signal.SIGHUP)
        assert "it has no door" in daemon.wait("reload_refused")["problem"]
        stage.add("stopped")
        daemon.wait("deleted", name="stopped")
        assert stage.names() == {"living"}
        daemon.configure(config.replace('"down"', '"down", "up"'))
        daemon.signal(signal.SIGHUP)
        daemon.wait("deleted", name="living")
        assert daemon.stop() == 0

"""Where the docker command uses another context, its engine alone is asked: never the one at the default socket."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from devkit.engine import PrivateEngine
from devkit.faults import FaultProxy
from tests.engine.lab import OWNED, WAITS, containers, exited
from tests.program.test_docker_context import context
from tests.run import NO_DAYTONA, Ended, Program
from tests.running.lab import end_guards

pytestmark = pytest.mark.engine

NAMES = {"ended", "running"}
REAPER = (sys.executable, "-m", "reaper")
LIBRARY = """
from reaper import DockerCleanupManager
manager = DockerCleanupManager()
print(sorted(container.name for container in manager.list_containers(all_containers=True)))
manager.cleanup_containers({"label": ["terminal-bench"]})
"""
# In a mount namespace of its own: /run is the folder of the default socket, and this host's engine is not there.
AT_DEFAULT = 'mount -t tmpfs tmpfs /run; ln -s "$0" /run/docker.sock; exec "$@"'


@pytest.fixture(scope="module")
def module_other(module_engine: PrivateEngine) -> Iterator[PrivateEngine]:
    with PrivateEngine(module_engine.flavour.name) as engine:
        engine.import_image()
        yield engine


@pytest.fixture
def other(module_other: PrivateEngine) -> Iterator[PrivateEngine]:
    """The engine of the context; what it holds has the names of what the other one holds."""
    yield module_other
    module_other.clear()


@pytest.fixture
def default(engine: PrivateEngine, other: PrivateEngine) -> Iterator[FaultProxy]:
    """Stands before the engine at the default socket."""
    for one in (engine, other):
        exited(one, "ended")
        one.create("running", labels=OWNED, cmd=WAITS, start=True)
    with FaultProxy(engine.socket) as proxy:
        yield proxy


class Shell:
    """A shell of a user, to whom the proxy is the engine at the default socket."""

    def __init__(self, folder: Path, proxy: FaultProxy) -> None:
        self.env = Program(folder, NO_DAYTONA).env
        self._socket = proxy.host.removeprefix("unix://")
        self._folder = folder

    def __call__(self, *command: str) -> Ended:
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", AT_DEFAULT, self._socket, *command]
        done = subprocess.run(argv, env=self.env, cwd=self._folder, capture_output=True, text=True, timeout=120, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def shell(tmp_path: Path, default: FaultProxy) -> Iterator[Shell]:
    yield Shell(tmp_path, default)
    end_guards(tmp_path)


LOOKS = (("list", "--json"), ("check", "--all", "--json"), ("explain", "ended"))
ACTS: Mapping[str, tuple[Sequence[str], set[str]]] = {
    "once": ((*REAPER, "--once", "--all"), set()),
    "run": ((*REAPER, "run", "--stopped", "--", "true"), {"running"}),
    "library": ((sys.executable, "-c", LIBRARY), set()),
}


@pytest.fixture(params=["current", "DOCKER_CONTEXT"])
def in_context(request: pytest.FixtureRequest, tmp_path: Path, shell: Shell, other: PrivateEngine) -> Shell:
    """The same, of a user who has chosen the context of the other engine."""
    context(tmp_path / ".docker", "gpu-1", {"Host": other.host}, current=request.param == "current")
    if request.param != "current":
        shell.env["DOCKER_CONTEXT"] = "gpu-1"
    return shell


def test_the_engine_of_the_context_alone_is_looked_at(
    in_context: Shell, engine: PrivateEngine, other: PrivateEngine, default: FaultProxy
) -> None:
    found = [in_context(*REAPER, *look) for look in LOOKS]
    assert [ended.code for ended in found] == [0, 6, 0], found
    (endpoint,) = found[0].document["endpoints"]
    assert {row["id"] for row in endpoint["resources"]} == set(other.ids())
    assert default.log == [], "the other engine was asked"
    assert containers(engine) == containers(other) == NAMES


@pytest.mark.parametrize("act", ACTS)
def test_the_engine_of_the_context_alone_is_swept(
    in_context: Shell, engine: PrivateEngine, other: PrivateEngine, default: FaultProxy, act: str
) -> None:
    argv, left = ACTS[act]
    ended = in_context(*argv)
    assert ended.code == 0, ended.err
    assert default.log == [], "the other engine was asked"
    assert containers(engine) == NAMES
    assert engine.state("running") == "running"
    assert containers(other) == left
    if act == "library":
        assert ended.out == "['ended', 'running']\n"


def test_without_a_context_it_is_the_default_one(
    shell: Shell, engine: PrivateEngine, other: PrivateEngine, default: FaultProxy
) -> None:
    ended = shell(*REAPER, "--once", "--all", "--json")
    assert ended.code == 0, ended.err
    assert default.log
    assert containers(engine) == set()
    assert containers(other) == NAMES


def test_a_context_whose_engine_is_not_there_is_no_reason_to_take_the_default_one(
    tmp_path: Path, shell: Shell, engine: PrivateEngine, default: FaultProxy
) -> None:
    context(tmp_path / ".docker", "gpu-1", {"Host": f"unix://{tmp_path}/gone.sock"}, current=True)
    shell.env["REAPER_RETRY__ATTEMPTS"] = "1"
    for argv, _ in ACTS.values():
        ended = shell(*argv)
        assert (ended.code != 0) is ("run" not in argv), "a run goes on without a sweep"
        assert "gone.sock" in ended.err
    assert default.log == []
    assert containers(engine) == NAMES


def test_what_runs_under_a_lease_is_made_on_the_engine_of_the_context(
    tmp_path: Path, shell: Shell, engine: PrivateEngine, other: PrivateEngine, default: FaultProxy
) -> None:
    context(tmp_path / ".docker", "gpu-1", {"Host": other.host}, current=True)
    make = "import docker; docker.from_env().containers.create('bench:1', 'true', name='mine')"
    ended = shell(*REAPER, "run", "--skip-cleanup", "--", sys.executable, "-c", make)
    assert ended.code == 0, ended.err
    assert default.log == []
    assert containers(engine) == NAMES
    assert containers(other) == NAMES, "what it made was cleaned up"

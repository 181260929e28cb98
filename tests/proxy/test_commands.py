"""Docker's own commands give through the proxy, byte for byte, what they give without it."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devkit import compose
from devkit.engine import PrivateEngine
from tests import needs
from tests.proxy.commands import Docker, Ended, until, with_buildkit
from tests.proxy.lab import LABELS, Proxied

pytestmark = [pytest.mark.engine, pytest.mark.engines(*needs.DOCKERS)]

MEGABYTES = random.Random(1).randbytes(3_000_000)
COUNTS = "for i in 1 2 3 4 5 6 7 8; do echo out $i; echo err $i >&2; usleep 20000; done"
# Not a shell's own prompt: what an editor of lines draws depends on how fast one types.
SIZED = 'until [ -n "$(stty size 2>/dev/null)" ]; do usleep 10000; done; stty size'
TALKS = f'printf "> "; read a; echo "got $a"; {SIZED}; printf "> "; read b; exit $b'
SAYS = [(b"> ", b"hello\n"), (b"> ", b"3\n")]


@pytest.fixture(scope="module")
def proxied(module_engine: PrivateEngine) -> Iterator[Proxied]:
    needs.tool("docker", "docker.io")
    with Proxied(module_engine.host) as made:
        yield made
        until(lambda: made.connections == 0, "the last connection's end")
        assert made.told == []


Both = Callable[[Callable[[Docker], Ended]], Ended]


@pytest.fixture
def both(engine: PrivateEngine, proxied: Proxied, tmp_path: Path) -> Both:
    """Does something without and with the proxy, and returns what both gave."""

    def do(what: Callable[[Docker], Ended]) -> Ended:
        without, through = (what(Docker(host, tmp_path)) for host in (engine.host, proxied.host))
        assert through == without
        return through

    return do


@pytest.fixture
def through(engine: PrivateEngine, proxied: Proxied, tmp_path: Path) -> Docker:
    return Docker(proxied.host, tmp_path)


def test_run_at_a_terminal(both: Both) -> None:
    ended = both(lambda docker: docker.at_terminal("run", "-it", "--rm", "bench:1", "sh", "-c", TALKS, says=SAYS))
    assert ended == Ended(3, b"> hello\r\ngot hello\r\n40 100\r\n> 3\r\n")


def test_input_to_its_end_and_output_after_it(both: Both) -> None:
    script = "cat; echo end of input >&2; usleep 100000; echo end"
    ended = both(lambda docker: docker("run", "-i", "--rm", "bench:1", "sh", "-c", script, stdin=MEGABYTES))
    assert ended == Ended(0, MEGABYTES + b"end\n", b"end of input\n")
    assert both(lambda docker: docker("run", "--rm", "bench:1", "sh", "-c", "exit 7")).code == 7
    assert b"executable file not found" in both(lambda docker: docker("run", "--rm", "bench:1", "nothing")).without_ids().err


def test_exec_and_attach_and_cp(engine: PrivateEngine, both: Both, tmp_path: Path) -> None:
    engine.create("box", start=True)
    (tmp_path / "file").write_bytes(MEGABYTES)
    ended = both(lambda docker: docker("exec", "-i", "box", "sh", "-c", "cat; exit 5", stdin=MEGABYTES))
    assert ended == Ended(5, MEGABYTES)
    assert both(lambda docker: docker.at_terminal("exec", "-it", "box", "sh", "-c", TALKS, says=SAYS)).code == 3
    assert both(lambda docker: docker("exec", "box", "false")).code == 1
    assert both(lambda docker: docker("exec", "-d", "box", "true")).code == 0
    assert both(lambda docker: docker("exec", "none", "true")).code == 1

    assert both(lambda docker: docker("cp", str(tmp_path / "file"), "box:/there")).code == 0
    assert MEGABYTES in both(lambda docker: docker("cp", "box:/there", "-")).out
    assert both(lambda docker: docker("cp", "box:/none", "-")).code == 1

    def refused(docker: Docker) -> Ended:
        """Before the upload has ended: what else the command says depends on how far it had come."""
        ended = docker("cp", str(tmp_path / "file"), "box:/none/file")
        return Ended(ended.code, ended.out, ended.err.splitlines()[-1])

    assert both(refused) == Ended(1, b"", b"Error response from daemon: Could not find the file /none in container box")

    def attached(docker: Docker) -> Ended:
        docker("create", "-i", "--name", "reader", "bench:1", "sh", "-c", "cat; echo end")
        ended = docker("start", "-ai", "reader", stdin=b"input\n")
        docker("rm", "reader")
        return ended

    assert both(attached) == Ended(0, b"input\nend\n")
    # The keys that detach leave the container running.

    def detached(docker: Docker) -> Ended:
        ended = docker.at_terminal(
            "run", "-it", "--name", "shell", "bench:1", "sh", "-c", TALKS, says=[(b"> ", b"\x10\x11")]
        )
        assert engine.state("shell") == "running"
        engine.remove("shell", force=True)
        return ended

    assert both(detached).code == 0


def test_logs_and_events(engine: PrivateEngine, both: Both, through: Docker, proxied: Proxied) -> None:
    began = engine.api.must("GET", "/info")["SystemTime"]

    def followed(docker: Docker) -> Ended:
        docker("run", "-d", "--name", "talks", "bench:1", "sh", "-c", COUNTS)
        ended = docker("logs", "-f", "talks")
        docker("rm", "talks")
        return ended

    assert both(followed).out.endswith(b"out 8\n")
    engine.create("silent", start=True)
    engine.create("loud", cmd=("sh", "-c", "yes 0123456789 | head -c 500000"), start=True)
    engine.wait_state("loud", "exited")
    assert len(both(lambda docker: docker("logs", "-t", "loud")).out) > 1_000_000
    assert both(lambda docker: docker("logs", "--tail", "3", "loud")).out == (b"0123456789\n" * 46_000)[:500_000][-28:]
    ended = engine.api.must("GET", "/info")["SystemTime"]
    history = both(lambda docker: docker("events", "--since", began, "--until", ended, "--format", "{{json .}}"))
    assert b'"start"' in history.out

    # Who follows and is killed is not followed any more.
    follower, watcher = (
        through.start("logs", "-f", "silent"),
        through.start("events", "--since", began, "--format", "{{.ID}}"),
    )
    assert watcher.stdout is not None
    assert watcher.stdout.readline()
    until(lambda: proxied.connections >= 2, "both to follow")
    for process in (follower, watcher):
        process.kill()
        process.communicate()
    until(lambda: proxied.connections == 0, "their connections to end")


def test_builds(both: Both, engine: PrivateEngine, proxied: Proxied, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM bench:1\nCOPY data /data\nRUN echo built && wc -c /data\nLABEL a=b\n")
    (context / "data").write_bytes(MEGABYTES)
    classic = {"DOCKER_BUILDKIT": "0"}
    ended = both(lambda docker: docker("build", "--no-cache", str(context), env=classic).without_ids())
    assert ended.code == 0
    assert b"Successfully built" in ended.out
    assert engine.ids() == []  # the containers of its steps are the engine's own
    (context / "Dockerfile").write_text("FROM bench:1\nRUN false\n")
    assert both(lambda docker: docker("build", "--no-cache", str(context), env=classic).without_ids()).code == 1

    (context / "Dockerfile").write_text("FROM bench:1\nCOPY data /data\nRUN echo built && wc -c /data\n")
    command = with_buildkit()
    digests = set()
    for host in (proxied.host, engine.host):
        docker = Docker(host, tmp_path, command)
        ended = docker("build", "--progress", "plain", "-t", "made:1", str(context), env={"DOCKER_BUILDKIT": "1"})
        assert ended.code == 0, ended.err
        digests.add(engine.api.must("GET", "/images/made:1/json")["Id"])
        assert docker("run", "--rm", "made:1", "cat", "/data").out == MEGABYTES
    assert len(digests) == 1  # BuildKit has it in its cache: the context that arrived first was the same


def test_compose(engine: PrivateEngine, proxied: Proxied, tmp_path: Path) -> None:
    if reason := compose.available():
        needs.lacking(reason)
    service = {"image": "bench:1", "command": ["sh", "-c", COUNTS.replace("$", "$$")], "volumes": ["kept:/kept"]}
    content = {"version": "3", "services": {"main": service}, "volumes": {"kept": {}}}

    def up_and_down(host: str) -> list[list[str]]:
        def do(*arguments: str) -> list[str]:
            return sorted(compose.compose(host, "trial", content, *arguments, directory=tmp_path).splitlines())

        shown = [do("up", "--no-color")]
        found.append(labels(engine))
        return [*shown, do("up", "-d"), do("down", "--volumes")]

    found: list[dict[str, str | None]] = []
    without, through = up_and_down(engine.host), up_and_down(proxied.host)
    assert found == [dict.fromkeys(("trial_main_1", "trial_default", "trial_kept"), lease) for lease in (None, "run-1")]
    # What is up already differs from its file now: Compose 1.29 says so of networks and volumes, and goes on.
    changed = 'label "reaper.lease" has changed. It may need to be recreated.'
    assert [line for line in through[1] if "changed" in line] == [
        f"Network trial_default: {changed}",
        f"Volume kept: {changed}",
    ]
    assert [[line for line in lines if "changed" not in line] for lines in through] == without
    assert labels(engine) == {}


def labels(engine: PrivateEngine) -> dict[str, str | None]:
    """The lease of each container, network and volume, by name."""
    name = next(iter(LABELS))
    rows = [(row["Names"][0].lstrip("/"), row["Labels"]) for row in engine.api.must("GET", "/containers/json?all=1")]
    rows += [(row["Name"], row["Labels"]) for row in engine.api.must("GET", "/networks")]
    rows += [(row["Name"], row["Labels"]) for row in engine.api.must("GET", "/volumes")["Volumes"] or []]
    return {found: (have or {}).get(name) for found, have in rows if found not in ("bridge", "host", "none")}


def test_the_engine_takes_as_a_creation_only_what_is_labelled(
    engine: PrivateEngine, proxied: Proxied, tmp_path: Path
) -> None:
    docker = Docker(proxied.host, tmp_path)
    assert docker("create", "--name", "plain", "bench:1", "true").code == 0
    assert docker("create", "--name", "theirs", "--label", "reaper.lease=outer", "bench:1", "true").code == 0
    assert docker("network", "create", "net").code == 0
    assert docker("volume", "create", "vol").code == 0
    through, body = type(engine.api)(str(proxied.path)), {"Name": "odd", "labels": None}
    odd = ("/volumes%2Fcreate", "/v1.41/%76olumes/create", "http://docker/volumes/create", "http:/volumes/create?a=b")
    expected: dict[str, str | None] = {"plain": "run-1", "theirs": "outer", "net": "run-1", "vol": "run-1"}
    for path in odd:
        assert through.request("POST", path, body).status == 201, path
        assert labels(engine) == {**expected, "odd": "run-1"}, path
        engine.api.delete("/volumes/odd")
    for path in (
        "//volumes/create",
        "/volumes/./create",
        "/volumes/create/",
        "/V1.41/volumes/create",
        "/x/../volumes/create",
    ):
        assert through.request("POST", path, body).status in (301, 404), path
    for content in ('{"Name":"odd","LABELS":{}} x', '{"Name":"odd","Label\u017f":null,"labels":{"a":"b"}}'):
        assert through.request("POST", "/volumes/create", content.encode()).status in (201, 400)
        assert labels(engine) in (expected, {**expected, "odd": "run-1"}), content
        engine.api.delete("/volumes/odd")
    assert json.loads(docker("inspect", "plain").out)[0]["Config"]["Labels"] == LABELS

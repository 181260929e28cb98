"""Many engines from one table: ``hosts_file`` and ``file_sd``."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reaper.config import load
from reaper.config.show import schema
from reaper.errors import ConfigError
from reaper.simulator.server import Simulator
from reaper.simulator.world import ContainerSpec
from tests import schemas
from tests.program.conftest import QUICK as RETRY
from tests.program.fakeengine import FakeEngine
from tests.run import Program
from tests.service.daemon import QUICK, Daemon

TABLE = '[[docker]]\nname = "fleet"\nhosts_file = "hosts.txt"\n'
SD = '[[docker]]\nname = "fleet"\nfile_sd = ["targets/*.json"]\n'


@pytest.fixture
def others() -> Iterator[list[FakeEngine]]:
    """Two more engines."""
    with FakeEngine() as one, FakeEngine() as other:
        yield [one, other]


def _loaded(folder: Path, hosts: str, text: str = TABLE, **env: str) -> load.Config:
    (folder / "hosts.txt").write_text(hosts)
    (folder / "reaper.toml").write_text(text)
    return load.load(str(folder / "reaper.toml"), env)


def _discovered(folder: Path, text: str = SD, **files: object) -> load.Config:
    (folder / "targets").mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / "targets" / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    (folder / "reaper.toml").write_text(text)
    return load.load(str(folder / "reaper.toml"), {})


def _engines(config: load.Config) -> dict[str, str]:
    return {endpoint.name: endpoint.address for endpoint in load.endpoints(config.settings, {})}


# -- what is read ------------------------------------------------------------------------------------------------------


def test_each_line_is_an_engine_with_a_name_that_its_address_alone_determines(tmp_path: Path) -> None:
    hosts = """
    # rack 1
    tcp://10.0.0.5:2375
    10.0.0.6:2376   gpu-6   # the new one
    10.0.0.7
    tcp://10.0.0.7:2380
    https://gpu-8.example.org:2376
    ssh://me@gpu-9:22
    ssh://gpu-9/run/user/1000/docker.sock
    tcp://[fd00::5]:2375
    unix:///var/run/docker.sock
    """
    expected = {
        "10.0.0.5": "tcp://10.0.0.5:2375",
        "gpu-6": "tcp://10.0.0.6:2376",
        "10.0.0.7": "tcp://10.0.0.7",
        "10.0.0.7-2380": "tcp://10.0.0.7:2380",
        "gpu-8.example.org": "https://gpu-8.example.org:2376",
        "me-gpu-9": "ssh://me@gpu-9:22",
        "gpu-9-run-user-1000-docker": "ssh://gpu-9/run/user/1000/docker.sock",
        "fd00-5": "tcp://[fd00::5]:2375",
        "local": "unix:///var/run/docker.sock",
    }
    assert _engines(_loaded(tmp_path, hosts)) == expected
    reordered = "\n".join(reversed(hosts.splitlines()))
    assert _engines(_loaded(tmp_path, reordered)) == expected


def test_prometheus_targets_are_engines(tmp_path: Path) -> None:
    found = _discovered(
        tmp_path,
        one=[{"targets": ["10.0.0.5:2376", "10.0.0.6:2376"], "labels": {"rack": "1"}}],
        two=[{"targets": ["tcp://10.0.0.7:2375"], "labels": {"name": "gpu-7"}}, {"targets": []}, {"labels": None}],
    )
    (tmp_path / "targets" / ".half.json").write_text("[{")
    assert _engines(found) == {
        "10.0.0.5-2376": "tcp://10.0.0.5:2376",
        "10.0.0.6-2376": "tcp://10.0.0.6:2376",
        "gpu-7": "tcp://10.0.0.7:2375",
    }


def test_the_other_keys_of_the_table_hold_for_each_engine_and_its_name_means_all_of_them(tmp_path: Path) -> None:
    text = (
        TABLE
        + 'removals = 3\ntls_verify = false\n[[docker]]\nname = "other"\nhost = "tcp://other:2375"\n'
        + '[[policy]]\nname = "p"\nkinds = ["container"]\nolder_than = "6h"\nendpoints = ["fleet"]\n'
        + '[[quota]]\nname = "q"\nkinds = ["container"]\nendpoints = ["fleet", "other"]\nmax_count = 5\n'
        + "[prices.endpoints]\nfleet = { container_hour = 2.0 }\ngpu-2 = { container_hour = 3.0 }\n"
    )
    settings = _loaded(tmp_path, "gpu-1:2376\ngpu-2:2376\n", text, REAPER_DOCKER__FLEET__STOPS="7").settings
    tables = {table.name: table for _, table in settings.endpoints()}
    assert list(tables) == ["gpu-1", "gpu-2", "other"]
    dumped = [tables[name].model_dump() for name in ("gpu-1", "gpu-2")]
    assert [(each["removals"], each["stops"], each["tls_verify"]) for each in dumped] == [(3, 7, False)] * 2
    assert settings.policy[0].endpoints == ("gpu-1", "gpu-2")
    assert settings.quota[0].endpoints == ("gpu-1", "gpu-2", "other")
    prices = settings.prices.prices().endpoints
    assert {name: rates.container for name, rates in prices.items()} == {"gpu-1": 2.0, "gpu-2": 3.0}


def test_a_table_with_files_needs_no_name(tmp_path: Path) -> None:
    text = '[[docker]]\nhosts_file = "hosts.txt"\n'
    assert _engines(_loaded(tmp_path, "gpu-1\n", text)) == {"gpu-1": "tcp://gpu-1"}
    validator = schemas.validator(json.loads(schema()))
    assert validator.is_valid({"docker": [{"hosts_file": "hosts.txt"}]})
    assert validator.is_valid({"docker": [{"name": "x"}]})
    assert not validator.is_valid({"docker": [{"host": "tcp://gpu-1:2375"}]})


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "line", "problem"),
    [
        ("tcp://a:2375\n\n# x\nftp://b\n", 4, "is no Docker host"),
        ("/var/run/docker.sock\n", 1, 'write "unix:///var/run/docker.sock"'),
        ("tcp://user:secret@a:2375\n", 1, "holds a user or a password"),
        ("tcp://a:2375 one two\n", 1, "it has 3 words"),
        ("tcp://a:2375 b/c\n", 1, "'b/c' is no name"),
        ("tcp://a:2375 docker\n", 1, "cannot be the name of an endpoint"),
        ("tcp://a:2375\ntcp://A:2375\n", 2, "is the engine of {file}:1 again"),
        ("a\nhttp://a:2375/ b\n", 2, "is the engine of {file}:1 again"),
        ("a one\nb one\n", 2, "has the name 'one', which is that of {file}:1"),
        ("a fleet\n", 1, "has the name 'fleet', which is that of [[docker]] 'fleet'"),
        ("tcp://other:2375 x\n", 1, "is the engine of [[docker]] 'other' again"),
        ("b other\n", 1, "has the name 'other', which is that of [[docker]] 'other'"),
    ],
)
def test_a_line_that_cannot_be_right_is_named(tmp_path: Path, hosts: str, line: int, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _loaded(tmp_path, hosts, TABLE + '[[docker]]\nname = "other"\nhost = "tcp://other"\n')
    file = tmp_path / "hosts.txt"
    assert refused.value.where == f"{file}:{line}"
    assert problem.format(file=file) in str(refused.value)
    assert "secret" not in str(refused.value)


def test_all_lines_that_cannot_be_right_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        _loaded(tmp_path, "ftp://a\ntcp://b\ntcp://b\n")
    assert str(refused.value).startswith(f"{tmp_path / 'hosts.txt'}:1: ")
    assert f"\n  {tmp_path / 'hosts.txt'}:3: tcp://b is the engine of" in str(refused.value)


def test_a_socket_by_another_path_is_the_same_engine(tmp_path: Path) -> None:
    (tmp_path / "link.sock").symlink_to(tmp_path / "real.sock")
    with pytest.raises(ConfigError, match="again"):
        _loaded(tmp_path, f"unix://{tmp_path}/real.sock\nunix://{tmp_path}/link.sock\n")


@pytest.mark.parametrize("hosts", ["", "# none today\n\n"])
def test_no_engine_at_all_is_refused_and_never_another_one_in_its_place(run: Program, fake: FakeEngine, hosts: str) -> None:
    fake.add("old")
    (run.folder / "hosts.txt").write_text(hosts)
    (run.folder / "reaper.toml").write_text(TABLE)
    ended = run("--once")
    assert (ended.code, fake.calls) == (2, [])
    assert "no engine is named there" in ended.err


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ('hosts_file = "missing.txt"', "missing.txt: cannot be read: No such file or directory"),
        ('hosts_file = "targets"', "targets: cannot be read"),
        ('hosts_file = " "', "names no file"),
        ("hosts_file = 5", "write a text in quotes"),
        ('hosts_file = "hosts.txt"\nhost = "tcp://a"', "host and a file of hosts do not go together"),
        ("file_sd = []", "no engine is named there"),
        ('file_sd = "targets.json"', "write a list"),
        ('file_sd = ["targets/*.yml"]', "YAML is not read"),
        ('file_sd = ["targets/hosts.txt"]', "what is not called .json is not read"),
        ('file_sd = ["*/a.json"]', "globs work in a file's name only"),
        ('file_sd = ["targets/*.json"]', "no engine is named there"),
        ('file_sd = ["targets/a.json"]', "a.json: cannot be read: No such file or directory"),
        ('hosts_file = "pipe"', "it is no regular file"),
        ('hosts_file = "binary"', "is no text in UTF-8"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, key: str, problem: str) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError) as refused:
        _loaded(tmp_path, "tcp://a\n", f'[[docker]]\nname = "fleet"\n{key}\n')
    assert problem in str(refused.value).replace("Invalid argument", "it is no regular file")


@pytest.mark.parametrize(
    ("content", "where", "problem"),
    [
        ('[\n{"targets": ["a",]}\n]', ":2", "is not JSON"),
        ('{"targets": ["a"]}', "", "is no list"),
        ("[5]", "", "entry 1 is no object"),
        ('[{"targets": ["a"]}, {"source": "x"}]', "", "entry 2 has the unknown key 'source'"),
        ('[{"targets": "a"}]', "", "entry 1 has targets that are no list of texts"),
        ('[{"targets": ["a"], "labels": {"name": 5}}]', "", "entry 1 has labels that are no texts"),
        ('[\n{"targets": [\n"tcp://a",\n"ftp://b"]}]', ":4", "is no Docker host"),
        ('[{"targets": ["a", "b"],\n"labels": {"name": "x"}}]', ":1", "has the name 'x'"),
        ("[" * 100_000, "", "is not JSON"),
    ],
)
def test_targets_that_cannot_be_right_are_named(tmp_path: Path, content: str, where: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _discovered(tmp_path, one=content)
    assert refused.value.where == f"{tmp_path / 'targets' / 'one.json'}{where}"
    assert problem in str(refused.value)


@pytest.mark.parametrize("kind", ["hosts_file", "file_sd"])
def test_a_file_of_hosts_that_others_may_write_is_refused(run: Program, fake: FakeEngine, kind: str) -> None:
    fake.add("old")
    file = run.folder / "hosts.json"
    file.write_text(fake.host if kind == "hosts_file" else json.dumps([{"targets": [fake.host]}]))
    value = '"hosts.json"' if kind == "hosts_file" else '["hosts.json"]'
    (run.folder / "reaper.toml").write_text(f"[[docker]]\n{kind} = {value}\n")
    file.chmod(0o666)
    ended = run("--once")
    assert (ended.code, fake.calls) == (2, [])
    assert f"reaper: {file.name}: it can be written by every user" in ended.err
    file.chmod(0o644)
    assert run("--once").code == 0
    assert fake.names() == set()


# -- the commands ------------------------------------------------------------------------------------------------------


def test_each_engine_is_swept_and_only_selects_one_or_all(
    run: Program, fake: FakeEngine, others: list[FakeEngine], tmp_path: Path
) -> None:
    for engine in (fake, *others):
        engine.add("old")
    (tmp_path / "hosts.txt").write_text(f"{others[0].host} one\n{others[1].host} two\n")
    (tmp_path / "reaper.toml").write_text(TABLE)
    assert run("--once", "--only", "one").code == 0
    assert [engine.names() for engine in (fake, *others)] == [{"old"}, set(), {"old"}]
    assert run("--once", "--only", "fleet").code == 0
    assert [engine.names() for engine in (fake, *others)] == [{"old"}, set(), set()]


def test_config_check_and_show_name_the_hosts_and_their_lines(run: Program, tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("tcp://10.0.0.5:2375\n\ntcp://10.0.0.6:2375 gpu-6\n")
    (tmp_path / "reaper.toml").write_text(TABLE + "removals = 3\n")
    out = run("config", "check").out
    assert "endpoint: 10.0.0.5, Docker at tcp://10.0.0.5:2375, named in hosts.txt:1\n" in out
    assert "endpoint: gpu-6, Docker at tcp://10.0.0.6:2375, named in hosts.txt:3\n" in out
    shown = [line.split() for line in run("config", "show").out.splitlines() if line.startswith("docker.")]
    assert shown == [
        ["docker.10.0.0.5.host", "=", '"tcp://10.0.0.5:2375"', "#", "hosts.txt:1"],
        ["docker.10.0.0.5.removals", "=", "3", "#", "reaper.toml"],
        ["docker.gpu-6.host", "=", '"tcp://10.0.0.6:2375"', "#", "hosts.txt:3"],
        ["docker.gpu-6.removals", "=", "3", "#", "reaper.toml"],
    ]


# -- the service -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False], ids=["by a signal", "by the change itself"])
def test_hosts_come_and_go_with_their_file(
    run: Program, fake: FakeEngine, others: list[FakeEngine], tmp_path: Path, *, told: bool
) -> None:
    """A host that is not named any more is not swept, and has no series; one that is named is."""
    hosts = tmp_path / "hosts.txt"

    def name(*engines: FakeEngine) -> None:
        (tmp_path / "new.txt").write_text("".join(f"{engine.host} {names[engine.host]}\n" for engine in engines))
        (tmp_path / "new.txt").replace(hosts)
        if told:
            daemon.signal(signal.SIGHUP)

    names = {fake.host: "zero", others[0].host: "one", others[1].host: "two"}
    hosts.write_text(f"{fake.host} zero\n{others[0].host} one\n")
    with Daemon(run, QUICK + TABLE).start() as daemon:
        daemon.wait("sweep_finished", endpoint="zero")
        daemon.wait("sweep_finished", endpoint="one")
        daemon.file.write_text(daemon.file.read_text().replace("6h", "900h") if not told else daemon.file.read_text())
        name(others[0], others[1])
        daemon.wait("reloaded")
        fake.add("not any more")
        others[1].add("old")  # of two days: an edit of the configuration itself that no signal has told of does not count
        daemon.wait("deleted", endpoint="two", name="old")
        swept = len(list(daemon.events("sweep_finished", endpoint="one")))
        daemon.wait("sweep_finished", endpoint="one", times=swept + 2)
        assert fake.names() == {"not any more"}
        assert 'endpoint="zero"' not in daemon.get("/metrics")[1]
        assert "zero" not in daemon.get("/")[1]
        hosts.write_text("")
        if told:
            daemon.signal(signal.SIGHUP)
        refused = daemon.wait("reload_refused")
        assert "no engine is named there" in refused["problem"]
        others[0].add("still swept")
        daemon.wait("deleted", endpoint="one", name="still swept")
        assert len(list(daemon.events("reload_refused"))) <= 1 + told, "the service may see the change before the signal"
        reloaded = len(list(daemon.events("reloaded")))
        name(others[0])
        daemon.wait("reloaded", times=reloaded + 1)
        assert daemon.metric("reaper_config_last_reload_successful") == 1
        assert daemon.stop() == 0


# -- one engine by two addresses ---------------------------------------------------------------------------------------


def leftovers(count: int) -> list[ContainerSpec]:
    then = datetime.now(UTC) - timedelta(days=3)
    one = ContainerSpec(name="c", image="b:1", labels={"terminal-bench": "yes"}, state="exited", created=then, finished=then)
    return [replace(one, name=f"c{number}") for number in range(count)]


def test_one_engine_by_two_addresses_is_swept_under_one_name_alone(tmp_path: Path) -> None:
    """Else the deletion cap would hold twice as much as it says. No address tells: only the engine does."""
    with Simulator(containers=leftovers(3), docker_port=0) as one, Simulator(containers=leftovers(3)) as other:
        (tmp_path / "hosts.txt").write_text(f"{one.docker_host} a\n{one.docker_tcp} b\n{other.docker_host}\n")
        (tmp_path / "reaper.toml").write_text(TABLE + "[limits]\nmax_deletions = 2\n")
        ended = Program(tmp_path)("--once", "--dry-run", "--json")
        failed = {e["endpoint"]: e["failure"] for e in ended.document["endpoints"] if e["failure"] is not None}
        (refused,) = failed
        assert refused in ("a", "b")
        assert failed[refused]["error"] == "same_endpoint"
        assert f"the engine of endpoint {'a' if refused == 'b' else 'b'} by another address" in failed[refused]["message"]
        assert ended.code == 5


def test_an_engine_that_gets_another_name_is_swept_under_it(tmp_path: Path) -> None:
    with Simulator(containers=[replace(leftovers(1)[0], labels={})], docker_port=0) as one:
        hosts = tmp_path / "hosts.txt"
        hosts.write_text(f"{one.docker_host} a\n")
        with Daemon(Program(tmp_path, RETRY), QUICK + TABLE).start() as daemon:
            daemon.wait("sweep_finished", endpoint="a")
            hosts.write_text(f"{one.docker_tcp} b\n")
            daemon.signal(signal.SIGHUP)
            daemon.wait("sweep_finished", endpoint="b", result="success")
            hosts.write_text(f"{one.docker_host} a\n{one.docker_tcp} b\n")
            daemon.signal(signal.SIGHUP)
            daemon.wait("endpoint_failed", endpoint="a")
            swept = len(list(daemon.events("sweep_finished", endpoint="b", result="success")))
            daemon.wait("sweep_finished", endpoint="b", result="success", times=swept + 2)
            assert daemon.metric("reaper_endpoint_up", endpoint="b") == 1
            assert daemon.metric("reaper_endpoint_up", endpoint="a") == 0
            assert daemon.stop() == 0

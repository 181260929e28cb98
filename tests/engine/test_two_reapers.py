"""Two reapers at once on one engine: everything is deleted once, and both are content."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from devkit.engine import PrivateEngine
from devkit.faults import FaultProxy
from tests.engine.lab import IMPATIENT, OWNED, WAITS, containers, events, exited, member_of, reached, started
from tests.run import Ended, Program

pytestmark = pytest.mark.engine


class Pair:
    """Two programs, each with a proxy and a memory of its own."""

    def __init__(self, folder: Path, proxies: tuple[FaultProxy, FaultProxy]) -> None:
        self.proxies = proxies
        self.programs = []
        for name, proxy in zip("ab", proxies, strict=True):
            (folder / name).mkdir()
            self.programs.append(Program(folder / name, {"DOCKER_HOST": proxy.host, **IMPATIENT}))

    def race(self, method: str, path: str, *arguments: str) -> tuple[Ended, Ended]:
        """Both sweeps, set off together from where each makes its first such request: both have decided by then."""
        first, second = self.programs
        gates = [proxy.hold(method, path, times=10_000) for proxy in self.proxies]
        with started(first, *arguments) as one, started(second, *arguments) as two:
            for gate, process in zip(gates, (one, two), strict=True):
                reached(gate, process)
            for gate in gates:
                gate.release()
            return first.finish(one), second.finish(two)


@pytest.fixture
def pair(engine: PrivateEngine, tmp_path: Path) -> Iterator[Pair]:
    with FaultProxy(engine.socket) as one, FaultProxy(engine.socket) as two:
        yield Pair(tmp_path, (one, two))


def check(engine: PrivateEngine, pair: tuple[Ended, Ended], names: set[str]) -> None:
    for ended in pair:
        assert ended.code == 0, ended.err
        assert set(ended.outcomes().values()) <= {"deleted", "gone", "skipped"}, ended.outcomes()
        assert set(ended.outcomes()) <= names
    one, two = (ended.outcomes() for ended in pair)
    assert {name for name in names if {one.get(name), two.get(name)} & {"deleted"}} == names, (one, two)
    # One may count for both: a request that found the container just before another one's removal ended gets a 204 of its
    # own (moby's daemon/delete.go, "deregistered by previous rm since Get"). That it went once, the engine's events tell.
    destroyed = Counter(event["name"] for event in events(engine, "destroy"))
    assert {destroyed[name] for name in names if not name.endswith("_default")} == {1}


@pytest.mark.parametrize("state", ["running", "exited"])
def test_projects(engine: PrivateEngine, pair: Pair, state: str) -> None:
    projects = [f"{state}-{number}" for number in range(4)]
    for project in projects:
        net = f"{project}_default"
        engine.create_network(net, member_of(project))
        for service in ("client", "db"):
            name, labels = f"{project}_{service}", member_of(project, OWNED)
            if state == "exited":
                exited(engine, name, labels, network=net)
            else:
                engine.create(name, labels=labels, cmd=WAITS, start=True, network=net)
    names = {f"{project}_{part}" for project in projects for part in ("client", "db", "default")}
    at = ("DELETE", "/containers/") if state == "exited" else ("POST", "/stop")
    engine.create("unowned", labels={}, cmd=WAITS, start=True)
    check(engine, pair.race(*at, "--once", "--all", "--json"), names)
    assert containers(engine) == {"unowned"}
    assert len(engine.ids(all=False)) == 1
    assert engine.networks() == []


def test_one_engine_by_two_addresses_of_one_reaper_is_swept_under_one_name(
    engine: PrivateEngine, proxy: FaultProxy, tmp_path: Path
) -> None:
    """The cap of each name would be counted by itself. What stands between hides that it is one engine."""
    names = [exited(engine, f"exited-{number}") for number in range(3)]
    (tmp_path / "hosts.txt").write_text(f"unix://{engine.socket} direct\n{proxy.host} behind-a-proxy\n")
    (tmp_path / "reaper.toml").write_text('[[docker]]\nhosts_file = "hosts.txt"\n[limits]\nmax_deletions = 2\n')
    ended = Program(tmp_path, IMPATIENT)("--once", "--stopped", "--json")
    assert ended.code == 5
    failures = {e["endpoint"]: e["failure"]["error"] for e in ended.document["endpoints"] if e["failure"] is not None}
    assert list(failures.values()) == ["same_endpoint"]
    assert len(containers(engine)) == len(names)  # over the cap of the one that was listed first

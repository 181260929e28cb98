"""What happens to a container between the listing and its deletion: whatever changed meanwhile survives."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devkit.engine import PrivateEngine
from devkit.faults import Fault, FaultProxy, Gate
from tests import needs
from tests.engine.lab import DAY, OWNED, WAITS, containers, exited, reached, rows, started, toml
from tests.run import Ended, Program

pytestmark = pytest.mark.engine


class Race:
    """A sweep of everything stopped that stands still at one of its requests."""

    def __init__(self, proxied: Program, proxy: FaultProxy) -> None:
        self.program = proxied
        self.proxy = proxy
        self.ended: Ended | None = None

    @contextmanager
    def stands_at(self, method: str, path: str, *arguments: str, after: bool = False) -> Iterator[None]:
        """Within the block the sweep waits at its first such request; behind it the sweep has ended."""
        gate = self.proxy.hold(method, path, after=after)
        yield from self._race(gate, *arguments)

    def _race(self, gate: Gate, *arguments: str) -> Iterator[None]:
        with started(self.program, "--once", "--json", *(arguments or ("--stopped",))) as process:
            reached(gate, process)
            yield
            gate.release()
            self.ended = self.program.finish(process)

    def result(self, name: str) -> tuple[str, str]:
        """Outcome and detail of one resource; the sweep must have ended with 0."""
        assert self.ended is not None
        assert self.ended.code == 0, self.ended.err
        row = rows(self.ended)[name]
        return row["outcome"], row["detail"]


@pytest.fixture
def race(proxied: Program, proxy: FaultProxy) -> Race:
    return Race(proxied, proxy)


def test_started_again_at_the_last_moment(engine: PrivateEngine, race: Race, proxy: FaultProxy) -> None:
    """After the re-check: the engine itself refuses a deletion without force."""
    ident = engine.create("again", labels=OWNED, cmd=WAITS, start=True)
    engine.stop_container(ident)
    other = exited(engine, "other")
    with race.stands_at("DELETE", ident):
        engine.start_container(ident)
    [refused] = proxy.calls("DELETE", ident[:12])
    where = f"[DELETE {refused.path.partition('?')[0]}: 409]".replace(ident, ident[:12])
    assert race.result("again") == ("skipped", f"the endpoint refused: {proxy_message(engine, ident)} {where}")
    assert race.result("other") == ("deleted", "")
    assert engine.state(ident) == "running"
    assert engine.state(other) == "gone"
    assert all("force=true" not in call.path.lower() for call in proxy.calls("DELETE"))


def proxy_message(engine: PrivateEngine, ident: str) -> str:
    """What the engine says to a deletion of a running container."""
    status, body = engine.api.delete(f"/containers/{ident}?v=1")
    assert status == 409
    return str(body["message"])


def test_started_again_before_the_second_look(engine: PrivateEngine, race: Race, proxy: FaultProxy) -> None:
    ident = engine.create("again", labels=OWNED, cmd=WAITS, start=True)
    engine.stop_container(ident)
    with race.stands_at("GET", f"{ident}/json", after=True):
        engine.start_container(ident)
    assert race.result("again") == ("skipped", "it was exited and is running now")
    assert engine.state(ident) == "running"
    assert proxy.calls("DELETE") == []


def test_started_and_ended_again_in_between(engine: PrivateEngine, race: Race, proxy: FaultProxy) -> None:
    """It looks as it did, but it is in use."""
    ident = exited(engine, "again")
    with race.stands_at("GET", f"{ident}/json", after=True):
        engine.start_container(ident)
        engine.wait_state(ident, "exited")
    assert race.result("again") == ("skipped", "it was started again")
    assert containers(engine) == {"again"}
    assert proxy.calls("DELETE") == []


def test_started_before_the_first_look(engine: PrivateEngine, race: Race, proxy: FaultProxy) -> None:
    """The listing said that it had exited; the inspection decides."""
    ident = engine.create("again", labels=OWNED, cmd=WAITS, start=True)
    engine.stop_container(ident)
    with race.stands_at("GET", f"{ident}/json"):
        engine.start_container(ident)
    assert race.ended is not None
    row = rows(race.ended)["again"]
    assert (row["verdict"], row["raw_state"], row["outcome"]) == ("keep", "running", None)
    assert engine.state(ident) == "running"


def test_labelled_to_be_kept_in_between(engine: PrivateEngine, race: Race, proxy: FaultProxy) -> None:
    """The engine has no way to change a label, so its file is changed: the same id, with another label."""
    ident = exited(engine, "mine")
    with race.stands_at("GET", f"{ident}/json", after=True):
        engine.terminate()
        file = engine.data / "containers" / ident / "config.v2.json"
        config = json.loads(file.read_text())
        config["Config"]["Labels"]["reaper.keep"] = ""
        file.write_text(json.dumps(config))
        engine.restart()
    assert race.result("mine") == ("skipped", "it has other labels now")
    assert engine.inspect(ident)["Config"]["Labels"] == {**OWNED, "reaper.keep": ""}
    assert proxy.calls("DELETE") == []


@pytest.mark.parametrize(
    ("step", "labels"),
    [("first look", OWNED), ("re-check", OWNED), ("re-check", {**OWNED, "reaper.keep": ""}), ("deletion", OWNED)],
    ids=["first look", "re-check", "re-check, with reaper.keep", "deletion"],
)
def test_recreated_under_its_name(engine: PrivateEngine, race: Race, step: str, labels: dict[str, str]) -> None:
    old = exited(engine, "name")
    at = {"first look": ("GET", f"{old}/json"), "re-check": ("GET", f"{old}/json"), "deletion": ("DELETE", old)}
    with race.stands_at(*at[step], after=step == "re-check"):
        engine.remove(old)
        new = exited(engine, "name", labels)
    assert engine.state(new) == "exited"
    if step == "first look":
        assert race.ended is not None
        assert race.ended.code == 0
        assert race.ended.outcomes() == {}
        return
    assert race.result("name") == ("gone", "another client removed it first")
    assert race.ended is not None
    assert rows(race.ended)["name"]["id"] == old


def test_started_again_while_it_is_stopped(engine: PrivateEngine, race: Race, proxy: FaultProxy) -> None:
    """Our own stop is no change; a start after it is one."""
    ident = engine.create("again", labels=OWNED, cmd=WAITS, start=True)
    with race.stands_at("POST", f"{ident}/stop", "--all", after=True):
        assert engine.state(ident) == "exited"
        engine.start_container(ident)
    assert race.result("again") == ("skipped", "again was started again")
    assert engine.state(ident) == "running"
    assert proxy.calls("DELETE") == []


def test_ended_by_itself_before_it_is_stopped(engine: PrivateEngine, race: Race) -> None:
    ident = engine.create("ends", labels=OWNED, cmd=WAITS, start=True)
    with race.stands_at("POST", f"{ident}/stop", "--all"):
        engine.kill_container(ident)
    assert race.result("ends") == ("deleted", "")
    assert containers(engine) == set()


@pytest.mark.engines(*needs.DOCKERS)
def test_a_container_is_created_on_a_network_whose_deletion_is_tried_again(
    engine: PrivateEngine, race: Race, proxy: FaultProxy, tmp_path: Path
) -> None:
    """The engine refuses only while something runs on it, and could not start the container then."""
    net = engine.create_network("bench-net")
    engine.backdate({}, networks={"bench-net": 2 * DAY})
    proxy.add(Fault("status", "DELETE", f"/networks/{net}", times=1, status=500, body={"message": "later"}))
    policy = '[scope]\nnames = ["bench-*"]\n[[policy]]\nname = "old"\nkinds = ["network"]\nolder_than = "1d"\n'
    with race.stands_at("DELETE", f"/networks/{net}", *toml(tmp_path, policy)):
        ident = engine.create("new", cmd=WAITS, network="bench-net")
    assert race.result("bench-net") == ("skipped", "new, which is kept, uses it")
    engine.start_container(ident)
    engine.remove(ident, force=True)

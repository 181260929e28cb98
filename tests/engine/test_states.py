"""Containers in every state and of every age, under the default policies and under each flag that replaces them."""

import re
import time
from datetime import timedelta

import pytest

from devkit.engine import Age, PrivateEngine
from devkit.faults import FaultProxy
from devkit.flavours import FLAVOURS
from tests import needs
from tests.engine.lab import (
    DAY,
    HOUR,
    MINUTE,
    OWNED,
    WAITS,
    containers,
    exited,
    in_parallel,
    ran,
    reached,
    reasons,
    rows,
    started,
    stopped,
)
from tests.run import Ended, Program

pytestmark = [pytest.mark.engine, pytest.mark.engines(*needs.ENGINES)]

CREATED = {"created-young": None, "created-11m": 11 * MINUTE, "created-7h": 7 * HOUR}
RUNNING = {"running-young": None, "running-9h": 9 * HOUR, "running-2d": 2 * DAY}
PAUSED = {"paused-young": None, "paused-2d": 2 * DAY}
EXITED = {"exited-young": None, "exited-1h": HOUR, "exited-7h": 7 * HOUR}
DEAD = {"dead-1h": HOUR, "dead-7h": 7 * HOUR}
FLAPPING = "flapping"  # running and restarting by turns
ALL = {*CREATED, *RUNNING, *PAUSED, *EXITED, *DEAD}


@pytest.mark.engines(*(name for name, flavour in FLAVOURS.items() if flavour.way is None))
def test_each_is_what_its_name_says(engine: PrivateEngine, flavour: str) -> None:
    version = engine.api.must("GET", "/version")["Version"]
    assert version.startswith(f"{'.'.join(map(str, engine.flavour.release))}.")
    store = "overlay" if engine.flavour.is_podman else "overlayfs" if "containerd" in flavour else "overlay2"
    assert engine.api.must("GET", "/info")["Driver"] == store


@pytest.fixture
def zoo(engine: PrivateEngine) -> PrivateEngine:
    """Owned containers in all states that last."""
    wanted: dict[str, Age] = {}

    def made(name: str, age: Age | None, *, start: bool = False) -> str:
        ident = engine.create(name, labels=OWNED, cmd=WAITS, start=start)
        if age is not None:
            wanted[ident] = age
        return ident

    for name, age in CREATED.items():
        made(name, None if age is None else Age(created=age))
    for name, age in RUNNING.items():
        made(name, None if age is None else ran(age), start=True)
    for name, age in PAUSED.items():
        engine.pause_container(made(name, None if age is None else ran(age), start=True))
    for name, age in EXITED.items():
        ident = made(name, None if age is None else stopped(age), start=age is None)
        if age is None:
            engine.kill_container(ident)
    dead = [] if engine.flavour.is_podman else [made(name, stopped(age)) for name, age in DEAD.items()]
    engine.backdate(wanted, dead=dead)
    if not engine.flavour.is_podman:  # which starts it again at once, and has it stopped by turns
        engine.create(FLAPPING, labels=OWNED, cmd=("false",), restart="always", start=True)
    return engine


SENTENCES = {
    "created-young": "within 10 min a runner may be about to start it",
    "created-7h": "never started, policy stopped-containers allows 6 h",
    "running-9h": "created 9 h ago, policy old-containers allows 24 h",
    "exited-1h": "stopped at most 1 h 1 min ago, policy stopped-containers allows 6 h",
    "exited-7h": "stopped 7 h ago, policy stopped-containers allows 6 h",
    "dead-7h": "stopped 7 h ago, policy stopped-containers allows 6 h",
    "paused-2d": "created 2 d ago, policy old-containers allows 24 h",
}


GOES = {
    "": {"created-7h", "running-2d", "paused-2d", "exited-7h", "dead-7h"},
    "--stopped": {"created-11m", "created-7h", *EXITED, *DEAD},
    "--aggressive": ALL - {"created-young", "running-young", "paused-young"},
    "--all": ALL - {"created-young"},
}


def test_what_goes_and_what_stays(zoo: PrivateEngine, reaper: Program) -> None:
    left = ALL - (DEAD.keys() if zoo.flavour.is_podman else set())

    def swept(option: str, *more: str) -> Ended:
        narrow = ("--name", "*-*") if option == "--all" else ()  # FLAPPING has a test of its own
        ended = reaper("--once", "--json", *filter(None, (option, *narrow, *more)))
        assert ended.code == 0, ended.err
        return ended

    for option, goes in GOES.items():
        ended = swept(option, "--dry-run")
        assert ended.outcomes() == dict.fromkeys(goes & left, "would_delete"), option
        assert reasons(ended)["created-young"] == "created_grace"
        seen = {name: row["raw_state"] for name, row in rows(ended).items() if name != FLAPPING}
        assert seen == {name: name.split("-")[0] for name in left}, "the test must be about the states that it names"
        if not option:
            said = {name: re.sub(r" \d+ s ago", " ago", rows(ended)[name]["sentence"]) for name in SENTENCES if name in left}
            assert {name: text for name, text in SENTENCES.items() if name in left and text not in said[name]} == {}, said
    assert containers(zoo) - {FLAPPING} == left
    for option in ("", "--all"):
        assert swept(option).outcomes() == dict.fromkeys(GOES[option] & left, "deleted")
        left -= GOES[option]
        assert containers(zoo) - {FLAPPING} == left


@pytest.mark.engines(*needs.DOCKERS)  # Podman starts it again at once, for ever
def test_restarting(engine: PrivateEngine, reaper: Program) -> None:
    """``--all`` takes it, and its age counts from its creation: each restart would make it young for ever."""
    ident = engine.create("flapping", cmd=("false",), labels=OWNED, restart="always")
    engine.backdate({ident: Age(created=2 * DAY)})
    engine.start_container(ident)
    young = engine.make_restarting("young", labels=OWNED)
    for _ in range(5):  # a sweep that meets it in the moment of a restart leaves it alone
        engine.wait_state(ident, "restarting")
        ended = reaper("--once", "--json")
        if ended.outcomes():
            break
    assert ended.outcomes() == {"flapping": "deleted"}, ended.err
    assert containers(engine) == {"young"}
    engine.wait_state(young, "running")  # or the next restart comes too soon
    engine.wait_state(young, "restarting")
    ended = reaper("--once", "--all", "--json")
    assert ended.outcomes() == {"young": "deleted"}, ended.err
    assert containers(engine) == set()


def test_really_old_ones(engine: PrivateEngine, reaper: Program) -> None:
    """Seven weeks old ones go; not those that were started again lately: age counts from the last start."""
    old = in_parallel(lambda number: engine.create(f"old-{number}", labels=OWNED), 5)
    again = engine.create("again", labels=OWNED)
    briefly = engine.create("briefly", labels=OWNED)
    ages_wanted = dict.fromkeys([*old, again], stopped(timedelta(weeks=7)))
    engine.backdate({**ages_wanted, briefly: Age(created=9 * DAY, started=HOUR, finished=30 * MINUTE)})
    engine.start_container(again)
    assert engine.listed(again)["Created"] == engine.listed(old[0])["Created"]
    ended = reaper("--once", "--json")
    assert containers(engine) == {"again", "briefly"}
    assert ended.outcomes() == {f"old-{number}": "deleted" for number in range(5)}
    assert {name: reasons(ended)[name] for name in ("again", "briefly")} == {"again": "too_young", "briefly": "too_young"}


@pytest.mark.engines(*needs.DOCKERS, "docker-26.1")
def test_a_removal_by_another_program_is_left_to_it_in_short_time(engine: PrivateEngine, reaper: Program) -> None:
    """Since Docker 26 the engine answers no request about such a container before its removal has ended."""
    ident = exited(engine, "leftover")
    other = exited(engine, "other")
    with engine.removing(ident):
        for command in ("list --json", "check", "explain leftover", "--once --dry-run --all --json", "--once --all --json"):
            began = time.monotonic()
            ended = reaper(*command.split())
            assert time.monotonic() - began < 10  # 2.5 s on a quiet machine, where it has to find out that no answer comes
            assert engine.listed(ident)["State"] == ("dead" if engine.flavour.release >= (28, 0) else "removing")
            assert ended.code == 0, (command, ended.err)
            assert "attempt_failed" not in ended.err
            if "--json" in command:
                assert reasons(ended)["leftover"] == "changing"
                assert rows(ended)["leftover"]["sentence"] == "it is being removed: wait"
            if "--once" in command:
                assert ended.outcomes() == {"other": "would_delete" if "--dry-run" in command else "deleted"}
            if command.startswith("explain"):
                assert "keep: it is being removed: wait" in ended.out
    assert engine.state(ident) == engine.state(other) == "gone"


@pytest.mark.engines(*needs.DOCKERS, "docker-26.1")
def test_a_removal_that_begins_before_ours_is_waited_for(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """20.10 refuses the second deletion; newer ones keep it waiting, so nothing tells whose removal it is."""
    waits = engine.flavour.release >= (26, 0)
    ident = exited(engine, "leftover")
    deletion = proxy.hold("DELETE", ident)
    impatient = {"REAPER_RETRY__REQUEST_TIMEOUT": "3s"} if waits else {}
    with started(proxied, "--once", "--stopped", "--json", env=impatient) as process:
        reached(deletion, process)
        look = proxy.hold("GET", f"{ident}/json")
        with engine.removing(ident):
            deletion.release()
            reached(look, process)  # the engine has said 409, or nothing, and the program looks whether it is gone
            assert engine.listed(ident)["State"] in ("removing", "dead")
            look.release()
            if waits:
                listing = proxy.hold("GET", "containers/json.*filters")
                reached(listing, process)  # that look has no answer either: the listing is asked whether it is being removed
                listing.release()
        ended = proxied.finish(process)
    assert [call.status for call in proxy.calls("DELETE")] == ([None] if waits else [409])
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"leftover": "deleted" if waits else "gone"}
    assert containers(engine) == set()

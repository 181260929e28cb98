"""A run inside of a run: the guard, sweeps and identity of each use the engine, and not the proxy of the outer run."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import pytest

from devkit.client import OBEYS_TERM, EngineClient
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from tests.engine.lab import containers
from tests.run import Program
from tests.running.lab import guards, until
from tests.running.test_killed import WITHIN, acts

NEST = Path(__file__).with_name("nest.py")
STAYS = {"neighbour", "foreign"}
QUICKLY = ("run", "--skip-cleanup", "--")


@dataclass(frozen=True)
class Nested:
    """Runs inside of each other.

    Args:
        process: the outermost.
        inner: the pid of the innermost.
    """

    process: "Popen[str]"
    inner: int


@contextmanager
def nested(program: Program, engine: EngineClient, depth: int = 2, way: str = "exec") -> Iterator[Nested]:
    """Two or more runs, each with one container, and others' containers beside them."""
    engine.create("neighbour", cmd=OBEYS_TERM, start=True)
    engine.create("foreign", cmd=OBEYS_TERM, start=True, labels={"reaper.lease": "another-run"})
    arguments = (*QUICKLY, sys.executable, str(NEST), "1", str(depth), way)
    with program.start(*arguments, env={"DOCKER_HOST": engine.host}, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            assert words, process.stderr and process.stderr.read()
            assert containers(engine) == {*STAYS, *(f"level-{number}" for number in range(1, depth + 1))}
            yield Nested(process, int(words[1]))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def left_is(engine: EngineClient, expected: set[str]) -> None:
    until(lambda: containers(engine) <= expected, "something is left", WITHIN)
    assert containers(engine) == expected


@pytest.mark.engines("docker-20.10", "docker-28.5", "podman-5.8")
def test_all_that_was_made_inside_goes_when_all_runs_are_killed_at_once(
    program: Program, engine_of_run: EngineClient
) -> None:
    depth = 3
    with nested(program, engine_of_run, depth) as found:
        assert len(guards(program.folder)) == depth
        os.killpg(found.process.pid, signal.SIGKILL)
        left_is(engine_of_run, STAYS)
    until(lambda: len(acts(program)) == depth, "it is not on record", WITHIN)
    assert {act["reason"] for act in acts(program)} == {"lease_ended"}
    assert len({act["owner"] for act in acts(program)}) == depth


def test_what_the_outer_run_made_stays_when_the_inner_one_alone_is_killed(
    program: Program, engine_of_run: EngineClient
) -> None:
    with nested(program, engine_of_run, way="child") as found:
        os.kill(found.inner, signal.SIGKILL)
        assert found.process.stdout is not None
        assert found.process.stdout.readline() == "over\n"
        left_is(engine_of_run, {*STAYS, "level-1"})
        found.process.send_signal(signal.SIGTERM)
        assert program.finish(found.process).code == 143
        left_is(engine_of_run, STAYS)


@pytest.mark.parametrize("way", ["exec", "child"])
def test_the_outer_run_alone_is_killed(program: Program, engine_of_run: EngineClient, way: str) -> None:
    """Where the inner run is not asked to end with it, what that made is kept for as long as it lives."""
    with nested(program, engine_of_run, way=way) as found:
        found.process.kill()
        found.process.wait()
        if way == "child":
            left_is(engine_of_run, {*STAYS, "level-2"})
            assert program("--once", "--all", env={"DOCKER_HOST": engine_of_run.host}).code == 0
            assert containers(engine_of_run) >= {"level-2", "foreign"}
            os.kill(found.inner, signal.SIGTERM)
        left_is(engine_of_run, STAYS)
        until(lambda: "live" not in states(program), "a lease has not ended", WITHIN)


def states(program: Program) -> list[str]:
    file = LeaseFile(program.folder / NAME)
    try:
        return [record.state.value for record in file.records()]
    finally:
        file.close()

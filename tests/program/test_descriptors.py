"""Few descriptors: fewer calls at once, or a plain word before anything is done; nothing is stopped and left."""

import errno
import resource
from collections.abc import Callable

import pytest

from tests.program.fakeengine import FakeEngine
from tests.program.wrapped import patched
from tests.run import Ended, Program

MANY = 90


def limited(run: Program, soft: int, hard: int, *arguments: str) -> Ended:
    """The program where so many files may be open."""
    return run.finish(run.start(*arguments, preexec_fn=_limits(soft, hard)))


def _limits(soft: int, hard: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def many(fake: FakeEngine, state: str = "running") -> None:
    """As many as have to be stopped at once for the connections to be too many."""
    for number in range(MANY):
        fake.add(f"chess-{number}", state)
    fake.stop_takes = 0.3


@pytest.mark.parametrize("hard", [40, 128])
def test_all_that_is_stopped_is_deleted(run: Program, fake: FakeEngine, hard: int) -> None:
    many(fake)
    ended = limited(run, hard, hard, "--once", "--all", "--json")
    assert ended.code == 0
    assert ended.outcomes() == {f"chess-{number}": "deleted" for number in range(MANY)}
    assert fake.names() == set()
    assert "Too many open files" not in ended.err
    assert not [line for line in ended.logs if line["level"] in ("warning", "error")]


@pytest.mark.parametrize("hard", [32, 48])
def test_projects_with_networks_go_whole(run: Program, fake: FakeEngine, hard: int) -> None:
    for number in range(30):
        fake.add_network(f"chess-{number}_default", f"chess-{number}")
        for name in ("client", "db", "web"):
            fake.add(f"chess-{number}-{name}", "running", project=f"chess-{number}")
    fake.stop_takes = 0.1
    ended = limited(run, hard, hard, "--once", "--all", "--json", "--max-deletions", "none")
    assert ended.code == 0
    assert (fake.names(), fake.networks) == (set(), {})


def test_the_soft_limit_is_raised_as_far_as_it_may_be(run: Program, fake: FakeEngine) -> None:
    many(fake)
    ended = limited(run, 32, 1024, "--once", "--all", "--json")
    assert ended.code == 0
    assert fake.names() == set()
    assert fake.most_stopping > 32


def test_too_few_are_reported_of_before_anything_is_done(run: Program, fake: FakeEngine) -> None:
    many(fake)
    told = {_enough(limited(run, 20, 20, *command, "--json")) for command in (("--once", "--all"), ("list",), ("check",))}
    assert fake.changes() == []
    assert {container.state for container in fake.containers.values()} == {"running"}
    (enough,) = told
    assert limited(run, enough, enough, "--once", "--all").code == 0
    assert fake.names() == set()


def _enough(ended: Ended) -> int:
    """How many files are enough, by a report that says that they are too few."""
    assert ended.code == 5
    failure = ended.document["endpoints"][0]["failure"]
    assert failure["error"] == "too_many_files"
    assert failure["message"].startswith("this process may have only 20 files open, too few to finish ")
    assert "ulimit -n" in failure["message"]
    return int(failure["message"].split("allow ")[1].split()[0])


def test_a_second_sweep_may_use_the_connections_of_the_first(run: Program, fake: FakeEngine) -> None:
    many(fake)
    fake.add("fresh", "created", ago="9m56s")
    ended = limited(run, 48, 48, "--once", "--all", "--wait", "--json", "--timeout", "60s")
    assert ended.code == 0
    assert fake.names() == set()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_that_none_is_left_for_a_moment_costs_nothing(run: Program, fake: FakeEngine, number: int) -> None:
    many(fake, "exited")
    patch = f"""
import socket
made = []
class Failing(socket.socket):
    def __init__(self, family=-1, *more, **named):
        if family == socket.AF_UNIX and named.get("fileno") is None and not any(a for a in more[2:]):
            made.append(1)
            if 4 <= len(made) < 12:
                raise OSError({number}, "Too many open files")
        super().__init__(family, *more, **named)
socket.socket = Failing
"""
    ended = patched(run, patch, "--once", "--all", "--json")
    assert ended.code == 0
    assert fake.names() == set()
    assert "too_many_files" in ended.err or "may not have more files open" in ended.err

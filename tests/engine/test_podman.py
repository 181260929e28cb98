"""What Podman does in its own way: it refuses with 500, and knows states that Docker has not."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from devkit.client import DEFAULT_IMAGE
from devkit.engine import PrivateEngine
from devkit.faults import FaultProxy
from tests import needs
from tests.engine.lab import OWNED, WAITS, containers, exited, reached, reasons, rows, started
from tests.run import Program

pytestmark = [pytest.mark.engine, pytest.mark.engines("podman-5.8")]


def test_one_that_is_paused_is_resumed_and_stopped_before_it_is_deleted(
    engine: PrivateEngine, proxied: Program, proxy: FaultProxy
) -> None:
    ident = engine.create("frozen", labels=OWNED, cmd=WAITS, start=True)
    engine.pause_container(ident)
    foreign = engine.create("foreign", cmd=WAITS, start=True)
    engine.pause_container(foreign)
    ended = proxied("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"frozen": "deleted"}
    assert "attempt_failed" not in ended.err
    calls = [(call.method, call.path.partition(ident)[2], call.status) for call in proxy.log if call.method != "GET"]
    assert calls == [
        ("POST", "/stop?t=10", 500),
        ("POST", "/unpause", 204),
        ("POST", "/stop?t=10", 204),
        ("DELETE", "?v=1", 204),
    ]
    assert containers(engine) == {"foreign"}
    assert engine.state(foreign) == "paused"


def test_each_state_that_only_podman_knows(engine: PrivateEngine, reaper: Program) -> None:
    """What has ended and was not cleaned up yet goes; what is at work, or in no known state, stays."""
    for state in ("stopped", "stopping", "removing", "unknown"):
        ident = exited(engine, state)
        engine.set_state(ident, state)
        assert engine.listed(ident)["State"] == state
    ended = reaper("--once", "--stopped", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"stopped": "deleted"}
    assert reasons(ended) == {
        "stopped": "stopped_for",
        "stopping": "no_policy",
        "removing": "changing",
        "unknown": "unknown_state",
    }
    assert containers(engine) == {"stopping", "removing", "unknown"}


def requiring(engine: PrivateEngine, name: str, required: str) -> str:
    """Start a container that requires another one (``podman run --requires``; podman-compose for ``depends_on``)."""
    engine.import_image()
    body = {"name": name, "image": DEFAULT_IMAGE, "command": WAITS, "netns": {"nsmode": "none"}}
    path = "/v5.0.0/libpod/containers/create"
    ident = str(engine.api.must("POST", path, {**body, "dependencyContainers": [required]})["Id"])
    engine.start_container(ident)
    return ident


def test_what_a_living_container_requires_is_not_stopped(engine: PrivateEngine, reaper: Program) -> None:
    """Its deletion would be refused, and it would have been stopped by then."""
    base = engine.create("base", labels=OWNED, cmd=WAITS, start=True)
    user = requiring(engine, "user", base)
    for arguments in (("--once", "--all", "--json"), ("check", "--all", "--json")):
        ended = reaper(*arguments)
        assert rows(ended)["base"]["reason"] == "in_use", ended.out
    assert engine.state(base) == "running"
    engine.remove(user, force=True)
    assert reaper("--once", "--all", "--json").outcomes() == {"base": "deleted"}


def test_what_is_required_goes_after_what_requires_it(engine: PrivateEngine, reaper: Program) -> None:
    base = engine.create("base", labels=OWNED, cmd=WAITS, start=True)
    body = {"name": "user", "image": DEFAULT_IMAGE, "command": WAITS, "netns": {"nsmode": "none"}, "labels": OWNED}
    user = engine.api.must("POST", "/v5.0.0/libpod/containers/create", {**body, "dependencyContainers": [base]})["Id"]
    engine.start_container(user)
    ended = reaper("--once", "--all", "--json")
    assert ended.outcomes() == {"base": "deleted", "user": "deleted"}
    assert rows(ended)["base"]["attempts"] == 1


@contextmanager
def undeletable(engine: PrivateEngine, ident: str) -> Iterator[None]:
    """Within the block a file of the container cannot be deleted, as on a file system that is damaged or read-only."""
    file = engine.container_files(ident) / "ctr.log"
    chattr = needs.tool("chattr", "e2fsprogs")
    subprocess.run([chattr, "+i", str(file)], check=True)
    try:
        yield
    finally:
        subprocess.run([chattr, "-i", str(file)], check=True)


def test_a_refusal_for_good_is_tried_once_and_told_with_its_cause(
    engine: PrivateEngine, proxied: Program, proxy: FaultProxy
) -> None:
    ident, _ = exited(engine, "stuck"), exited(engine, "other")
    with undeletable(engine, ident):
        ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 3, ended.err
    assert ended.outcomes() == {"stuck": "failed", "other": "deleted"}
    assert rows(ended)["stuck"]["detail"].startswith("the engine answered 500: cleaning up storage")
    assert "operation not permitted" in rows(ended)["stuck"]["detail"]
    assert [call.status for call in proxy.calls("DELETE", ident)] == [500]
    assert "attempt_failed" not in ended.err


def test_one_that_is_started_again_at_the_last_moment_is_kept_by_the_refusal(
    engine: PrivateEngine, proxied: Program, proxy: FaultProxy
) -> None:
    """Its 500 "container state improper" is Docker's 409."""
    ident = engine.create("again", labels=OWNED, cmd=WAITS, start=True)
    engine.stop_container(ident)
    deletion = proxy.hold("DELETE", ident)
    with started(proxied, "--once", "--stopped", "--json") as process:
        reached(deletion, process)
        engine.start_container(ident)
        deletion.release()
        ended = proxied.finish(process)
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"again": "skipped"}
    assert [call.status for call in proxy.calls("DELETE", ident)] == [500]
    assert engine.state(ident) == "running"

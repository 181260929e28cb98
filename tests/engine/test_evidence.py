"""Evidence on real engines: what is asked of them before a deletion, and that nothing of it hinders one."""

from pathlib import Path

import pytest

from devkit.engine import PrivateEngine
from devkit.faults import FaultProxy
from tests.engine.lab import OWNED, containers, member_of, toml
from tests.run import Program

pytestmark = [pytest.mark.engine, pytest.mark.engines("docker-20.10", "docker-28.5")]

SECRET = "hunter2s3cr3t"
WRITES = ("sh", "-c", "echo begun; echo $API_KEY >&2; trap 'exit 0' TERM; sleep infinity & wait")
FILE = "[evidence]\nlogs = 200\ninspect = true\n"


def test_it_is_saved_before_the_first_stop_and_the_first_deletion(
    engine: PrivateEngine, proxied: Program, proxy: FaultProxy, tmp_path: Path
) -> None:
    """One that has ended, one that runs, one that the engine removes when it stops, and a project."""
    engine.create("ended", cmd=("sh", "-c", "echo failed; exit 3"), labels=OWNED, start=True)
    engine.wait_state("ended", "exited")
    environment = [f"API_KEY={SECRET}"]
    engine.create("runs", cmd=WRITES, labels=OWNED, start=True, env=environment)
    engine.create("removed", cmd=WRITES, labels=OWNED, start=True, env=environment, auto_remove=True)
    network = engine.create_network("trial_default", member_of("trial"))
    for name in ("main", "db"):
        engine.create(name, cmd=WRITES, labels=member_of("trial", OWNED), start=True, network=network, env=environment)
    ids = {name: engine.inspect(name)["Id"] for name in containers(engine)}
    ended = proxied("--once", "--all", "--json", *toml(tmp_path, FILE))
    assert ended.code == 0, ended.err
    assert containers(engine) == set()
    for ident in ids.values():
        made = [(call.method, call.path.partition("?")[0].rpartition("/")[2]) for call in proxy.calls("*", ident)]
        acts = [i for i, (method, _) in enumerate(made) if method != "GET"]
        saved = made.index(("GET", "logs"))
        assert saved < acts[0]
        assert made[saved + 1 : acts[0]].count(("GET", "json")) >= 1  # the last look is taken after it
    for name, words in (("ended", "exit code 3"), ("runs", "state: running"), ("removed", "begun"), ("main", "begun")):
        shown = proxied("history", "--show", name)
        assert (shown.code, words in shown.out) == (0, True), shown.out + shown.err
        assert SECRET not in shown.out
    assert "API_KEY=***" in proxied("history", "--show", "removed").out

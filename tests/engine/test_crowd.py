"""A killed run leaves many containers that run and are young.

They have the age that starting so many takes.
"""

import pytest

from devkit.engine import SLEEPS, PrivateEngine
from tests.engine.lab import OWNED, containers, in_parallel, reasons
from tests.run import Program

pytestmark = pytest.mark.engine

CROWD = 100
HINT = "100 owned resources are running and younger than 24 h; if no run is alive here: reaper --once --all"


def running(engine: PrivateEngine, name: str, labels: dict[str, str]) -> str:
    """One process that ends as soon as it is asked to.

    Without an endpoint, even in the network ``none``: Debian's engine may deadlock when hundreds leave a network at once.
    """
    return engine.create(name, labels=labels, cmd=SLEEPS, stop_signal="SIGKILL", start=True, networked=False)


def test_young_leaked_resources(engine: PrivateEngine, reaper: Program) -> None:
    """No age tells them from a living run: they are kept, with a hint, and ``--all`` takes them, and only them."""
    beside = {
        "keep": {**OWNED, "reaper.keep": ""},
        "odd-override": {**OWNED, "reaper.ttl": "soon"},
        "database": {},
        "near": {"terminal-bench-results": "1"},
    }
    in_parallel(lambda n: running(engine, f"trial-{n}", OWNED), CROWD)
    for name, labels in beside.items():
        running(engine, name, labels)
    engine.create("about-to-start", labels=OWNED)
    assert len(engine.ids(all=False)) == CROWD + len(beside)

    ended = reaper("--once", "--json")
    assert ended.code == 0, ended.err
    young, new = ended.document["hints"]
    assert young == HINT
    assert "1 created and never started; to wait for that: reaper --once --json --wait" in new
    assert ended.outcomes() == {}
    assert list(reasons(ended).values()).count("too_young") == CROWD
    assert len(engine.ids(all=False)) == CROWD + len(beside)

    ended = reaper("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {f"trial-{n}": "deleted" for n in range(CROWD)}
    assert ended.document["counts"]["deleted"] == CROWD
    new, stays = ended.document["hints"]
    assert "1 created and never started; to wait for that: reaper --once --all --json --wait" in new
    assert "1 protected" in stays
    assert containers(engine) == {*beside, "about-to-start"}
    assert len(engine.ids(all=False)) == len(beside), "they run"

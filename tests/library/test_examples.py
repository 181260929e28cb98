"""The examples in docs/library.md run, against simulated endpoints."""

import re
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest

from tests.daytona.server import Served
from tests.library.lab import names
from tests.library.service import serving
from tests.simulator.docker_world import World

DOCUMENT = Path(__file__).parents[2] / "docs" / "library.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
BENCH = {"terminal-bench": ""}


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(
    number: int,
    world: World,
    served: Served,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "import lease" in EXAMPLES[number]:
        monkeypatch.setenv("REAPER_URL", "http://127.0.0.1:9")  # where nothing listens
    world.add("chess-1", state="running")
    world.add("old", labels=BENCH, age=timedelta(hours=25))
    world.add("nightly", labels={**BENCH, "run": "nightly"}, state="running", age=timedelta(hours=1))
    world.add("go-1", state="running")
    served.believable()
    sandbox = served.add("mine", labels={}, age=timedelta(0))
    containers, sandboxes = names(world), served.left()
    with serving(served.folder) if "held.labels" in EXAMPLES[number] else nullcontext() as service:
        if service is not None:
            monkeypatch.setenv("REAPER_URL", service.url)
        exec(compile(EXAMPLES[number], str(DOCUMENT), "exec"), {"SANDBOX_ID": sandbox, "__name__": "__main__"})
    out = capsys.readouterr().out
    gone = (containers - names(world), sandboxes - served.left())
    stopped = {"stopped", "just-stopped"}
    wanted: list[tuple[set[str], set[str]]] = [
        ({"chess-1"}, set()),
        (set(), {"mine"}),
        (set(), set()),
        (set(), set()),
        (set(), set()),
        (set(), set()),
        ({"old", "nightly", "go-1"}, set()),
        (set(), {"mine", "forgotten", "ancient", *stopped}),
        (set(), set()),
    ]
    assert gone == wanted[number]
    told = [
        *("working with ", "", "", "working in ", "working in "),
        *("called first\nclosed last", "", "living", "docker run --label reaper.lease="),
    ]
    assert told[number] in out


def test_all_examples_are_known() -> None:
    assert len(EXAMPLES) == 9

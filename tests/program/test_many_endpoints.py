"""What people are shown of two hundred engines, some of which are dead."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from devkit.ports import free_port
from tests.program.fakeengine import FakeEngine
from tests.program.terminal import at_terminal
from tests.run import Program

LIVING, DEAD = 22, 3


@pytest.fixture
def fleet(run: Program) -> Iterator[Program]:
    """Engines with two leftovers each, and a few that refuse connections."""
    with ExitStack() as stack:
        engines = [stack.enter_context(FakeEngine()) for _ in range(LIVING)]
        lines = [f"{engine.host} gpu-{number:02}" for number, engine in enumerate(engines)]
        lines += [f"tcp://127.0.0.1:{free_port()} dead-{number}" for number in range(DEAD)]
        (run.folder / "hosts.txt").write_text("\n".join(lines))
        (run.folder / "reaper.toml").write_text('[[docker]]\nhosts_file = "hosts.txt"\n')
        for engine in engines:
            engine.add("old")
            engine.add("older", ago="3d")
        yield run


@pytest.mark.parametrize("columns", [80, 200])
def test_a_sweep_shows_the_failing_ones_by_name_and_the_others_as_a_sum(fleet: Program, columns: int) -> None:
    seen = at_terminal(fleet, "--once", columns=columns, where="both")
    assert seen.code == 5
    text = " ".join(seen.text.split())
    assert "dead-0, dead-1, dead-2: could not be listed: no engine at tcp://127.0.0.1:" in text
    assert text.count("could not be listed: ") == 1
    assert f"{LIVING} endpoints without trouble: {2 * LIVING} deleted, 0 kept" in text
    assert f"all {LIVING + DEAD} endpoints: {2 * LIVING} deleted, {DEAD} endpoints could not be listed to the end" in text
    assert "gpu-07" not in text
    assert sum(max(1, -(-len(line) // columns)) for line in seen.lines if "\u2501" not in line) < 40


def test_one_that_cannot_delete_is_shown_besides(fleet: Program) -> None:
    with FakeEngine() as engine, (fleet.folder / "hosts.txt").open("a") as hosts:
        hosts.write(f"\n{engine.host} refusing\n")
        hosts.flush()
        engine.add("stubborn", refusal=(500, "driver failed to remove root filesystem"))
        text = " ".join(at_terminal(fleet, "--once", where="both").text.split())
    assert "refusing: 1 failed, 0 kept" in text
    assert "driver failed to remove root filesystem" in text
    assert f"{LIVING} endpoints without trouble" in text


def test_of_endpoints_of_which_none_answers_nothing_is_said_to_be_clean(run: Program) -> None:
    """The last line is what is seen."""
    tables = (f'[[docker]]\nname = "dead-{n}"\nhost = "unix://{run.folder}/{n}.sock"\n' for n in range(2))
    (run.folder / "reaper.toml").write_text("".join(tables))
    seen = at_terminal(run, "--once", where="both")
    text = " ".join(seen.text.split())
    assert seen.code == 5
    assert "all 2 endpoints: nothing was deleted, 2 endpoints could not be listed to the end, in " in text
    assert "nothing to delete" not in text


@pytest.mark.parametrize("command", ["list", "check"])
def test_listings_leave_out_the_titles_of_those_without_a_row(fleet: Program, command: str) -> None:
    seen = at_terminal(fleet, command, "--limit", "4", where="both")
    text = " ".join(seen.text.split())
    assert "gpu-00: 2 " in text
    assert "gpu-01: 2 " in text
    assert "gpu-02" not in text
    assert f"{LIVING - 2} more endpoints without a row here" in text
    assert f"... and {2 * LIVING - 4} more: --limit none shows all" in text
    assert "dead-0, dead-1, dead-2: could not be listed" in text


def test_in_a_pipe_every_endpoint_is_there(fleet: Program) -> None:
    ended = fleet("list")
    assert len([line for line in ended.out.splitlines() if line.startswith("reap\t")]) == 2 * LIVING
    assert ended.err.count("could not be listed") == DEAD + 1  # and the summary

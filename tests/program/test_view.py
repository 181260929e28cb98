"""What ``list``, ``check`` and ``explain`` show when people ask for a part of it."""

import pytest

from tests.program.fakeengine import FakeEngine
from tests.program.terminal import at_terminal
from tests.run import Program


@pytest.fixture(autouse=True)
def _world(fake: FakeEngine) -> None:
    fake.add("gone", ago="3d")
    fake.add("old", "running", ago="2d")
    fake.add("young", "running", ago="1h")
    fake.add("foreign", "running", ago="9d", owned=False)


def _names(run: Program, *options: str, command: str = "list") -> list[str]:
    ended = run(command, *options)
    assert ended.code in (0, 6), ended.err
    return [line.split("\t")[3] for line in ended.out.splitlines() if "\t" in line]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--verdict", "reap"), {"gone", "old"}),
        (("--verdict", "keep"), {"young", "foreign"}),
        (("--state", "exited"), {"gone"}),
        (("--state", "running"), {"old", "young", "foreign"}),
        (("--state", "stopped", "--state", "running"), {"gone", "old", "young", "foreign"}),
        (("--owner", "-"), {"foreign"}),
        (("--owner", "terminal-*", "--state", "running"), {"old", "young"}),
    ],
)
def test_filters_filter(run: Program, options: tuple[str, ...], names: set[str]) -> None:
    assert set(_names(run, *options)) == names


def test_check_counts_what_the_filter_leaves(run: Program) -> None:
    assert set(_names(run, command="check")) == {"gone", "old"}
    ended = run("check", "--state", "exited")
    assert (ended.code, ended.out.splitlines()[-1]) == (6, "1 resource is left")


def test_explain_means_one_of_those_that_are_wanted(run: Program, fake: FakeEngine) -> None:
    assert run("explain", "old", "--verdict", "reap").code == 0
    assert "is called 'old'" in run("explain", "old", "--verdict", "keep").err


def test_rows_are_sorted_and_no_more_than_asked_for(run: Program) -> None:
    assert _names(run, "--sort", "name") == ["foreign", "gone", "old", "young"]
    assert _names(run, "--sort", "age") == ["foreign", "gone", "old", "young"]
    ended = run("list", "--sort", "name", "--limit", "2")
    assert [line.split("\t")[3] for line in ended.out.splitlines() if "\t" in line] == ["foreign", "gone"]
    assert "... and 2 more: --limit none shows all" in ended.err.splitlines()
    assert len(_names(run, "--limit", "none")) == 4


def test_columns_are_those_that_are_named(run: Program) -> None:
    ended = run("list", "--columns", "name,verdict,kind", "--owner", "-")
    assert ended.out.splitlines()[0] == "foreign\tkeep\tcontainer"


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--state", "exitd"), "did you mean 'exited'?"),
        (("--columns", "nam"), "did you mean 'name'?"),
        (("--limit", "0"), "'0' is no number of rows"),
        (("--limit", "few"), 'write for example 50, or "none" for all'),
        (("--verdict", "reep"), "did you mean reap?"),
        (("--sort", "nmae"), "did you mean name?"),
    ],
)
def test_what_is_none_is_refused_before_an_engine_is_asked(
    run: Program, fake: FakeEngine, options: tuple[str, ...], hint: str
) -> None:
    ended = run("list", *options)
    assert (ended.code, ended.out) == (2, "")
    assert hint in ended.err
    assert fake.calls == []


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_it_fits_a_terminal_and_ends_with_what_there_is_on_all_endpoints(run: Program, columns: int) -> None:
    for options in ((), ("--columns", "verdict,kind,name,state,reason")):
        seen = at_terminal(run, "list", *options, columns=columns)
        sentences = ("hint: ", "4 resources on ")
        assert max(len(line) for line in seen.lines if not line.startswith(sentences)) <= columns
        assert any(line.startswith("4 resources on 1 endpoint: 2 to reap, 2 kept, 1 of these") for line in seen.lines)


def test_a_pipe_sees_nothing_but_rows(run: Program, fake: FakeEngine) -> None:
    fake.add("minisweagent-0a1b2c3d", "running", owned=False)
    for command in (["list"], ["list", "--limit", "2"], ["list", "--columns", "name,state"]):
        ended = run(*command)
        assert [line for line in ended.out.splitlines() if "\t" not in line] == []
        assert "hint: 1 owned resource is running and younger than 24 h" in ended.err


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_an_explanation_fits_its_terminal(run: Program, columns: int) -> None:
    seen = at_terminal(run, "explain", "young", columns=columns)
    assert max(map(len, seen.lines)) <= columns
    text = " ".join(seen.text.split())
    assert "neither this program nor a system container of the host" in text
    assert seen.text.rstrip().splitlines()[-1].strip()
    assert "policy old-containers allows 24 h" in text


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_kind_is_shown_at_any_width(run: Program, columns: int) -> None:
    rows = [line for line in at_terminal(run, "list", columns=columns).lines if "not owned" in line]
    assert any(line.split()[:2] in (["keep", "container"], ["container,", "-,"]) for line in rows)

"""What the options of the sweeping commands do: limits in time and number, hints, one-off policies that never widen."""

import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from devkit.faults import Fault, FaultProxy
from reaper import owner_label
from tests.program.fakeengine import FakeEngine
from tests.program.wrapped import several
from tests.run import Ended, Program

# -- --timeout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/version", "/containers/[0-9a-f]+/json"])
def test_a_hung_endpoint_does_not_hang_a_benchmark(run: Program, fake: FakeEngine, path: str) -> None:
    fake.add("chess-1")
    with FaultProxy(fake.socket) as proxy:
        proxy.add(Fault("hang", "GET", path))
        began = time.monotonic()
        ended = run("--once", "--json", "--timeout", "1s", env={"DOCKER_HOST": proxy.host})
        seconds = time.monotonic() - began
    assert ended.code == 5
    assert 1 <= seconds < 25  # a call may take 30 s
    assert ended.document["interrupted"] == "timeout"
    assert ended.document["endpoints"][0]["failure"]["error"] == "interrupted"
    assert fake.names() == {"chess-1"}


def test_a_sweep_that_ends_before_its_retries_says_what_the_endpoint_answered(run: Program, fake: FakeEngine) -> None:
    with FaultProxy(fake.socket) as proxy:
        proxy.add(Fault("status", "GET", "/containers/json", status=503))
        slow = {"REAPER_RETRY__INITIAL_DELAY": "20s", "REAPER_RETRY__MAX_DELAY": "30s"}
        ended = run("--once", "--timeout", "1s", env={"DOCKER_HOST": proxy.host, **slow})
    assert ended.code == 5
    assert "the sweep ended before it was listed; the last attempt failed: the engine answered 503" in ended.out


def test_a_hung_endpoint_does_not_spoil_what_the_others_did(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    fake.add("chess-1")
    with FakeEngine() as other, FaultProxy(other.socket) as proxy:
        other.add("go-1")
        proxy.add(Fault("hang", "GET", "/containers/json"))
        file = two(tmp_path, fake.host, proxy.host)
        ended = run("--once", "--timeout", "4s", "--config", file)
        assert other.names() == {"go-1"}
    assert ended.code == 5
    assert fake.names() == set()
    assert "a: 1 deleted, 0 kept" in ended.out
    assert "b: could not be listed: the sweep ended before it was listed; no answer within 4.0 s" in ended.out


def test_a_hung_deletion_ends_with_the_time_too(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    with FaultProxy(fake.socket) as proxy:
        proxy.add(Fault("hang", "DELETE"))
        began = time.monotonic()
        ended = run("--once", "--json", "--timeout", "4s", env={"DOCKER_HOST": proxy.host})
        assert time.monotonic() - began < 25
    assert ended.code == 3
    assert ended.outcomes() == {"chess-1": "abandoned"}


def test_each_call_has_a_limit_of_its_own(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    with FaultProxy(fake.socket) as proxy:
        proxy.add(Fault("hang", "GET", "/containers/json", times=1))
        ended = run("--once", env={"DOCKER_HOST": proxy.host, "REAPER_RETRY__REQUEST_TIMEOUT": "1s"})
    assert (ended.code, fake.names()) == (0, set())
    (retry,) = [line for line in ended.logs if line["event"] == "attempt_failed"]
    assert retry["error"] == "no answer within 1 s"


# -- --fail-fast -------------------------------------------------------------------------------------------------------


def two(folder: Path, first: str, second: str, more: str = "") -> str:
    file = folder / "two.toml"
    file.write_text(f'[[docker]]\nname = "a"\nhost = "{first}"\n{more}\n[[docker]]\nname = "b"\nhost = "{second}"\n{more}\n')
    return str(file)


def test_fail_fast_stops_at_the_first_failure(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    file = tmp_path / "one.toml"
    file.write_text(f'[[docker]]\nname = "local"\nhost = "{fake.host}"\nremovals = 1\n')
    for i in range(6):
        fake.add(f"stuck-{i}", refusal=(500, "driver failed"))
    arguments = ("--once", "--json", "--config", str(file))
    env = {"REAPER_RETRY__ATTEMPTS": "1"}
    fast = run(*arguments, "--fail-fast", env=env)
    assert fast.code == 3
    assert sorted(fast.outcomes().values()) == ["abandoned"] * 5 + ["failed"]
    assert len(fake.changes()) == 1
    slow = run(*arguments, env=env)
    assert (slow.code, set(slow.outcomes().values())) == (3, {"failed"})


def test_without_fail_fast_one_failure_stops_nothing(run: Program, fake: FakeEngine) -> None:
    fake.add("stuck", refusal=(500, "driver failed"))
    for i in range(5):
        fake.add(f"chess-{i}")
    assert run("--once").code == 3
    assert fake.names() == {"stuck"}


# -- the cap -----------------------------------------------------------------------------------------------------------


def hints(ended: Ended) -> list[str]:
    return [line.removeprefix("hint: ") for line in ended.err.splitlines() if line.startswith("hint: ")]


def command_in(hint: str) -> list[str]:
    """The command at the end of a hint, without the program's name."""
    words = shlex.split(hint[hint.index(": reaper ") + 2 :])
    assert words[0] == "reaper"
    return words[1:]


@pytest.mark.parametrize("given", [["--max-deletions", "2"], ["--max-deletions=50%"]])
def test_over_the_cap_the_hint_is_the_command_that_goes_on(run: Program, fake: FakeEngine, given: list[str]) -> None:
    for i in range(3):
        fake.add(f"it's {i}")
    fake.add("go-1")
    ended = run("--once", *given, "--all", "--name", "it's *")
    assert (ended.code, fake.changes()) == (4, [])
    (hint,) = hints(ended)
    assert "local: 3 would have gone" in hint
    assert "none of that was deleted" in hint
    command = command_in(hint)
    assert command == ["--once", "--all", "--name", "it's *", "--max-deletions", "3"]
    assert run(*command).code == 0
    assert fake.names() == {"go-1"}


def test_the_cap_counts_what_would_go(run: Program, fake: FakeEngine) -> None:
    for i in range(3):
        fake.add(f"chess-{i}")
    fake.add("neighbour", owned=False)
    codes = {"3": 0, "none": 0, "100%": 0, "75%": 0, "2": 4, "74%": 4, "0": 4}
    found = several(run, [["--once", "--dry-run", "--json", "--max-deletions", limit] for limit in codes])
    assert [ended.code for ended in found] == list(codes.values())
    for ended in found:
        assert list(ended.outcomes().values()) == ["would_delete"] * 3
        assert (ended.document["endpoints"][0]["cap"] is None) == (ended.code == 0)


def test_the_caps_of_everything_are_tight(run: Program, fake: FakeEngine) -> None:
    for i in range(3):
        fake.add(f"any-{i}", owned=False)
    fake.add("young", "running", ago="5m", owned=False)
    env = {"REAPER_SCOPE__EVERYTHING": "true"}
    ended = run("--once", env=env)
    assert (ended.code, fake.changes()) == (4, [])
    assert "max_fraction = 0.5 of 4 allows 2" in ended.err
    assert run("--once", "--max-deletions", "3", env=env).code == 0
    assert fake.names() == {"young"}


# -- other hints -------------------------------------------------------------------------------------------------------


def test_what_another_preset_would_own_is_named(run: Program, fake: FakeEngine) -> None:
    fake.add("minisweagent-0a1b2c3d", "running", owned=False)
    fake.add("neighbour", "running", owned=False)
    ended = run("--once")
    assert (ended.code, fake.changes()) == (0, [])
    (hint,) = hints(ended)
    presets = '["terminal-bench", "harbor", "mini-swe-agent"]'
    assert hint == (
        f"1 resource that is not owned has the signs of preset mini-swe-agent; to own it: presets = {presets} in [scope]"
    )
    env = {"REAPER_SCOPE__PRESETS": presets}
    assert run("--once", env=env).code == 0
    assert fake.names() == {"neighbour"}


def test_young_and_running_ones_are_kept_with_the_hint(run: Program, fake: FakeEngine) -> None:
    for i in range(3):
        fake.add(f"chess-{i}", "running", ago="5m")
    fake.add("kept", "running", ago="5m", labels={"reaper.keep": ""})
    fake.add("neighbour", "running", ago="5m", owned=False)
    ended = run("--once")
    assert (ended.code, fake.changes()) == (0, [])
    (hint,) = hints(ended)
    assert hint.startswith("3 owned resources are running and younger than 24 h; if no run is alive here: ")
    command = command_in(hint)
    assert command == ["--once", "--all"]
    ended = run(*command)
    assert (ended.code, hints(ended)) == (0, ["1 owned resource is kept in spite of --all: 1 protected"])
    assert fake.names() == {"kept", "neighbour"}


def test_the_hint_names_an_age_at_which_a_policy_for_these_would_take_them(
    run: Program, fake: FakeEngine, tmp_path: Path
) -> None:
    """Not that of a policy for another kind, nor of one that leaves some of them alone for longer."""
    fake.add("chess-1", "running", ago="9h")
    fake.add("chess-2", "running", ago="5m")
    policy = '[[policy]]\nname = "{}"\nkinds = ["{}"]\nolder_than = "{}"\n'
    file = tmp_path / "three.toml"
    file.write_text(
        policy.format("networks", "network", "1h")
        + policy.format("short", "container", "2h")
        + 'names = ["chess-2"]\n'
        + policy.format("long", "container", "10h")
        + policy.format("foreign", "container", "4d")
        + 'names = ["swe-*"]\n'
    )
    (hint,) = hints(run("--once", "--config", str(file)))
    assert hint.startswith("2 owned resources are running and younger than 10 h; ")


def test_nobody_is_told_to_delete_what_belongs_to_a_living_process(run: Program, fake: FakeEngine) -> None:
    """With --all it would go, and its run is known to be alive."""
    owner = dict([owner_label().split("=", 1)])
    fake.add("living", "running", ago="5m", labels=owner)
    assert hints(run("--once")) == []
    fake.add("young", "running", ago="5m")
    (hint,) = hints(run("--once"))
    assert hint == (
        "1 owned resource is running and younger than 24 h; 1 more belongs to a living process, and --once --all would"
        " delete it, too"
    )
    fake.add("dead", "running", ago="5m", labels={key: f"{value[:-1]}{int(value[-1]) ^ 1}" for key, value in owner.items()})
    assert hints(run("--once"))[0].startswith("2 owned resources are running and younger than 24 h; 1 more belongs")
    assert fake.changes() == []


def test_the_hint_reaches_no_further_than_the_command_did(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    """Who asked about one team's containers on one endpoint is not told how to delete everybody's."""
    with FakeEngine() as other:
        for engine in (fake, other):
            engine.add("mine", "running", ago="5m", labels={"team": "a b"})
            engine.add("theirs", "running", ago="5m", labels={"team": "c"})
        file = two(tmp_path, fake.host, other.host)
        ended = run("--once", "--config", file, "--only", "a", "--label", "team=a b", "--image", "bench*")
        (hint,) = hints(ended)
        assert hint.startswith("1 owned resource is running and younger than 24 h")
        assert run(*command_in(hint)).code == 0
        assert fake.names() == {"theirs"}
        assert other.names() == {"mine", "theirs"}


def test_what_matches_but_is_not_owned_is_left_and_told(run: Program, fake: FakeEngine) -> None:
    for i in range(7):
        fake.add(f"other-{i}", owned=False, labels={"team": "rl"})
    fake.add("chess-1", labels={"team": "rl"})
    fake.add("chess-2")
    ended = run("--once", "--all", "--label", "team=rl")
    assert ended.code == 0
    assert hints(ended) == ["7 match but are not owned; add them to [scope]"]
    assert fake.names() == {*(f"other-{i}" for i in range(7)), "chess-2"}
    assert hints(run("--once", "--all", "--name", "other-0")) == ["1 matches but is not owned; add them to [scope]"]


# -- one-off policies and narrowing ------------------------------------------------------------------------------------


def inventory(fake: FakeEngine) -> None:
    fake.add("stopped-1h", ago="1h", labels={"team": "a", "run": "x"})
    fake.add("stopped-9h", ago="9h", image="registry.local:5000/tb__go__client:1")
    fake.add("stopped-30h", ago="30h", labels={"team": "b"})
    fake.add("running-1h", "running", ago="1h", labels={"team": "a"})
    fake.add("running-9h", "running", ago="9h")
    fake.add("running-30h", "running", ago="30h", labels={"team": "a", "run": "y"})
    fake.add("never-1m", "created", ago="1m")
    fake.add("never-9h", "created", ago="9h")
    fake.add("kept-30h", ago="30h", labels={"reaper.keep": "", "team": "a"})
    fake.add("other-30h", ago="30h", owned=False, labels={"team": "a"})
    fake.add("override-30h", ago="30h", labels={"reaper.ttl": "9d"})


ALL = {"stopped-1h", "stopped-9h", "stopped-30h", "running-1h", "running-9h", "running-30h", "never-9h", "override-30h"}
DEFAULTS = {"stopped-9h", "stopped-30h", "running-30h", "never-9h"}
STOPPED = {"stopped-1h", "stopped-9h", "stopped-30h", "never-9h"}


SELECTS = {
    "": DEFAULTS,
    "--all": ALL,
    "--stopped": STOPPED,
    "--older-than 8h": {"stopped-9h", "stopped-30h", "running-9h", "running-30h", "never-9h"},
    "--stopped --older-than 24h": STOPPED | {"running-30h"},
    "--aggressive": STOPPED | {"running-9h", "running-30h"},
    "--policy old-containers": {"stopped-30h", "running-30h"},
    "--policy old-containers --policy stopped-containers": DEFAULTS,
    "--policy old-sandboxes": set(),
    "--only docker": DEFAULTS,
    "--only local --only docker": DEFAULTS,
    "--label team=a": {"running-30h"},
    "--all --label team=a": {"stopped-1h", "running-1h", "running-30h"},
    "--all --label team=a --label run": {"stopped-1h", "running-30h"},
    "--all --label team=[bc]": {"stopped-30h"},
    "--all --name running-* --name never-*": {"running-1h", "running-9h", "running-30h", "never-9h"},
    "--all --image tb__*": {"stopped-9h"},
    "--all --image tb__* --name running-*": set(),
    "--stopped --label team": {"stopped-1h", "stopped-30h"},
    "--aggressive --label team=a": {"stopped-1h", "running-30h"},
}


def test_what_each_option_selects(run: Program, fake: FakeEngine) -> None:
    inventory(fake)
    found = several(run, [["--once", "--dry-run", "--json", *options.split()] for options in SELECTS])
    assert [ended.code for ended in found] == [0] * len(SELECTS)
    assert {options: ended.outcomes() for options, ended in zip(SELECTS, found, strict=True)} == {
        options: dict.fromkeys(goes, "would_delete") for options, goes in SELECTS.items()
    }
    assert fake.changes() == []


@pytest.mark.parametrize(
    ("options", "goes"),
    [
        ("", {"ended", "ended-too", "stopped-9h"}),
        ("--all", {"ended", "ended-too", "stopped-9h"}),
        ("--name ended", {"ended"}),
        ("--label team=a", {"ended-too"}),
        ("--all --name stopped-*", {"stopped-9h"}),
        ("--policy stopped-containers", {"stopped-9h"}),
        ("--policy old-containers", set()),
    ],
)
def test_what_its_own_label_has_ended_goes_only_where_it_is_asked_for(
    run: Program, fake: FakeEngine, options: str, goes: set[str]
) -> None:
    fake.add("ended", "running", ago="1h", labels={"reaper.ttl": "30m"})
    fake.add("ended-too", "running", ago="1h", labels={"reaper.ttl": "30m", "team": "a"})
    fake.add("stopped-9h", ago="9h")
    assert run("--once", "--dry-run", "--json", *options.split()).outcomes() == dict.fromkeys(goes, "would_delete")


def test_no_option_touches_what_is_unowned_protected_or_about_to_start(run: Program, fake: FakeEngine) -> None:
    inventory(fake)
    assert run("--once", "--all", "--max-deletions", "none").code == 0
    assert run("--once", "--aggressive").code == 0
    assert run("--once", "--older-than", "1s").code == 0
    assert fake.names() == {"never-1m", "kept-30h", "other-30h"}


# -- check -------------------------------------------------------------------------------------------------------------


def left(ended: Ended) -> set[str]:
    return {line.split("\t")[3] for line in ended.out.splitlines() if "\t" in line}


def test_check_tells_what_is_reapable_and_with_all_what_is_owned(run: Program, fake: FakeEngine) -> None:
    inventory(fake)
    fake.add("leased", "running", ago="1h", labels={"reaper.lease": "7f3a"})
    ended = run("check")
    assert (ended.code, left(ended)) == (6, DEFAULTS)
    assert "4 resources are left" in ended.out
    ended = run("check", "--all")
    assert ended.code == 6
    assert left(ended) >= ALL | {"never-1m"}
    assert not left(ended) & {"kept-30h", "other-30h"}
    assert fake.changes() == []


def test_only_check_all_proves_that_nothing_leaked(run: Program, fake: FakeEngine) -> None:
    fake.add("kept", labels={"reaper.keep": ""})
    fake.add("other", owned=False)
    assert (run("check").code, run("check", "--all").code) == (0, 0)
    fake.add("young", "running", ago="5m")
    assert (run("check").code, run("check", "--all").code) == (0, 6)


def test_check_all_counts_the_overlay_network_that_an_owned_project_has_left(run: Program, fake: FakeEngine) -> None:
    """It is not deleted: other nodes of the Swarm may have containers on it."""
    fake.add_network("ingress", "", scope="swarm")
    fake.add_network("shop_mesh", "shop", scope="swarm")
    assert (run("--once", "--all").code, run("check", "--all").code) == (0, 0)
    network = fake.add_network("chess__a1b2c3d_mesh", "chess__a1b2c3d", scope="swarm")
    assert (run("--once", "--all").code, run("check").code) == (0, 0)
    ended = run("check", "--all")
    assert (ended.code, left(ended)) == (6, {"chess__a1b2c3d_mesh"})
    assert list(fake.networks)[-1] == network.id
    assert fake.changes() == []


# -- dry runs ----------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_the_sweep_then_does(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    inventory(fake)
    before: Any = run("--once", "--dry-run", "--json")
    assert fake.changes() == []
    assert not list(tmp_path.glob("own*.json")), "it remembers nothing either"
    after = run("--once", "--json")
    assert before.outcomes().keys() == after.outcomes().keys() == DEFAULTS
    assert set(after.outcomes().values()) == {"deleted"}

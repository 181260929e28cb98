"""The program as a process, over simulated organisations: every option that sweeps."""

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reaper.simulator.world import ContainerSpec
from tests.daytona.lab import DAY, HOUR, MINUTE
from tests.daytona.server import Served
from tests.program.test_json import report
from tests.program.wrapped import started
from tests.run import Program

ALL = {"forgotten", "ancient", "stopped", "just-stopped", "living", "middling", "kept", "foreign"}


@pytest.fixture
def served(served: Served) -> Served:
    served.believable()
    return served


@pytest.fixture
def run(served: Served) -> Program:
    return served.program()


def test_once_deletes_what_the_policies_take_and_check_agrees(served: Served, run: Program) -> None:
    assert run("check", "--only", "daytona").code == 6
    assert served.changes() == []
    ended = run("--once", "--only", "daytona")
    assert ended.code == 0, ended.err
    assert served.left() == ALL - {"forgotten", "ancient", "stopped"}
    assert "default: 3 deleted, 5 kept" in ended.out
    assert "2 owned resources are running and younger than 24 h" in ended.err
    assert "reaper --once --all --only daytona" in ended.err
    assert run("check", "--only", "daytona").code == 0
    assert run("check", "--all", "--only", "daytona").code == 6


OPTIONS = {
    "stopped": (["--stopped"], {"stopped", "just-stopped"}),
    "older than": (["--older-than", "3d"], {"ancient"}),
    "stopped or older": (["--stopped", "--older-than", "3d"], {"stopped", "just-stopped", "ancient"}),
    "all of a run": (["--all", "--label", "run=nightly"], {"forgotten", "living"}),
    "all of a name": (["--all", "--name", "*stopped"], {"stopped", "just-stopped"}),
    "all": (["--all"], ALL - {"kept", "foreign"}),
    "aggressive": (["--aggressive"], {"forgotten", "ancient", "stopped", "just-stopped", "middling"}),
    "a policy": (["--policy", "stopped-sandboxes"], {"stopped"}),
    "the organisation by its name": (["--only", "default"], {"forgotten", "ancient", "stopped"}),
}


@pytest.mark.parametrize(("options", "gone"), OPTIONS.values(), ids=OPTIONS.keys())
def test_an_option_takes_exactly_what_it_says(served: Served, options: list[str], gone: set[str]) -> None:
    ended = served.program(DOCKER_HOST=served.sim.docker_host)("--once", "--json", *options)
    assert report(ended)["exit_code"] == 0
    assert ended.outcomes() == dict.fromkeys(gone, "deleted")
    assert served.left() == ALL - gone


def test_what_hangs_or_has_failed_is_listed_before_what_is_well(served: Served, run: Program) -> None:
    served.add("hangs", state="stopping", stuck=True)
    served.add("changes", state="stopping", stuck=True, age=10 * MINUTE)
    served.add("failed", state="error", age=10 * MINUTE)
    served.add("failed-elsewhere", state="error", age=3 * DAY, labels={})
    names = [line.split("\t")[3] for line in run("list", "--only", "daytona").out.splitlines() if "\t" in line]
    assert set(names[:3]) == {"forgotten", "ancient", "stopped"}
    assert set(names[3:5]) == {"hangs", "failed"}
    assert set(names[-2:]) == {"foreign", "failed-elsewhere"}


def test_what_a_label_matches_and_is_not_owned_is_reported(served: Served, run: Program) -> None:
    ended = run("--once", "--only", "daytona", "--all", "--label", "run=nightly")
    assert "1 matches but is not owned; add them to [scope]" in ended.err


def test_a_dry_run_changes_nothing_at_the_server(served: Served, run: Program) -> None:
    ended = run("--once", "--dry-run", "--all", "--json", "--only", "daytona")
    assert report(ended)["dry_run"] is True
    assert ended.outcomes() == dict.fromkeys(ALL - {"kept", "foreign"}, "would_delete")
    assert served.changes() == []
    assert served.left() == ALL


def test_list_and_explain_name_owner_state_and_reason(served: Served, run: Program) -> None:
    listed = run("list", "--json", "--only", "daytona")
    rows = {r["name"]: r for r in report(listed)["endpoints"][0]["resources"]}
    assert rows.keys() == ALL
    assert {rows[name]["reason"] for name in ("kept", "foreign", "living")} == {"protected", "not_owned", "too_young"}
    assert rows["stopped"]["kind"] == "sandbox"
    explained = run("explain", "forgotten", "--only", "daytona")
    assert explained.code == 0
    assert "owned: preset harbor" in explained.out
    assert "old-sandboxes" in explained.out
    assert run("explain", "default/foreign", "--only", "daytona").out.endswith("keep: nothing in [scope] matches it\n")
    assert run("explain", "no-such", "--only", "daytona").code == 2
    assert served.changes() == []


def test_the_cap_is_said_with_the_command_that_goes_on(served: Served, run: Program) -> None:
    ended = run("--once", "--only", "daytona", "--max-deletions", "2")
    assert (ended.code, served.changes()) == (4, [])
    assert "reaper --once --only daytona --max-deletions 3" in ended.err
    assert run("--once", "--only", "daytona", "--max-deletions", "3").code == 0


def test_fail_fast_stops_at_the_first_failure(served: Served, run: Program) -> None:
    for i in range(120):
        served.add(f"leftover-{i}", age=3 * DAY)
    served.sim.faults.add("status:403,method=DELETE", "status:403,method=POST")
    ended = run("--once", "--only", "daytona", "--fail-fast", "--json")
    assert ended.code == 3
    found = list(ended.outcomes().values())
    assert found.count("abandoned") > 40  # at most 64 can have begun
    assert {"abandoned", "failed"} == set(found)


def test_docker_and_daytona_go_in_one_run(tmp_path: Path) -> None:
    at = datetime.now(UTC) - 2 * DAY
    client = ContainerSpec(
        name="chess", image="tb__chess__client", labels={}, state="exited", created=at, started=at, finished=at + HOUR
    )
    with Served(tmp_path, containers=[client]) as served:
        served.believable()
        ended = served.program()("--once", "--json")
        document = report(ended)
        assert document["exit_code"] == 0, ended.err
        assert [(e["endpoint"], e["provider"]) for e in document["endpoints"]] == [
            ("local", "docker"),
            ("default", "daytona"),
        ]
        kinds = {r["kind"] for e in document["endpoints"] for r in e["resources"] if r["outcome"] == "deleted"}
        assert kinds == {"container", "sandbox"}
        assert served.left() == ALL - {"forgotten", "ancient", "stopped"}


def test_nothing_is_judged_by_age_where_the_server_s_clock_is_days_from_ours(tmp_path: Path) -> None:
    with Served(tmp_path, ahead=3 * DAY) as served:
        served.believable()
        ended = served.program()("--once", "--only", "daytona", "--json")
        assert report(ended)["exit_code"] == 5
        assert served.left() == ALL
        assert served.changes() == []


@pytest.mark.parametrize("ahead", [50 * MINUTE, -50 * MINUTE])
def test_ages_follow_the_server_s_clock_where_it_differs_from_ours(tmp_path: Path, ahead: timedelta) -> None:
    with Served(tmp_path, ahead=ahead) as served:
        served.believable()
        ended = served.program()("--once", "--only", "daytona", "--json")
        assert report(ended)["exit_code"] == 0
        assert served.left() == ALL - {"forgotten", "ancient", "stopped"}
        assert "ages are corrected" in ended.document["endpoints"][0]["warnings"][0]


def test_two_organisations_each_with_a_key_of_its_own(tmp_path: Path) -> None:
    with Served(tmp_path, "rl", "eval") as served:
        served.add("a", org="rl")
        served.add("b", org="eval")
        served.add("c", org="eval", age=HOUR)
        file = tmp_path / "key"
        file.write_text(served.sim.api_key("eval") + "\n")
        config = tmp_path / "two.toml"
        config.write_text(
            f'[[daytona]]\nname = "rl-org"\napi_url = "{served.sim.daytona_url}/"\napi_key_env = "RL_KEY"\n'
            f'[[daytona]]\nname = "eval-org"\napi_url = "{served.sim.daytona_url}"\napi_key_file = "{file}"\n'
        )
        run = served.program(RL_KEY=served.sim.api_key("rl"), DAYTONA_API_KEY="dtn_unknown")
        ended = run("--once", "--only", "eval-org", "--json", "--config", str(config))
        assert ended.outcomes() == {"b": "deleted"}
        ended = run("--once", "--json", "--config", str(config))
        assert [e["endpoint"] for e in report(ended)["endpoints"]] == ["rl-org", "eval-org"]
        assert ended.outcomes() == {"a": "deleted"}
        assert (served.left("rl"), served.left("eval")) == (set(), {"c"})
        assert run("--once", "--only", "docker", "--config", str(config)).code == 2


def test_the_key_may_stand_in_a_file_that_a_variable_names(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.add("forgotten")
        file = tmp_path / "daytona"
        file.write_text(served.key + "\n")
        run = served.program(DAYTONA_API_KEY="", DAYTONA_API_KEY_FILE=str(file))
        ended = run("--once", "--json", "--log-level", "debug")
        assert [e["endpoint"] for e in report(ended)["endpoints"]] == ["local", "default"]
        assert ended.outcomes() == {"forgotten": "deleted"}
        assert served.left() == set()
        assert served.key not in ended.out + ended.err


def test_a_signal_in_mid_sweep_ends_it_with_a_report_that_is_true(served: Served, run: Program) -> None:
    names = {f"leftover-{i:03}" for i in range(150)}
    for name in names:
        served.add(name)
    served.sim.faults.add("latency:100ms,method=DELETE")
    with (
        served.first_deletion() as seen,
        started(run, "--once", "--json", "--only", "daytona", "--log-level", "debug") as process,
    ):
        assert seen.wait(60)
        cmdline = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
        process.send_signal(signal.SIGTERM)
        ended = run.finish(process)
    assert ended.code == 143
    document = report(ended)
    assert document["interrupted"] == "SIGTERM"
    by_outcome: dict[str, set[str]] = {}
    for name, outcome in ended.outcomes().items():
        by_outcome.setdefault(outcome, set()).add(name)
    assert by_outcome["deleted"]
    assert not by_outcome["deleted"] & served.left()
    assert by_outcome["abandoned"] <= served.left()
    assert by_outcome.keys() == {"deleted", "abandoned"}
    assert served.key not in cmdline + ended.out + ended.err

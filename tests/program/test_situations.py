"""The files of docs/policies.md, as they stand there, each in a world in which the obvious mistakes would show."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reaper.config import load
from reaper.core.decide import decide
from reaper.core.lease import Lease
from reaper.core.model import Resource, State
from tests.core.make import NOW, RUNNING, SANDBOX, STOPPED, ago
from tests.run import Program

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
FILES = dict(re.findall(r"```toml\n# (\S+\.toml)\n(.*?)```", PAGE, re.DOTALL))
MOST_LINES = 15


def _kept(folder: Path, name: str, world: Iterable[Resource], now: datetime = NOW, leases: Iterable[Lease] = ()) -> set[str]:
    """The names of what stays by the file, of a world in which all that is not owned stays as well."""
    (folder / name).write_text(FILES[name])
    rules = load.load(str(folder / name), {}).settings.rules()
    by_endpoint: dict[str, list[Resource]] = {}
    for resource in world:
        by_endpoint.setdefault(resource.endpoint, []).append(resource)
    decisions = [d for resources in by_endpoint.values() for d in decide(resources, rules, leases, now)]
    return {decision.resource.name for decision in decisions if not decision.reap}


def _running(name: str, hours: float, labels: Mapping[str, str] | None = None, endpoint: str = "local") -> Resource:
    at = ago(hours=hours)
    return replace(
        RUNNING, id=f"{endpoint}/{name}", name=name, endpoint=endpoint, created_at=at, started_at=at, labels=labels or {}
    )


def _stopped(
    name: str, hours: float, labels: Mapping[str, str] | None = None, endpoint: str = "local", code: int | None = 0
) -> Resource:
    """One that ran for two hours and ended so long ago."""
    began, ended = ago(hours=hours + 2), ago(hours=hours)
    one = replace(STOPPED, id=f"{endpoint}/{name}", name=name, endpoint=endpoint, exit_code=code)
    return replace(one, created_at=began, started_at=began, stopped_at=ended, labels=labels or {})


def _foreign(resource: Resource) -> Resource:
    return replace(resource, image="postgres:16")


def test_there_are_the_five_situations_and_each_is_short() -> None:
    assert sorted(FILES) == ["ci.toml", "daytona.toml", "failed.toml", "nightly.toml", "shared-gpu.toml"]
    assert {name: count for name, text in FILES.items() if (count := len(text.splitlines())) > MOST_LINES} == {}


@pytest.mark.parametrize("name", FILES)
def test_config_check_has_nothing_to_say_against_them_but_what_the_nightly_clean_takes(program: Program, name: str) -> None:
    (program.folder / name).write_text(FILES[name])
    env = {"TRAINING_DAYTONA_API_KEY": "k", "EVALUATION_DAYTONA_API_KEY": "k"}
    ended = program("config", "check", "--config", name, env=env)
    assert (ended.code, ended.err) == (0, "")
    warned = [line for line in ended.out.splitlines() if line.startswith("warning")]
    assert [line.partition(" between ")[0] for line in warned] == (
        ["warning: policy nightly takes everything that is owned"] if name == "nightly.toml" else []
    )


def test_a_ci_host_with_three_engines(tmp_path: Path) -> None:
    job = {"ci.job": "7"}
    world = [
        made
        for engine in ("ci-1", "ci-2", "ci-3")
        for made in (
            _foreign(_stopped("stopped", 2, job, engine)),
            _foreign(_stopped("just-stopped", 0.5, job, engine)),
            _foreign(_running("forgotten", 9, job, engine)),
            _foreign(_running("at-work", 7, job, engine)),
            _foreign(_running("long", 9, job | {"long-run": ""}, engine)),
            _foreign(_running("registry-1", 900, job, engine)),
            _foreign(_stopped("someones", 900, {}, engine)),
        )
    ]
    assert _kept(tmp_path, "ci.toml", world) == {"just-stopped", "at-work", "long", "registry-1", "someones"}


def test_a_gpu_box_that_several_users_share(tmp_path: Path) -> None:
    eve, bob = {"user": "eve"}, {"user": "bob"}
    world = [
        _foreign(_stopped("eve-stopped", 7, eve)),
        _foreign(_running("eve-old", 25, eve)),
        _foreign(_running("eve-young", 20, eve)),
        _foreign(_stopped("bob-stopped", 7, bob)),
        _foreign(_running("bob-old", 80, bob)),
        _foreign(_running("bob-older", 97, bob)),
        _foreign(_running("bobby-old", 80, {"user": "bobby"})),
        _running("trial", 25),
        _foreign(_running("nobodys", 900)),
    ]
    assert _kept(tmp_path, "shared-gpu.toml", world) == {"eve-young", "bob-stopped", "bob-old", "nobodys"}


def test_a_daytona_organisation_with_two_keys(tmp_path: Path) -> None:
    def sandbox(endpoint: str, age: float, idle: float, **fields: object) -> Resource:
        name = f"{endpoint}-{age:g}-{idle:g}"
        one = replace(SANDBOX, id=name, name=name, endpoint=endpoint, created_at=ago(hours=age))
        return replace(one, last_activity_at=ago(hours=idle), **fields)  # type: ignore[arg-type]

    stopped = {"state": State.STOPPED, "raw_state": "stopped"}
    world = [
        sandbox("training", 13, 1),
        sandbox("training", 13, 0.1),
        sandbox("training", 11, 1),
        sandbox("evaluation", 25, 7),
        sandbox("evaluation", 25, 1),
        sandbox("evaluation", 13, 7),
        sandbox("evaluation", 9, 8, stopped_at=ago(hours=8), **stopped),
        sandbox("training", 300, 299, state=State.STOPPED, raw_state="archived", stopped_at=ago(hours=299)),
        sandbox("evaluation", 301, 300, labels={}),
    ]
    assert _kept(tmp_path, "daytona.toml", world) == {
        "training-13-0.1",
        "training-11-1",
        "evaluation-25-1",
        "evaluation-13-7",
        "training-300-299",
        "evaluation-301-300",
    }


NIGHT = datetime(2026, 11, 21, 1, 30, tzinfo=UTC)  # half past two in Berlin


def _night(moment: datetime) -> list[Resource]:
    at = moment - timedelta(hours=1)
    young = replace(RUNNING, created_at=at, started_at=at)
    return [
        replace(young, id="a", name="young"),
        replace(young, id="b", name="leased", labels={"reaper.lease": "run-1"}),
        replace(young, id="c", name="until", labels={"reaper.ttl": "12h"}),
        replace(young, id="d", name="kept", labels={"reaper.keep": ""}),
        replace(young, id="e", name="someones", image="postgres:16"),
        replace(
            young, id="f", name="starting", raw_state="created", state=State.STOPPED, created_at=moment, started_at=None
        ),
    ]


def test_a_full_clean_each_night(tmp_path: Path) -> None:
    lease = Lease(id="run-1", owner="pid 1", since=NIGHT - timedelta(hours=2))
    stay = {"leased", "until", "kept", "someones", "starting"}
    assert _kept(tmp_path, "nightly.toml", _night(NIGHT), NIGHT, [lease]) == stay
    for away in (timedelta(hours=-1), timedelta(hours=2, minutes=30), timedelta(hours=10)):
        moment = NIGHT + away
        assert _kept(tmp_path, "nightly.toml", _night(moment), moment, [lease]) == {"young", *stay}


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-03-29T00:59:59+00:00", False),  # the clocks of Berlin go from 02:00 to 03:00 at 01:00 UTC
        ("2026-03-29T01:00:00+00:00", True),
        ("2026-03-29T02:59:59+00:00", True),
        ("2026-03-29T03:00:00+00:00", False),
        ("2026-10-25T00:00:00+00:00", True),  # and back from 03:00 at 01:00 UTC
        ("2026-10-25T03:59:59+00:00", True),
        ("2026-10-25T04:00:00+00:00", False),
    ],
)
def test_the_night_is_that_of_the_clocks_of_berlin(tmp_path: Path, moment: str, is_open: bool) -> None:
    now = datetime.fromisoformat(moment)
    assert ("young" not in _kept(tmp_path, "nightly.toml", _night(now), now)) is is_open


def test_failed_trials_are_kept_for_a_day(tmp_path: Path) -> None:
    long = replace(_stopped("failed-after-30-hours", 2, code=1), created_at=ago(hours=32), started_at=ago(hours=32))
    world = [
        _stopped("clean", 2),
        _stopped("clean-just-now", 0.5),
        _stopped("failed", 20, code=1),
        long,
        _stopped("killed", 20, code=137),
        _stopped("failed-yesterday", 25, code=1),
        _stopped("unknown", 30, code=None),
        _stopped("unknown-for-long", 49, code=None),
        _running("running", 20),
        _running("forgotten", 25),
    ]
    assert _kept(tmp_path, "failed.toml", world) == {
        "clean-just-now",
        "failed",
        "failed-after-30-hours",
        "killed",
        "unknown",
        "running",
    }

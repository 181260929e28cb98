"""The cookbook of docs/policies.md, as it stands there, each file in a world in which the obvious mistakes would show."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reaper.config import load
from reaper.config.quotas import quotas
from reaper.core.lease import Lease
from reaper.core.model import Kind, Remembered, Resource, State
from reaper.core.owner_process import NO_PROOFS, OWNER_LABEL, Fate, OwnerProcess, Proofs
from reaper.core.pressure import awake
from reaper.core.quota import decide_within
from tests.core.make import IMAGE, NETWORK, NOW, RUNNING, SANDBOX, STOPPED, VOLUME, ago
from tests.run import Program

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
FILES = dict(re.findall(r"```toml\n# (\S+\.toml)\n(.*?)```", PAGE, re.DOTALL))
MOST_LINES = 15


def _kept(
    folder: Path,
    name: str,
    world: Iterable[Resource],
    now: datetime = NOW,
    leases: Iterable[Lease] = (),
    *,
    proofs: Proofs = NO_PROOFS,
    pressure: bool = False,
) -> set[str]:
    """The names of what stays by the file, of a world in which all that is not owned stays as well."""
    (folder / name).write_text(FILES[name])
    settings = load.load(str(folder / name), {}).settings
    by_endpoint: dict[str, list[Resource]] = {}
    for resource in world:
        by_endpoint.setdefault(resource.endpoint, []).append(resource)
    rules = awake(settings.rules(), by_endpoint) if pressure else settings.rules()
    limits, leases = quotas(settings.quota, settings.policy), tuple(leases)
    decisions = [
        decision
        for resources in by_endpoint.values()
        for decision in decide_within(resources, rules, leases, now, quotas=limits, proofs=proofs)
    ]
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


# What each file owns: the endpoint, and labels by which it owns (of a container of any image).
OWNED: dict[str, tuple[str, dict[str, str]]] = {
    "before.toml": ("local", {"terminal-bench": ""}),
    "build.toml": ("local", {"ci.build": "7"}),
    "ci.toml": ("ci-2", {"ci.job": "7"}),
    "daytona.toml": ("evaluation", {"harbor.managed": "true"}),
    "disk.toml": ("local", {"terminal-bench": ""}),
    "failed.toml": ("local", {"terminal-bench": ""}),
    "nightly.toml": ("local", {"terminal-bench": ""}),
    "shared-gpu.toml": ("local", {"user": "eve"}),
}


def test_there_are_the_eight_recipes_and_each_is_short() -> None:
    assert sorted(FILES) == sorted(OWNED)
    assert {name: count for name, text in FILES.items() if (count := len(text.splitlines())) > MOST_LINES} == {}


def _used(resource: Resource, name: str, hours: float, **fields: object) -> Resource:
    """An owned network, volume or image that something used last so long ago, made and watched for a month."""
    changes = {"name": name, "created_at": ago(days=30), "last_used_at": ago(hours=hours), "watched_since": ago(days=29)}
    return replace(resource, **{"id": f"id-{name}", **changes, "group": None, **fields})  # type: ignore[arg-type]


def _image(tag: str, hours: float, **fields: object) -> Resource:
    named = {"image": tag, "tags": (tag,), "tagged_at": ago(days=30)}
    return _used(IMAGE, tag, hours, **{**named, **fields})


@pytest.mark.parametrize("name", FILES)
def test_what_is_leased_protected_or_not_owned_stays_by_each_of_them(tmp_path: Path, name: str) -> None:
    """Stopped three months ago, under pressure, in the night: only the one that nothing speaks for goes."""
    now = NIGHT if name == "nightly.toml" else NOW
    endpoint, labels = OWNED[name]
    if endpoint == "evaluation":
        ended = replace(
            SANDBOX, state=State.STOPPED, raw_state="stopped", created_at=ago(days=91), last_activity_at=ago(days=90)
        )
    else:
        ended = _foreign(_stopped("", 24 * 90))
    ended = replace(ended, endpoint=endpoint, labels=labels)
    world = [
        replace(ended, name="garbage"),
        replace(ended, name="kept", labels=labels | {"reaper.keep": ""}),
        replace(ended, name="until", labels=labels | {"reaper.ttl": "365d"}),
        replace(ended, name="odd", labels=labels | {"reaper.ttl": "soon"}),
        replace(ended, name="leased", labels=labels | {"reaper.lease": "run-1"}),
        replace(ended, name="foreign", labels={}),
        replace(ended, name="without-labels", labels=None),
        replace(ended, name="without-times", created_at=None, stopped_at=None, last_activity_at=None),
        replace(ended, name="changing", state=State.CHANGING, raw_state="starting"),
        replace(ended, name="of-the-machinery", system_container="a pod of Kubernetes"),
        replace(ended, name="member", group="p"),
        replace(ended, name="protected-member", labels=labels | {"reaper.keep": ""}, group="p"),
    ]
    world = [replace(one, id=f"id-{number}") for number, one in enumerate(world)]
    lease = Lease(id="run-1", owner="pid 1", since=ago(days=100))
    stay = {one.name for one in world} - {"garbage"}
    assert _kept(tmp_path, name, world, now, [lease], pressure=True) == stay


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


def test_a_shared_gpu_workstation(tmp_path: Path) -> None:
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
        _foreign(_running("unowned-run", 900)),
    ]
    assert _kept(tmp_path, "shared-gpu.toml", world) == {"eve-young", "bob-stopped", "bob-old", "unowned-run"}


def test_daytona_with_several_users_and_two_keys(tmp_path: Path) -> None:
    def sandbox(endpoint: str, age: float, idle: float, name: str = "", **fields: object) -> Resource:
        name = name or f"{endpoint}-{age:g}-{idle:g}"
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
    stay = {
        "training-13-0.1",
        "training-11-1",
        "evaluation-25-1",
        "evaluation-13-7",
        "training-300-299",
        "evaluation-301-300",
    }
    assert _kept(tmp_path, "daytona.toml", world) == stay

    def of(user: str, count: int, age: float, idle: float) -> list[Resource]:
        labels = {"harbor.managed": "true", "user": user}
        return [
            sandbox("evaluation", age + number / 60, idle, f"{user}-{idle:g}-{number}", labels=labels)
            for number in range(count)
        ]

    world += of("ada", 19, 20, 0.1) + of("ada", 3, 21, 9)  # 22 of 20: the two oldest that are idle
    world += of("bob", 20, 22, 9)  # idle, and as many as may be
    world += of("eve", 25, 10, 7)  # too many, and each may be at work
    stay |= {one.name for one in world if one.name.startswith(("ada", "bob", "eve"))} - {"ada-9-1", "ada-9-2"}
    assert _kept(tmp_path, "daytona.toml", world) == stay


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


def test_before_a_benchmark(tmp_path: Path) -> None:
    """What runs beside it is alive: its containers, its networks, and the images that both have."""
    dead, alive = {OWNER_LABEL: "dead"}, {OWNER_LABEL: "alive"}
    proofs = Proofs(
        {
            (OWNER_LABEL, "dead"): OwnerProcess("process 1", Fate.DEAD, "there is no such process", ago(hours=1)),
            (OWNER_LABEL, "alive"): OwnerProcess("process 2", Fate.ALIVE, "it runs"),
        }
    )

    def project(name: str, *members: Resource) -> list[Resource]:
        labels = {"com.docker.compose.project": name, "com.docker.compose.service": "main"}
        members = tuple(replace(member, group=name, uses=frozenset({f"id-{name}_default"})) for member in members)
        network = replace(NETWORK, id=f"id-{name}_default", name=f"{name}_default", group=name)
        volume = replace(VOLUME, id=f"{name}_data", name=f"{name}_data", group=name, created_at=ago(days=1))
        image = replace(
            IMAGE, id=f"id-{name}-main", name=f"{name}-main", tags=(f"{name}-main:latest",), group=name, labels=labels
        )
        return [*members, network, volume, replace(image, tagged_at=ago(days=1))]

    owned = {"terminal-bench": ""}
    world = [
        *project("ended", _stopped("ended-1", 1), _stopped("ended-2", 0.6)),
        *project("at-work", _stopped("at-work-helper", 7), _running("at-work-client", 7.5)),
        *project("just-ended", _stopped("just-ended-1", 0.4), _stopped("just-ended-2", 2)),
        *project("neighbours", _foreign(_stopped("neighbours-1", 900))),
        _running("hangs", 11),
        _running("longest", 9),
        _running("of-a-killed-run", 2, dead),
        _running("started-just-now", 0.1, dead),
        replace(_running("of-a-living-run", 2, alive), uses=frozenset({"n4"})),
        replace(NETWORK, id="n2", name="left", group=None, labels=owned, created_at=ago(hours=2)),
        replace(NETWORK, id="n3", name="just-made", group=None, labels=owned, created_at=ago(hours=0.5)),
        replace(NETWORK, id="n4", name="attached", group=None, labels=owned, created_at=ago(hours=9)),
        replace(NETWORK, id="n5", name="the-neighbours", group=None),
    ]
    stay = {name for name in (one.name for one in world) if name.startswith(("at-work", "just-ended", "neighbours"))}
    stay |= {"longest", "started-just-now", "of-a-living-run", "just-made", "attached", "the-neighbours"}
    assert _kept(tmp_path, "before.toml", world, proofs=proofs) == stay


CACHE = replace(VOLUME, kind=Kind.BUILD_CACHE, id="build-cache", name="build-cache", labels={})


def test_a_disk_guard(tmp_path: Path) -> None:
    world = [
        _stopped("yesterdays", 20),
        _stopped("just-stopped", 0.5),
        _stopped("stopped-now", 0.1),
        _running("at-work", 20),
        _image("tb__old__client:latest", 3),
        _image("tb__warm__client:latest", 1),
        _image("tb__used__client:latest", 3),
        _image("tb__new__client:latest", 3, watched_since=None, last_used_at=None),
        _image("postgres:16", 900),
        replace(_running("user", 1), image="tb__used__client:latest"),
        replace(CACHE, last_used_at=ago(hours=3), size=1 << 30),
        _used(VOLUME, "data", 900, labels={"terminal-bench": ""}),
    ]
    always = {one.name for one in world} - {"yesterdays"}
    assert _kept(tmp_path, "disk.toml", world) == always
    under_pressure = always - {"just-stopped", "tb__old__client:latest", "build-cache"}
    assert _kept(tmp_path, "disk.toml", world, pressure=True) == under_pressure


def test_a_build_host(tmp_path: Path) -> None:
    build, days = {"ci.build": "7"}, 24
    dangling = Remembered("scope image acme/*", ago(days=9))
    world = [
        _foreign(_stopped("step", 2, build)),
        _foreign(_stopped("step-now", 0.5, build)),
        _foreign(_running("step-at-work", 900, build)),
        _foreign(_stopped("neighbours-step", 900)),
        _image("acme/app:1", 8 * days, layers=("a", "b", "c")),
        _image("acme/app:2", 6 * days),
        _image("acme/served:1", 900),
        _image("acme/base:12", 900, layers=("a",)),
        _image("acme/middle:1", 8 * days, layers=("x",)),
        _image("acme/on-middle:1", 1, layers=("x", "y")),
        _image("acme/released:1", 900, tags=("acme/released:1", "registry.example.com/released:1")),
        _image("acme/pulled:1", 900, watched_since=None, last_used_at=None),
        _image("neighbours/app:1", 900),
        _image("dangling", 30, id="sha256:1", tags=(), image=None, remembered=dangling),
        _image("dangling-neighbours", 30, id="sha256:2", tags=(), image=None),
        _image("dangling-today", 20, id="sha256:3", tags=(), image=None, remembered=dangling),
        replace(_foreign(_running("server", 900)), image="acme/served:1"),
        _used(NETWORK, "old-network", 8 * days, labels=build),
        _used(NETWORK, "neighbours-network", 900),
        _used(VOLUME, "old-volume", 8 * days, labels=build),
        _used(VOLUME, "cache-volume", 2 * days, labels=build),
        _used(VOLUME, "neighbours-volume", 900),
        replace(CACHE, last_used_at=ago(days=3), size=60 << 30),
    ]
    gone = {"step", "acme/app:1", "dangling", "old-network", "old-volume", "build-cache"}
    assert _kept(tmp_path, "build.toml", world) == {one.name for one in world} - gone
    for cache in (
        replace(CACHE, last_used_at=ago(days=3), size=40 << 30),
        replace(CACHE, last_used_at=ago(days=1), size=60 << 30),
    ):
        assert _kept(tmp_path, "build.toml", [cache]) == {"build-cache"}

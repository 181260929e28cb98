"""What hypothesis makes: whole worlds of resources, rules, leases and a time. Whether they hold the promise of the rules of
deletion is told in ``tests/promise``; here they are what properties of single parts are tried with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from reaper.core.conditions import Policy
from reaper.core.decide import decide
from reaper.core.lease import Claim, Ending, Lease
from reaper.core.model import Action, Decision, Kind, Remembered, Resource, State
from reaper.core.rules import Rules
from reaper.core.scope import Protect, Scope, Selector
from tests.core.make import HARBOR_FILE, NOW, SECOND

T = TypeVar("T")
ZERO = timedelta(0)

PROPERTY = settings(
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

DIGEST = "sha256:" + "ab" * 32
TERMINAL_BENCH_IMAGES = (
    "tb__chess-best-move__client",
    "localhost:5000/tb__fix-git__client:1.2",
    f"docker.io/library/tb__hello__client:latest@{DIGEST}",
)
HARBOR_IMAGES = ("hb__swe-bench:latest", f"registry.example.com/hb__aime@{DIGEST}")
ACME_IMAGES = ("acme/worker:7", "registry.example/acme/tool")
OTHER_IMAGES = ("postgres:16", "tb__client", "someone/tb__x__client", "task__ab12cd3-main", DIGEST)
IMAGES = TERMINAL_BENCH_IMAGES + HARBOR_IMAGES + ACME_IMAGES + OTHER_IMAGES

PROJECT_FILES = "com.docker.compose.project.config_files"
HARBOR_FILES = (HARBOR_FILE, f"/srv/task/compose.yaml,{HARBOR_FILE.replace('build', 'prebuilt')}")
OTHER_FILES = ("/srv/shop/compose.yaml", f"{HARBOR_FILE}.bak,/srv/x.yaml")

LABEL_PATTERNS = ("bench", "team=rl", "run=my-*", "reaper.keep")
LABELS = (("bench", ""), ("team", "rl"), ("team", "rlx"), ("team", "web"), ("run", "my-sweep"), ("run", "yours"))
SIGNS = (("terminal-bench", ""), ("harbor.managed", "true"), ("harbor.managed", "false"))

TTLS = ("0s", "90m", "1d12h", "100d")
EXPIRIES = ("2026-11-21T06:00:00Z", "2026-11-21T13:00:00+01:00", "2027-01-01T00:00:00Z")
UNREADABLE_OVERRIDES = (
    ("reaper.ttl", "soon"),
    ("reaper.ttl", "-1h"),
    ("reaper.ttl", "90"),
    ("reaper.expires", "2026-11-21"),
)
KEEP_OVERRIDES = (("reaper.keep", ""), ("reaper.keep", "false"))
LEASE_IDS = ("lease-1", "lease-2", "elsewhere")

CONTAINER_STATES = {
    "running": State.RUNNING,
    "exited": State.STOPPED,
    "created": State.STOPPED,
    "paused": State.RUNNING,
    "restarting": State.RUNNING,
    "dead": State.FAILED,
    "removing": State.CHANGING,
    "weird": State.UNKNOWN,
}
SANDBOX_STATES = {
    "started": State.RUNNING,
    "stopped": State.STOPPED,
    "archived": State.STOPPED,
    "error": State.FAILED,
    "starting": State.CHANGING,
    "unknown": State.UNKNOWN,
}
SPANS = tuple(
    timedelta(seconds=seconds)
    for seconds in (-300, 0, 60, 599, 600, 1800, 3600, 10800, 21600, 25200, 86400, 90000, 260000, 3_500_000, 35_000_000)
)


Key = tuple[str, str]


def key(resource: Resource) -> Key:
    """What tells resources of several endpoints apart."""
    return resource.endpoint, resource.id


@dataclass(frozen=True)
class World:
    """All that decides."""

    resources: tuple[Resource, ...]
    rules: Rules
    leases: tuple[Lease, ...]
    now: datetime

    def decide(self, due: Sequence[str] | None = None) -> list[Decision]:
        return decide(self.resources, self.rules, self.leases, self.now, due)

    def ask(self, policies: tuple[Policy, ...]) -> "World":
        """The same world under other policies."""
        return replace(self, rules=replace(self.rules, policies=policies))


def often(usual: T, *others: T, weight: int = 4) -> st.SearchStrategy[T]:
    """One of ``others`` in about one of ``weight`` cases."""
    return st.sampled_from((usual,) * (weight - 1) * len(others) + others)


# A moment at or near one of the ages that matter; the long ones come up more often.
_AGES = st.sampled_from(tuple(span + near for span in (*SPANS, *SPANS[8:]) for near in (ZERO, ZERO, -SECOND, SECOND / 4)))
MOMENTS = _AGES.map(lambda age: NOW - age)
# What a label may add, most of the time nothing: a sign of ownership, a label override good or bad, a lease.
_OVERRIDES = (*(("reaper.ttl", text) for text in TTLS), *(("reaper.expires", text) for text in EXPIRIES))
_EXTRAS = (
    *LABELS,
    *SIGNS,
    *_OVERRIDES,
    *UNREADABLE_OVERRIDES,
    *KEEP_OVERRIDES,
    *(("reaper.lease", id_) for id_ in LEASE_IDS),
)
_MORE_LABELS = often(
    (), *((extra,) for extra in _EXTRAS), (_OVERRIDES[1], _OVERRIDES[4]), (_OVERRIDES[3], _OVERRIDES[5]), weight=5
)
_ODDITIES = often(
    "", "no labels", "no time", "unreadable", "system_container", "ryuk", "elsewhere", "remembered", "remembered", weight=14
)


@st.composite
def labels(draw: st.DrawFn, base: Mapping[str, str]) -> dict[str, str]:
    """``base`` and sometimes more."""
    return dict(base) | dict(draw(_MORE_LABELS)) | (dict(draw(_MORE_LABELS)) if base else {})


@st.composite
def odd(draw: st.DrawFn, resource: Resource) -> Resource:
    """Now and then a resource that lacks something, or is something special."""
    oddity, moment = draw(_ODDITIES), draw(MOMENTS)
    changes: dict[str, dict[str, Any]] = {
        "no labels": {"labels": None},
        "no time": {"created_at": None},
        "unreadable": {"unreadable": "a row without an id"},
        "system_container": {"system_container": "a Kubernetes pod"},
        "remembered": {"remembered": Remembered("preset harbor", moment)},
    }
    if resource.kind is Kind.SANDBOX:
        changes["elsewhere"] = {"excluded": "in target eu, and the endpoint is limited to us"}
    else:
        changes["ryuk"] = {"system_container": "the reaper of Testcontainers"}
    return replace(resource, **changes.get(oddity, {}))


_RAW_CONTAINER = st.sampled_from((*["exited"] * 8, *["running"] * 6, *CONTAINER_STATES))
_RAW_SANDBOX = st.sampled_from((*["started"] * 4, *["stopped"] * 3, *SANDBOX_STATES))
_PARTS = st.sampled_from((0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.5, 0.9, 1.0))
_NAMES = st.sampled_from(("trial-{}", "trial-{}", "work-{}", "work-{}", "trial-{}-db", "work-{}-db"))
_IMAGES = st.sampled_from(IMAGES + TERMINAL_BENCH_IMAGES * 3 + HARBOR_IMAGES)
_OF_IMAGES = (*(key for key, _ in SIGNS), "reaper.lease", "reaper.ttl", "reaper.expires", "bench", "team", "run")
_INHERITED = often(
    frozenset(), frozenset({"reaper.lease"}), frozenset(_OF_IMAGES), *(frozenset({key}) for key in _OF_IMAGES), weight=4
)
_RESTART = often("no", "always", "unless-stopped", "on-failure", weight=6)
_ACTIVITY = often(NOW - timedelta(hours=3), None, NOW, NOW - timedelta(days=9), weight=2)
_SANDBOX_LABELS = often({"harbor.managed": "true"}, {}, weight=3)


@st.composite
def containers(
    draw: st.DrawFn, id_: str, endpoint: str = "local", group: str | None = None, base: Mapping[str, str] | None = None
) -> Resource:
    """An inspected container in any state; its times fit together."""
    raw = draw(_RAW_CONTAINER)
    created = draw(MOMENTS)
    part = draw(_PARTS)
    started = None if raw == "created" else created + (NOW - created) * part
    stopped = None
    if started is not None and raw in {"exited", "dead", "removing"}:
        part = draw(_PARTS)
        stopped = None if part == 1 else started + (NOW - started) * part
    return draw(
        odd(
            Resource(
                provider="docker",
                endpoint=endpoint,
                kind=Kind.CONTAINER,
                id=id_,
                name=draw(_NAMES).format(id_),
                state=CONTAINER_STATES[raw],
                raw_state=raw,
                created_at=created,
                started_at=started,
                stopped_at=stopped,
                labels=draw(labels(base or {})),
                image=draw(_IMAGES),
                group=group,
                restart_policy=draw(_RESTART),
                inherited=draw(_INHERITED),
            )
        )
    )


@st.composite
def networks(draw: st.DrawFn, id_: str, endpoint: str, group: str | None, base: Mapping[str, str] | None = None) -> Resource:
    """A network; networks have no state."""
    return draw(
        odd(
            Resource(
                provider="docker",
                endpoint=endpoint,
                kind=Kind.NETWORK,
                id=id_,
                name=f"{group}_{id_}",
                state=State.STOPPED,
                raw_state="unattached",
                created_at=draw(MOMENTS),
                labels=draw(labels(base or {})),
                group=group,
                remembered=Remembered("preset terminal-bench", draw(MOMENTS)) if draw(st.booleans()) else None,
            )
        )
    )


_LATELY = st.one_of(st.just(NOW - SECOND), MOMENTS)  # so that many were made under one of the leases
_OF_FIRST = {"reaper.lease": "lease-1", "reaper.lease.image": "lease-1"}
_LEASE_LABELS = often(_OF_FIRST, {}, {"reaper.lease": "lease-2"}, {"reaper.lease": "lease-1"}, {"bench": ""}, weight=3)
_TAGS = st.sampled_from(((), ("made:1",), ("made:1",), ("made:1", ACME_IMAGES[0]), TERMINAL_BENCH_IMAGES[:1]))


@st.composite
def left_things(draw: st.DrawFn, id_: str, endpoint: str = "local", group: str | None = None) -> Resource:
    """A volume, or an image."""
    is_image = id_.startswith("i")
    tags = draw(_TAGS) if is_image else ()
    return draw(
        odd(
            Resource(
                provider="docker",
                endpoint=endpoint,
                kind=Kind.IMAGE if is_image else Kind.VOLUME,
                id=id_,
                name=draw(_NAMES).format(id_),
                state=State.STOPPED,
                raw_state="present",
                created_at=draw(_LATELY),
                created_at_inexact=not is_image and draw(st.booleans()),
                labels=draw(labels(draw(_LEASE_LABELS))),
                image=tags[0] if tags else None,
                tags=tags,
                group=group,
            )
        )
    )


@st.composite
def sandboxes(draw: st.DrawFn, id_: str, group: str | None = None) -> Resource:
    """A Daytona sandbox, often one of Harbor's."""
    raw = draw(_RAW_SANDBOX)
    state = SANDBOX_STATES[raw]
    return draw(
        odd(
            Resource(
                provider="daytona",
                endpoint="rl-org",
                kind=Kind.SANDBOX,
                id=id_,
                name=f"trial-{id_}",
                state=state,
                raw_state=raw,
                created_at=draw(MOMENTS),
                stopped_at=draw(MOMENTS) if state in {State.STOPPED, State.FAILED} else None,
                last_activity_at=draw(_ACTIVITY),
                labels=draw(labels(draw(_SANDBOX_LABELS))),
                group=group,
            )
        )
    )


_GROUP_LABELS = st.sampled_from(((), LABELS[:2], LABELS[:2], (SIGNS[0],), (SIGNS[0],), LABELS[1:2]))
_CONFIG_FILES = st.sampled_from((None, None, *HARBOR_FILES * 2, *OTHER_FILES))
_ENDPOINTS = st.sampled_from(("local", "local", "gpu-1"))
_LEFT = st.sampled_from((0, 1, 1, 2, 2, 3))
_LEFT_KINDS = st.sampled_from(("", "v", "i", "vi"))


@st.composite
def groups(draw: st.DrawFn, number: int) -> list[Resource]:
    """A Compose project or a Harbor session with its networks; sometimes its containers are gone."""
    if draw(st.integers(0, 5)) == 0:
        return [draw(sandboxes(f"s{number}{i}", f"session-{number}")) for i in range(draw(st.integers(1, 3)))]
    endpoint = draw(_ENDPOINTS)
    group = f"project-{draw(st.integers(0, number))}"  # the same name may live on two endpoints
    base = dict(draw(_GROUP_LABELS))
    files = draw(_CONFIG_FILES)
    marked = base | ({PROJECT_FILES: files} if files else {})
    found = [draw(containers(f"c{number}{i}", endpoint, group, marked)) for i in range(draw(_LEFT))]
    plain = base if draw(st.booleans()) else {}
    found += [draw(networks(f"n{number}{i}", endpoint, group, plain)) for i in range(draw(st.integers(0, 2)))]
    found += [draw(left_things(f"{kind}{number}", endpoint, group)) for kind in draw(_LEFT_KINDS)]
    return found


_RARELY = often(False, True, weight=3)


@st.composite
def inventories(draw: st.DrawFn, *, links: bool = True) -> tuple[Resource, ...]:
    """What a listing of all endpoints returns, in any order, with who uses what."""
    found: list[Resource] = []
    for number in range(draw(st.integers(0, 3))):
        found += draw(groups(number))
    found += [draw(containers(f"a{i}")) for i in range(draw(st.integers(0, 3)))]
    found += [draw(sandboxes(f"z{i}")) for i in range(draw(st.integers(0, 2)))]
    if draw(st.integers(0, 7)) == 0:
        found.append(draw(networks("n9", "local", None)))
    found += [draw(left_things(f"{kind}9")) for kind in draw(_LEFT_KINDS)]
    if links and found:
        one_id = st.sampled_from([*(resource.id for resource in found), "gone"])
        users = [i for i, resource in enumerate(found) if resource.kind is Kind.CONTAINER]
        for i in users:
            uses = frozenset({draw(one_id)} if draw(_RARELY) else ())
            own = {r.id for r in found if r.kind is Kind.NETWORK and r.group == found[i].group}
            found[i] = replace(found[i], uses=uses | own)
    return tuple(draw(st.permutations(found)))


def selectors(weight: int = 2) -> st.SearchStrategy[Selector]:
    """Few entries, from the tables; an empty one in most cases where ``weight`` is high."""
    return st.builds(
        Selector,
        labels=often((), *((pattern,) for pattern in LABEL_PATTERNS), ("bench", "team=rl"), weight=weight),
        names=often((), ("trial-*",), ("*-db",), ("trial-*", "*-db"), weight=weight),
        images=often((), ("acme/*",), ("*worker*", "acme/*"), weight=weight),
    )


SCOPES = st.builds(
    Scope,
    presets=often(("terminal-bench", "harbor"), ("harbor",), ("terminal-bench",), (), weight=3),
    selector=selectors(),
    everything=often(False, True, weight=5),
)
PROTECTIONS = st.builds(
    Protect,
    selector=often(Selector(labels=("reaper.keep",)), Selector(names=("*-db",)), Selector(images=("acme/*",)), weight=3),
    restart_policies=often(("always", "unless-stopped"), (), weight=4),
)
_LIMITS = st.sampled_from([timedelta(0), timedelta(minutes=10), *(timedelta(hours=h) for h in (1, 1, 6, 6, 8, 24))])
_KINDS = st.sampled_from([frozenset({Kind.CONTAINER}), frozenset({Kind.CONTAINER, Kind.SANDBOX})])


_CONDITIONS = st.sampled_from(("older", "older", "stopped", "stopped", "both", "idle", "state", "state"))
_POLICY_STATES = st.sampled_from((frozenset({"exited"}), frozenset({"running", "archived"}), frozenset({"failed"})))
_POLICY_ENDPOINTS = often(frozenset[str](), frozenset({"local"}), weight=6)
_POLICY_SELECTORS = often((), (Selector(labels=("bench",)),), (Selector(names=("trial-*",)),), weight=5)


@st.composite
def policies(draw: st.DrawFn) -> tuple[Policy, ...]:
    """One to four policies of the ordinary sort, each with at least one condition."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        condition = draw(_CONDITIONS)
        found.append(
            Policy(
                name=f"policy-{number}",
                kinds=frozenset({Kind.SANDBOX}) if condition == "idle" else draw(_KINDS),
                older_than=draw(_LIMITS) if condition in {"older", "both"} else None,
                stopped_for=draw(_LIMITS) if condition in {"stopped", "both"} else None,
                idle_for=draw(_LIMITS) if condition == "idle" else None,
                states=draw(_POLICY_STATES) if condition == "state" else frozenset(),
                endpoints=draw(_POLICY_ENDPOINTS),
                selectors=draw(_POLICY_SELECTORS),
            )
        )
    return tuple(found)


_CLAIMS = often(
    (),
    (Claim(Selector(labels=("bench",))),),
    (Claim(Selector(names=("trial-*",)), projects=("project-0",)),),
    (Claim(projects=("project-1",)),),
    (Claim(projects=("project-*",)),),
    (Claim(), Claim(Selector(images=("acme/*",)))),
    weight=2,
)
_ENDINGS = often(
    None,
    *(Ending(NOW - span, "killed") for span in SPANS[:4]),
    *(Ending(NOW - span, "killed", NOW - heard) for span, heard in zip(SPANS[:4], SPANS[2:6], strict=True)),
    weight=2,
)
LEASES = st.lists(
    st.builds(
        Lease,
        id=st.sampled_from(LEASE_IDS[:2]),
        owner=st.just("pid 4711 on gpu-1"),
        resources=st.frozensets(st.sampled_from(("c00", "c10", "n00", "a0", "z0", "v9", "unknown")), max_size=2),
        claims=_CLAIMS,
        since=often(None, *(NOW - span for span in SPANS), weight=2),
        ending=_ENDINGS,
    ),
    max_size=2,
    unique_by=lambda lease: lease.id,
)


_GRACES = often(timedelta(minutes=10), timedelta(0), timedelta(minutes=40), weight=2)
_MAX_LEASES = often(timedelta(hours=24), timedelta(hours=2), weight=2)


@st.composite
def worlds(draw: st.DrawFn, *, links: bool = True) -> World:
    """Everything that decides, at NOW."""
    return World(
        resources=draw(inventories(links=links)),
        rules=Rules(
            scope=draw(SCOPES),
            protect=draw(PROTECTIONS),
            policies=draw(policies()),
            created_grace=draw(_GRACES),
            max_lease=draw(_MAX_LEASES),
        ),
        leases=tuple(draw(LEASES)),
        now=NOW,
    )


_POSSIBLE = {
    Action.STOP: frozenset({Kind.CONTAINER, Kind.SANDBOX}),
    Action.ARCHIVE: frozenset({Kind.SANDBOX}),
    Action.DELETE: frozenset(Kind),
}


@st.composite
def worlds_with_actions(draw: st.DrawFn) -> World:
    """A world some of whose policies only stop or archive, and in which a stop destroys some of what there is."""
    world = draw(worlds())
    policies = []
    for policy in world.rules.policies:
        action = draw(st.sampled_from([action for action, kinds in _POSSIBLE.items() if policy.kinds <= kinds]))
        states = policy.states if action is Action.DELETE else frozenset[str]()
        policies.append(replace(policy, action=action, states=states, every_resource=False))
    lost = st.sampled_from([False, False, False, True, None])
    resources = tuple(replace(r, lost_when_stopped=draw(lost)) if r.kind.runs else r for r in world.resources)
    return replace(world.ask(tuple(policies)), resources=resources)

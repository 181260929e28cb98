"""What hypothesis makes: worlds as engines and the platform hold them, with what people and runners do to each other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st

from tests.promise import oracle
from tests.promise.truth import (
    BOOTED,
    CONFIG_FILES,
    INSTANCE,
    LIVING,
    NOW,
    NUMBER,
    OF_LAST_BOOT,
    OF_REUSED,
    ONEOFF,
    PROJECT,
    REUSED,
    SESSION,
    UNPROVEN,
    WORKING_DIR,
    Claim,
    Config,
    Container,
    Image,
    Lease,
    Network,
    Pod,
    Policy,
    Sandbox,
    Volume,
    World,
)

T = TypeVar("T")

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SECOND = timedelta(seconds=1)
REFERENCES = (*sorted(oracle.IS_TERMINAL_BENCH), *sorted(oracle.IS_HARBOR), *sorted(oracle.IS_ACME), "postgres:16", "tb__x")
AGES = (5 * MINUTE, 11 * MINUTE, 2 * HOUR, 7 * HOUR, 9 * HOUR, 25 * HOUR, 30 * HOUR, 12 * DAY, 300 * DAY)
IMPOSSIBLE = (
    datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC),
    datetime(2012, 12, 31, tzinfo=UTC),
    NOW + 400 * DAY,
    datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
)
LEASES = ("run-1", "run-2", "unknown")
SIGNS = (
    {"terminal-bench": ""},
    {"terminal-bench": ""},
    {"harbor.managed": "true"},
    {"harbor.managed": "false"},
    {"bench": ""},
    {"team": "rl"},
    {"team": "web"},
    {"run": "my-sweep"},
    {PROJECT: "chess"},  # given by hand: Compose has not made it
)
OVERRIDES = (
    *({"reaper.ttl": text} for text in oracle.TTLS),
    *({"reaper.expires": text} for text in oracle.EXPIRIES),
    *({name: text} for name, text in sorted(oracle.UNREADABLE_OVERRIDES)),
    {"reaper.ttl": "100d", "reaper.expires": "2026-11-21T06:00:00Z"},
    {"reaper.ttl": "100d"},
    {"reaper.ttl": "100d"},
    {"reaper.expires": "2026-11-21T06:00:00Z"},
    {"reaper.expires": "2026-11-21T06:00:00Z"},
    {"reaper.keep": ""},
    {"reaper.keep": ""},
    {"reaper.keep": "false"},
)
SYSTEMS = (
    {"com.docker.swarm.service.id": "x"},
    {"io.kubernetes.pod.name": "x"},
    {"io.x-k8s.kind.cluster": "kind"},
    {"com.hashicorp.nomad.alloc_id": "x"},
    {"com.amazonaws.ecs.task-arn": "x"},
)
ODD_CONTAINER: tuple[Mapping[str, object], ...] = (
    {"list.Created": 10**20},
    {"list.Created": "yesterday"},
    {"list.Created": -(10**18)},
    {"list.Labels": [1]},
    {"list.Labels": {"terminal-bench": 7}},
    {"list.Id": 7},
    {"inspect.Created": "9999-12-31T23:59:59.999999999-14:00"},
    {"inspect.Created": 5},
    {"inspect.State.StartedAt": "soon", "inspect.State.FinishedAt": {}},
    {"inspect.HostConfig.RestartPolicy": None},
    {"inspect.HostConfig.RestartPolicy": {"Name": 7}},
    {"inspect.HostConfig": ...},
    {"inspect.Config.Labels": "none"},
    {"inspect.State": []},
)
ODD_SANDBOX: tuple[Mapping[str, object], ...] = (
    {"row.createdAt": 10**20},
    {"row.createdAt": "9999-12-31T23:59:59-14:00"},
    {"row.lastActivityAt": "soon"},
    {"row.updatedAt": ["x"]},
    {"row.labels": [1]},
    {"row.labels": {"harbor.managed": True}},
    {"row.state": 7},
    {"row.id": None},
    {"row.desiredState": "destroyed"},
)


def rarely(usual: T, *others: T, weight: int) -> st.SearchStrategy[T]:
    """One of ``others`` in about one of ``weight`` cases."""
    return st.sampled_from((usual,) * ((weight - 1) * len(others)) + others)


def ident(number: int) -> str:
    """An id as the engine makes them."""
    return f"{number:02x}" * 32


def _moment(span: timedelta) -> datetime:
    return NOW - span


_AGES = st.sampled_from(AGES)
_STATES = st.sampled_from(
    ("running",) * 6 + ("exited",) * 6 + ("created",) * 3 + ("paused", "restarting", "dead", "removing", "weird")
)
_EXTRAS = rarely(
    {},
    *SIGNS,
    *SIGNS,
    *OVERRIDES,
    *({"reaper.lease": lease} for lease in LEASES * 4),
    *[{"reaper.lease": "unknown"}] * 6,
    weight=3,
)
_RARE_EXTRAS = rarely({}, *SIGNS, *OVERRIDES, *({"reaper.lease": lease} for lease in LEASES * 2), weight=6)
_IMAGE_EXTRAS = rarely({}, *SIGNS, *OVERRIDES, *({"reaper.lease": lease} for lease in LEASES * 3), weight=3)
_REFERENCES = st.sampled_from((*REFERENCES, *sorted(oracle.IS_TERMINAL_BENCH) * 2))
_RESTART = rarely("no", "always", "unless-stopped", "on-failure", "", None, weight=3)
_NAMES = st.sampled_from(("trial-{}", "trial-{}", "work-{}", "work-{}", "trial-{}-db", "work-{}-db"))
_SYSTEM = rarely({}, *SYSTEMS, weight=14)
# The third is a task's that is called k8s.
_SYSTEM_NAMES = ("buildx_buildkit_{}", "k8s_c_pod-{}_ns_f81d4fae-7dec-11d0-a765-00a0c91e6bf6_0", "k8s__a1b2c3d-main-{}")


@dataclass(frozen=True)
class _Project:
    """A Compose project: what Compose gives to all of its containers."""

    name: str
    folder: str | None
    files: str

    def labels(self, service: str, number: str, *, oneoff: bool = False) -> dict[str, str]:
        found = {PROJECT: self.name, "com.docker.compose.service": service, CONFIG_FILES: self.files}
        if self.folder is not None:
            found[WORKING_DIR] = self.folder
        return found | ({ONEOFF: "True"} if oneoff else {NUMBER: number})


PROJECTS = (
    _Project("chess", "/srv/a", "/srv/a/compose.yaml"),
    _Project("chess", "/srv/b", "/srv/b/compose.yaml"),
    _Project("zz__1", "/srv/z", "/srv/z/compose.yaml"),
    _Project(oracle.MADE_UP, "/srv/t", min(oracle.IS_HARBOR_FILE)),
)


@st.composite
def _times(draw: st.DrawFn, state: str) -> tuple[datetime, datetime | None, datetime | None]:
    """When it was created, started, and stopped."""
    age = draw(_AGES)
    created = _moment(age)
    started = None if state == "created" else created + age * draw(st.sampled_from((0.0, 0.0, 0.0, 0.5, 0.9)))
    finished = None
    if started is not None and state in ("exited", "dead", "removing"):
        finished = started + (NOW - started) * draw(st.sampled_from((0.0, 0.0, 0.5, 0.9)))
    match draw(rarely("", "created", "started", "finished", "soon", "no start", weight=14)):
        case "created":
            created = draw(st.sampled_from(IMPOSSIBLE))
        case "started" if started is not None:
            started = draw(st.sampled_from(IMPOSSIBLE))
        case "finished" if finished is not None:
            finished = draw(st.sampled_from(IMPOSSIBLE))
        case "soon":
            created, started = NOW + 5 * MINUTE, (None if started is None else NOW + 5 * MINUTE)
            finished = finished and NOW + 5 * MINUTE
        case "no start":
            started = None
    return created, started, finished


@st.composite
def _container(draw: st.DrawFn, number: int, image: Image, reference: str, labels: Mapping[str, str]) -> Container:
    state = draw(_STATES)
    created, started, finished = draw(_times(state))
    given = {**image.labels, **labels, **draw(_SYSTEM)}
    return Container(
        id=ident(number),
        name=draw(rarely(draw(_NAMES).format(number), *(name.format(number) for name in _SYSTEM_NAMES), weight=30)),
        image=reference,
        image_id=image.id,
        labels=given,
        state=state,
        created=created,
        started=started,
        finished=finished,
        exit_code=draw(st.sampled_from((0, 0, 1, 137, None))),
        restart=draw(_RESTART),
        auto_remove=state in ("running", "paused") and draw(rarely(False, True, weight=8)),
        odd=draw(rarely({}, *ODD_CONTAINER, weight=20)),
    )


class _Made:
    """What has been made of an engine so far.

    Attributes:
        references: by the id of an image, what its containers' creators called it.
    """

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.images: list[Image] = []
        self.references: dict[str, str] = {}
        self.containers: list[Container] = []
        self.networks: list[Network] = []
        self.volumes: list[Volume] = []

    def image(self, reference: str, labels: Mapping[str, str], *, tagged: bool = True) -> Image:
        """Another image."""
        tags = (reference,) if tagged else ()
        found = Image(f"sha256:{ident(200 + len(self.images))}", tags, dict(labels), _moment(self.draw(_AGES)))
        self.images.append(found)
        self.references[found.id] = reference
        return found

    def project(self, project: _Project) -> None:
        """A project's network and containers; some of what Compose builds itself, which it labels."""
        draw = self.draw
        shown = draw(rarely(project, replace(project, folder=None), weight=10))
        net = f"{project.name}_default"
        if draw(st.booleans()) and not any(network.name == net for network in self.networks):
            labels = {PROJECT: project.name, "com.docker.compose.network": "default", **draw(_RARE_EXTRAS)}
            self.networks.append(Network(ident(100 + len(self.networks)), net, labels, _moment(draw(_AGES))))
        for number in range(draw(st.sampled_from((0, 1, 2, 2, 3)))):
            reference = draw(_REFERENCES)
            built = {PROJECT: project.name, "com.docker.compose.service": f"s{number}"} if draw(st.booleans()) else {}
            image = self.image(reference, {**built, **draw(_RARE_EXTRAS)})
            labels = {**shown.labels(f"s{number}", str(number + 1), oneoff=draw(st.booleans())), **draw(_RARE_EXTRAS)}
            made = draw(_container(len(self.containers), image, reference, labels))
            if any(network.name == net for network in self.networks) and draw(st.booleans()):
                made = replace(made, networks=(net,), network_mode=net)
            self.containers.append(_in_a_group(made))

    def namesakes(self) -> None:
        """A runner's project and another user's of that name, in two folders: long ended, and nothing of them is odd."""
        for project, reference in zip(PROJECTS, ("tb__chess__client", "postgres:16"), strict=False):
            image, created = self.image(reference, {}), _moment(self.draw(st.sampled_from(AGES[5:])))
            labels, number = project.labels("s0", "1"), len(self.containers)
            name, times = self.draw(_NAMES).format(number), (created, created, created)
            self.containers.append(Container(ident(number), name, reference, image.id, labels, "exited", *times))

    def pod(self, number: int) -> Pod:
        """A pod, of a whole project, of any containers, or of none."""
        draw = self.draw
        id_, of = ident(150 + number), draw(st.sampled_from(("project", "project", "any", "plain", "none")))
        free = [one for one in self.containers if one.pod is None]
        if of == "project":
            project = next((name for one in free if (name := (one.labels or {}).get(PROJECT))), None)
            inside = [one for one in free if project is not None and (one.labels or {}).get(PROJECT) == project]
        else:
            fits = [one for one in free if of == "any" or (of == "plain" and PROJECT not in (one.labels or {}))]
            inside = draw(st.lists(st.sampled_from(fits), max_size=3, unique_by=lambda one: one.id)) if fits else []
        names = {one.id for one in inside}
        self.containers = [replace(one, pod=id_) if one.id in names else one for one in self.containers]
        infra = draw(st.sampled_from((ident(160 + number), None)))
        name = draw(st.sampled_from(("trial-pod", "work-pod", "pod-db")))
        return Pod(id_, f"{name}-{number}", draw(_EXTRAS), _moment(draw(_AGES)), infra)

    def single(self) -> None:
        """A container that Compose has not made: of a plain image, or of one with labels, as ``docker commit`` makes."""
        draw = self.draw
        reference, labels = draw(_REFERENCES), draw(_EXTRAS)
        kind = draw(st.sampled_from(("plain", "plain", "labelled image", "committed", "of its image", "image is gone")))
        base = draw(st.sampled_from(self.containers)) if self.containers else None
        if kind == "labelled image":
            image = self.image(reference, draw(_IMAGE_EXTRAS))
        elif kind == "committed" and base is not None:
            reference = draw(st.sampled_from(("acme/worker:7", "postgres:16")))
            image = self.image(reference, base.labels or {}, tagged=draw(st.booleans()))
        elif kind == "of its image" and base is not None:
            image = next(image for image in self.images if image.id == base.image_id)
        else:
            image = self.image(reference, {})
        made = draw(_container(len(self.containers), image, self.references[image.id], labels))
        if kind == "image is gone" and not made.odd:
            self.images[self.images.index(image)] = replace(image, missing=True)
        self.containers.append(made)

    def volume(self) -> None:
        """A volume, which a container may have."""
        draw, name = self.draw, f"data-{len(self.volumes)}"
        labels = draw(st.sampled_from(({}, {"reaper.lease": "run-1"}, {"reaper.lease": "run-1"}, {"reaper.lease": "run-2"})))
        labels = {**labels, **draw(_RARE_EXTRAS), **draw(st.sampled_from(({}, {}, {PROJECT: "chess"})))}
        self.volumes.append(Volume(name, labels, _moment(draw(_AGES))))
        user = draw(st.integers(0, 3 * len(self.containers)))
        if user < len(self.containers):
            self.containers[user] = replace(self.containers[user], volumes=(name,))


_Grouped = TypeVar("_Grouped", Container, Sandbox)


def _in_a_group(one: _Grouped) -> _Grouped:
    """It with labels that can be read: else nothing tells of its group."""
    return replace(one, odd={}) if any("abels" in place for place in one.odd) else one


@st.composite
def _engine(draw: st.DrawFn, world: World) -> World:
    """Images; containers of them, alone and in projects; what is committed of one; and who depends on whom."""
    made = _Made(draw)
    some = st.lists(st.sampled_from(PROJECTS), max_size=2, unique=True)
    if draw(rarely(False, True, weight=12)):
        made.namesakes()
    else:
        for project in draw(st.one_of(some, some, some, st.just(list(PROJECTS[:2])))):  # the two of one name more often
            made.project(project)
    for _ in range(draw(st.sampled_from((1, 2, 3, 4, 5)))):
        made.single()
    for number, one in enumerate(made.containers):
        others = [other for other in made.containers if other.id != one.id]
        made.containers[number] = draw(_related(one, others, made.networks))
    for _ in range(draw(st.integers(0, 2))):
        made.volume()
    podman = draw(rarely(False, True, weight=3))
    pods = [made.pod(number) for number in range(draw(st.integers(0, 2)))] if podman else []
    return replace(
        world,
        images=tuple(made.images),
        containers=tuple(draw(st.permutations(made.containers))),
        networks=tuple(made.networks),
        volumes=tuple(made.volumes),
        pods=tuple(pods),
        podman=podman,
    )


@st.composite
def _related(draw: st.DrawFn, one: Container, others: list[Container], networks: list[Network]) -> Container:
    """Sometimes it depends on another one, or is on another's network."""
    way = draw(rarely("", "network_mode", "pid_mode", "ipc_mode", "links", "volumes_from", "cgroup", "networks", weight=5))
    if way == "networks" and networks:
        net = draw(st.sampled_from(networks)).name
        return replace(one, networks=tuple({*one.networks, net}), network_mode=net)
    if not way or way == "networks" or not others:
        return one
    other = draw(st.sampled_from(others))
    by = draw(st.sampled_from((other.name, other.id, other.id[:12], f"{other.name}:ro")))
    changes: Mapping[str, Mapping[str, Any]] = {
        "links": {"links": (f"/{other.name}:/{one.name}/alias",)},
        "volumes_from": {"volumes_from": (by,)},
        "network_mode": {"network_mode": f"container:{other.id}", "networks": ()},
        "pid_mode": {"pid_mode": f"container:{other.id}"},
        "ipc_mode": {"ipc_mode": f"container:{other.id}"},
        "cgroup": {"cgroup_parent": f"/docker/{other.id}"},
    }
    return replace(one, **changes[way])


_SANDBOX_STATES = st.sampled_from(
    ("started",) * 5
    + ("stopped",) * 4
    + ("archived", "error", "build_failed", "creating", "destroying", "unknown", "new-state")
)
_RUNNERS = st.sampled_from(("runner-1", "runner-2"))
_SESSIONS = st.sampled_from((None, None, None, "s1", "s1", "s2"))
_INSTANCES = st.sampled_from((None, None, None, None, "i1", "i1", "i2"))


@st.composite
def _sandboxes(draw: st.DrawFn) -> tuple[Sandbox, ...]:
    found: list[Sandbox] = []
    for number in range(draw(st.sampled_from((1, 2, 3, 4, 5, 6)))):
        age = draw(_AGES)
        created = _moment(age)
        labels = {**draw(rarely({"harbor.managed": "true"}, {}, weight=4)), **draw(_RARE_EXTRAS)}
        if (session := draw(_SESSIONS)) is not None:
            labels[SESSION] = session
            if (instance := draw(_INSTANCES)) is not None:
                labels[INSTANCE] = instance
        elif draw(st.booleans()):
            labels[INSTANCE] = f"instance-{number}"
        active = created + age * draw(st.sampled_from((0.0, 0.5, 0.9)))
        if draw(rarely("", "1970", weight=30)):
            created = IMPOSSIBLE[draw(st.integers(0, 3))]
        state = draw(_SANDBOX_STATES)
        found.append(
            Sandbox(
                id=f"box-{number}",
                name=f"trial-box-{number}",
                labels=draw(rarely(labels, None, weight=10)),
                state=state,
                created=draw(rarely(created, None, weight=25)),
                updated=active + draw(rarely(timedelta(0), age / 20, weight=10)),
                active=draw(rarely(active, None, weight=5)),
                wanted=draw(rarely(None, "destroyed", "stopped", weight=20)),
                target=draw(rarely("us", "eu", weight=4)),
                runner=None if state == "archived" else draw(_RUNNERS),
                linked=f"box-{draw(st.integers(0, number - 1))}" if number and draw(st.integers(0, 3)) == 0 else None,
                warm=draw(rarely(False, True, weight=30)),
                auto_stop=draw(st.sampled_from((15, 0, 0, 90, None))),
                auto_delete=draw(rarely(-1, 0, weight=8)),
                odd=draw(rarely({}, *ODD_SANDBOX, weight=25)),
            )
        )
    return tuple(_possible(sandbox, found) for sandbox in found)


def _possible(sandbox: Sandbox, others: list[Sandbox]) -> Sandbox:
    """It, linked only to one that was there before it."""
    if SESSION in (sandbox.labels or {}):
        sandbox = _in_a_group(sandbox)
    owner = next((other for other in others if other.id == sandbox.linked), None)
    known = owner is not None and None not in (owner.created, sandbox.created) and str(owner.created) < str(sandbox.created)
    return sandbox if known else replace(sandbox, linked=None)


_CLAIMS = (
    Claim(),
    Claim(labels=("bench",)),
    Claim(names=("trial-*",)),
    Claim(names=("trial-*",)),
    Claim(names=("trial-*",), projects=("chess",)),
    Claim(projects=("chess",)),
    Claim(projects=("zz__*",)),
    Claim(images=("acme/*",)),
)


@st.composite
def leases(draw: st.DrawFn, id_: str, *, ended: bool | None = None) -> Lease:
    """One that lives or has ended; it began before, after or while what there is was made, never within a minute of that."""
    since = _moment(
        draw(st.sampled_from((31 * DAY, 13 * DAY, 26 * HOUR, 8 * HOUR, 3 * HOUR, HOUR, 6 * MINUTE))) + 30 * SECOND
    )
    lives = draw(st.booleans()) if ended is None else not ended
    end = heard = None
    if not lives:
        ends = [span for span in (30 * HOUR + 30 * MINUTE, 8 * HOUR, 3 * HOUR, 8 * MINUTE, MINUTE) if NOW - span > since]
        end = NOW - draw(st.sampled_from(ends)) if ends else NOW - SECOND
        heard = draw(
            st.sampled_from((None, *(NOW - span for span in (8 * HOUR, 3 * HOUR, 8 * MINUTE) if since < NOW - span < end)))
        )
    return Lease(
        id_,
        since,
        end,
        heard,
        claims=tuple(draw(st.lists(st.sampled_from(_CLAIMS), max_size=2))),
        resources=draw(rarely(frozenset(), frozenset({ident(0)}), frozenset({ident(1), "box-0"}), weight=6)),
        elsewhere=draw(rarely(False, True, weight=5)),
    )


_SPANS = st.sampled_from((MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, 8 * HOUR, DAY))
_POLICY_KINDS = st.sampled_from((("container",), ("container",), ("container", "sandbox")))


@st.composite
def _policy(draw: st.DrawFn, number: int, part: str) -> Policy:
    kinds = draw(_POLICY_KINDS) if part == "engine" else ("sandbox",)
    window = draw(rarely(None, *WINDOWS, weight=4))
    if draw(rarely(False, True, weight=4)):
        window = draw(st.sampled_from(WINDOWS[:4]))  # twelve hours at most
        return _excluding(draw, Policy(f"policy-{number}", kinds, everything=True, window=window))
    labels, names = draw(rarely((), ("bench",), ("team=rl",), weight=4)), draw(rarely((), ("trial-*",), weight=8))
    codes: tuple[str | int, ...] = ()
    codes = draw(rarely((), ("nonzero",), ("zero",), (137,), weight=3)) if kinds == ("container",) else ()
    conditions = ("older", "older", "stopped", "stopped", "both", "state") + (("idle",) * 6 if kinds == ("sandbox",) else ())
    condition = draw(st.sampled_from(conditions))
    policy = Policy(
        f"policy-{number}",
        kinds,
        _action(draw, kinds, can_stop=condition not in ("stopped", "both") and not codes),
        older_than=draw(_SPANS) if condition in ("older", "both") else None,
        stopped_for=draw(_SPANS) if condition in ("stopped", "both") else None,
        idle_for=max(draw(_SPANS), 5 * MINUTE) if condition == "idle" else None,
        keepalive=condition == "idle" and draw(st.booleans()),
        states=draw(st.sampled_from((("exited",), ("running", "archived"), ("failed",)))) if condition == "state" else (),
        labels=labels,
        names=names,
        exit_codes=codes,
        exclusive=bool(labels or names) and draw(st.booleans()),
        window=window,
    )
    return _excluding(draw, policy)


def _action(draw: st.DrawFn, kinds: tuple[str, ...], *, can_stop: bool) -> str:
    others = (["stop"] if can_stop else []) + (["archive"] if kinds == ("sandbox",) else [])
    return draw(rarely("delete", *others, weight=3)) if others else "delete"


def _excluding(draw: st.DrawFn, policy: Policy) -> Policy:
    return replace(
        policy,
        exclude_labels=draw(rarely((), *((pattern,) for pattern in oracle.LABEL_PATTERNS), weight=3)),
        exclude_names=draw(rarely((), ("*-db",), weight=8)),
        exclude_images=draw(rarely((), ("acme/*",), weight=8)),
    )


WINDOWS = (
    ("11:00", "13:00"),
    ("01:00", "12:30"),
    ("02:00", "05:00"),
    ("22:00", "04:00"),
    ("22:00", "12:30"),
)  # it is noon there
BOTH = ("container", "sandbox")
ORDINARY = (Policy("old", BOTH, older_than=DAY), Policy("stopped", BOTH, stopped_for=6 * HOUR))
IDLE = (Policy("idle", ("sandbox",), idle_for=2 * HOUR, keepalive=True),)  # as one of the default policies


@st.composite
def _config(draw: st.DrawFn, part: str) -> Config:
    return Config(
        presets=draw(rarely(("terminal-bench", "harbor"), ("harbor",), ("terminal-bench",), (), weight=4)),
        labels=draw(rarely((), *((pattern,) for pattern in oracle.LABEL_PATTERNS if pattern != "reaper.keep"), weight=3)),
        names=draw(rarely((), ("trial-*",), ("*-db",), weight=5)),
        images=draw(rarely((), ("acme/*",), weight=5)),
        everything=draw(rarely(False, True, weight=4)),
        image_labels=draw(rarely(False, True, weight=8)),
        protect_labels=draw(rarely(("reaper.keep",), (), (), ("team=rl",), ("run=my-*", "bench"), weight=2)),
        protect_names=draw(rarely((), ("*-db",), weight=5)),
        protect_images=draw(rarely((), ("acme/*",), weight=6)),
        restart_policies=draw(rarely(("always", "unless-stopped"), (), weight=5)),
        policies=draw(st.sampled_from((ORDINARY, ()) if part == "engine" else (ORDINARY, (), ORDINARY + IDLE, IDLE)))
        + tuple(draw(_policy(n, part)) for n in range(draw(st.sampled_from((0, 1, 2))))),
        everything_goes=draw(rarely(False, True, weight=4)),
        target=draw(rarely(None, "us", weight=3)),
    )


_SKEWS = (5 * MINUTE, -20 * MINUTE, 3 * HOUR, -900 * DAY)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A whole world."""
    known = draw(st.sampled_from(((), ("run-1",), ("run-1", "run-2"))))
    part = draw(st.sampled_from(("engine", "engine", "organisation")))
    world = World(
        config=draw(_config(part)),
        leases=tuple(draw(leases(id_)) for id_ in known),
        skew=draw(rarely(timedelta(0), *_SKEWS, weight=10)),
    )
    if part == "organisation":
        return replace(world, sandboxes=draw(_sandboxes()), skew=timedelta(0))
    return draw(_engine(world))


_OWNERS = (*(OF_REUSED, OF_LAST_BOOT) * 4, *(LIVING,) * 3, *UNPROVEN, None, None)
_DEAD = {OF_REUSED: NOW - REUSED, OF_LAST_BOOT: NOW - BOOTED}


@st.composite
def owned_worlds(draw: st.DrawFn) -> World:
    """A small world in which labels name processes of this host, of others, and of nothing; little else keeps anything."""
    orphaned = Policy("orphaned", BOTH, orphaned_for=draw(st.sampled_from((10 * MINUTE, HOUR, 3 * HOUR))))
    world = World(config=Config(policies=(*draw(st.sampled_from((ORDINARY, ()))), orphaned)), dead=_DEAD)
    owners = st.sampled_from(_OWNERS)
    if draw(rarely(False, True, weight=3)):
        boxes = [(one, draw(owners)) for one in draw(_sandboxes())]
        labelled = [replace(one, labels={**one.labels, oracle.OWNER: o}) if o and one.labels else one for one, o in boxes]
        return replace(world, sandboxes=tuple(labelled))
    made, project = _Made(draw), draw(st.sampled_from((None, *PROJECTS[:1] * 2)))
    for number in range(draw(st.sampled_from((1, 2, 3)))):
        of_image, own = draw(rarely(None, *_OWNERS, weight=5)), draw(owners)
        image = made.image("postgres:16", {oracle.OWNER: of_image} if of_image else {})
        labels = {"terminal-bench": "", **(project.labels(f"s{number}", str(number + 1)) if project else {})}
        labels |= {oracle.OWNER: own} if own and not of_image else {}
        one = draw(_container(number, image, "postgres:16", labels))
        made.containers.append(replace(one, restart="no", odd={}))
    return replace(world, images=tuple(made.images), containers=tuple(made.containers))


@st.composite
def halted_worlds(draw: st.DrawFn) -> World:
    """A small world whose policies stop; some also delete a part of it. Little else keeps anything."""
    old = draw(st.sampled_from((10 * MINUTE, HOUR, DAY)))
    policies: tuple[Policy, ...] = (Policy("stop", ("container",), "stop", older_than=old),)
    if draw(st.booleans()):
        policies += (Policy("delete", ("container",), older_than=draw(st.sampled_from((HOUR, DAY))), names=("trial-*",)),)
    made, folders = _Made(draw), draw(st.sampled_from(((), *[PROJECTS[:1]] * 3, *[PROJECTS[:2]] * 2)))
    if folders:
        labels = {PROJECT: folders[0].name, "com.docker.compose.network": "default"}
        made.networks.append(Network(ident(100), f"{folders[0].name}_default", labels, _moment(draw(_AGES))))
    ended = Lease("run-1", _moment(300 * HOUR), ended=_moment(HOUR))
    extras = rarely({}, {"reaper.lease": ended.id}, *OVERRIDES[:3], OVERRIDES[-1], weight=6)
    for number in range(draw(st.sampled_from((1, 2, 3, 4)))):
        image = made.image("postgres:16", {})
        project, is_unclear = draw(st.sampled_from(folders or (None,))), draw(rarely(False, True, weight=12))
        if project and is_unclear:
            project = replace(project, folder=None)
        labels = {"terminal-bench": "", **(project.labels(f"s{number}", str(number + 1)) if project else {}), **draw(extras)}
        one = replace(draw(_container(number, image, "postgres:16", labels)), restart="no", odd={})
        made.containers.append(replace(one, auto_remove=one.state == "running" and draw(rarely(False, True, weight=3))))
    for number, one in enumerate(made.containers):
        others = [other for other in made.containers if other.id != one.id]
        made.containers[number] = draw(_related(one, others, made.networks))
    if draw(rarely(True, False, weight=4)):
        is_of_project = draw(rarely(True, False, weight=4))
        of_project = {PROJECT: folders[0].name} if folders and is_of_project else {}
        made.volumes.append(Volume("data-0", {"reaper.lease": ended.id, **of_project}, _moment(draw(_AGES))))
        if draw(rarely(False, True, weight=3)):
            made.containers[0] = replace(made.containers[0], volumes=("data-0",))
    podman = draw(rarely(False, True, weight=6))
    pods = (made.pod(0),) if podman else ()
    return World(
        config=Config(policies=policies),
        leases=(ended,),
        images=tuple(made.images),
        networks=tuple(made.networks),
        volumes=tuple(made.volumes),
        containers=tuple(made.containers),
        pods=pods,
        podman=podman,
    )

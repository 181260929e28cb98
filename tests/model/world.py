"""The simulated endpoints of one run, what people and runners do there, and all of it in the oracle's own terms."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from reaper.simulator.clock import Clock
from reaper.simulator.daytona.app import Daytona
from reaper.simulator.daytona.limits import Limit
from reaper.simulator.daytona.model import Sandbox, moment
from reaper.simulator.daytona.rules import Behaviour as Manners
from reaper.simulator.docker.app import DockerSimulator
from reaper.simulator.docker.build import add_container
from reaper.simulator.docker.engine import Engine
from reaper.simulator.docker.events import KEPT
from reaper.simulator.docker.life import Life
from reaper.simulator.docker.model import Behaviour, Container, Image, RefusedError
from reaper.simulator.docker.text import NS, nanoseconds
from reaper.simulator.faults import Faults
from reaper.simulator.world import SandboxSpec
from tests.model.builds import Builds
from tests.model.crowds import Crowds
from tests.model.host import Host
from tests.model.use import Use
from tests.promise import followers, limits, oracle, truth
from tests.promise.followers import KINDS
from tests.promise.oracle import MADE_UP
from tests.promise.truth import CONFIG_FILES, NUMBER, ONEOFF, PROJECT, SESSION, WORKING_DIR, Config

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SILENCE = 6 * MINUTE  # from a holder's last heartbeat to the end of its lease
IN_FLIGHT = 3 * SECOND
UNWRITTEN = 62 * SECOND  # the file is so exact about a holder's last heartbeat
AGES = (5 * MINUTE, 11 * MINUTE, 2 * HOUR, 7 * HOUR, 9 * HOUR, 25 * HOUR, 30 * HOUR, 12 * DAY)
IMAGES = (*sorted(oracle.IS_TERMINAL_BENCH) * 5, *sorted(oracle.IS_HARBOR), *sorted(oracle.IS_ACME), "postgres:16")
NO_SIGN: tuple[Mapping[str, str], ...] = ({},)
SIGNS: tuple[Mapping[str, str], ...] = (
    {"terminal-bench": ""},
    {"harbor.managed": "true"},
    {"harbor.managed": "false"},
    {"bench": ""},
    {"team": "rl"},
    {"run": "my-sweep"},
)
OVERRIDES: tuple[Mapping[str, str], ...] = (
    *({"reaper.ttl": text} for text in oracle.TTLS),
    *({"reaper.expires": text} for text in oracle.EXPIRIES if text[:4] > "0001"),
    *({name: text} for name, text in sorted(oracle.UNREADABLE_OVERRIDES)),
    {"reaper.keep": ""},
    {"reaper.keep": ""},
    {"reaper.lease": "unknown"},
    {"reaper.lease": "run-1"},  # of a run that may be about to begin
    {"reaper.lease": "run-2"},
)
IMPOSSIBLE = (datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC), datetime(2012, 12, 31, tzinfo=UTC), truth.NOW + 400 * DAY)
STATES = ("running",) * 5 + ("exited",) * 5 + ("created", "paused", "restarting")
SYSTEM: tuple[Mapping[str, str], ...] = ({"com.docker.swarm.service.id": "x"}, {"io.kubernetes.pod.name": "x"})
PROJECTS = (("chess", "/srv/a"), ("chess", "/srv/b"), ("zz__1", "/srv/z"), (MADE_UP, "/srv/t"))
CLAIMS = (
    truth.Claim(labels=("bench",)),
    truth.Claim(names=("trial-*",)),
    truth.Claim(names=("trial-*",), projects=("chess",)),
    truth.Claim(projects=("zz__*",)),
    truth.Claim(images=("acme/*",)),
)


@dataclass
class Run:
    """One run that holds a lease.

    Attributes:
        alive: sends heartbeats.
        heard: its last heartbeat.
        over: when it gave the lease back.
        endpoints: for which it was granted, by name.
    """

    id: str
    since: datetime
    claims: tuple[truth.Claim, ...]
    endpoints: frozenset[str]
    heard: datetime
    alive: bool = True
    over: datetime | None = None

    def lease(self, now: datetime, skew: timedelta, endpoint: str, *, sure: bool) -> truth.Lease:
        """As the oracle knows it; ``sure`` leaves out what only its holder knows, and what another clock leaves open."""
        ended, heard, unsure = self.over, None, SECOND if skew else timedelta(0)
        if ended is None and not self.alive and now - self.heard >= SILENCE:
            ended = self.heard + SILENCE
            heard = max(self.heard - UNWRITTEN, self.since) if sure else self.heard + IN_FLIGHT
        elif ended is not None and sure:
            heard = ended - unsure  # what was made in the last second may have been made later
        return truth.Lease(
            self.id,
            (self.since + unsure if sure else self.since.replace(microsecond=0)) + skew,  # listings give whole seconds
            None if ended is None else ended + skew,
            None if heard is None else heard + skew,
            claims=self.claims,
            elsewhere=endpoint not in self.endpoints,
        )


@dataclass
class Place:
    """One endpoint.

    Args:
        things: gives what it holds now, in the oracle's terms.
        acted: what the program has begun to delete or to stop in this step, as it was before.
        remembered: what an earlier sweep may have known to be owned.
        begun: networks whose project the program has begun to reap, and volumes and images that its policies take along.
        host: that of the program, whose processes make what there is.
        did: how far the program has gone with each of what it has acted on.
        exceeded: of which quotas, and values of their labels, more was there since the sweep began.
        use: what is known of the use of networks, volumes and images; None where no policy asks for it.
        pressed: whether the program has seen since the sweep began that its disk is too full, and not that it is no more.
        disk: how much is on it at the most.
    """

    provider: ClassVar[str]
    name: str
    faults: Faults
    host: Host
    skew: timedelta = timedelta(0)
    acted: dict[str, truth.Thing] = field(default_factory=dict)
    remembered: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    did: dict[str, str] = field(default_factory=dict)
    exceeded: set[tuple[str, str]] = field(default_factory=set)
    use: Use | None = None
    pressed: bool = False
    disk: int = 0

    def world(self, config: Config, now: datetime, leases: tuple[truth.Lease, ...]) -> truth.World:
        """What it holds now."""
        raise NotImplementedError

    def owner(self, rng: random.Random) -> Mapping[str, str]:
        """What something new says of its owner, if it does."""
        return self.host.labels(rng) if rng.random() < 0.3 else {}

    def act(self, key: str, thing: truth.Thing, world: truth.World, deed: str) -> None:
        """The program begins to do this with it, in a world like this."""
        self.acted[key], self.did[key] = thing, deed
        if isinstance(thing, truth.Container) and (project := (thing.labels or {}).get(PROJECT)):
            self.begun |= {network.id for network in world.networks if (network.labels or {}).get(PROJECT) == project}
            before = oracle.Oracle(self.undone(world))
            some: tuple[followers.Follower, ...] = (*world.volumes, *world.images)
            own = (one for one in some if followers.project_of(one) == project)
            self.begun |= {truth.key(one) for one in own if followers.go_along(before, one, project)}

    def undone(self, world: truth.World) -> truth.World:
        """The same, as if the program had done nothing in this step."""
        there = {truth.key(thing): thing for thing in oracle.things(world)}
        now = {key: _before(there.get(key), before) for key, before in self.acted.items()}
        whole = list({**there, **now}.values())
        return replace(
            world,
            containers=tuple(thing for thing in whole if isinstance(thing, truth.Container)),
            networks=tuple(thing for thing in whole if isinstance(thing, truth.Network)),
            volumes=tuple(thing for thing in whole if isinstance(thing, truth.Volume)),
            images=tuple(thing for thing in whole if isinstance(thing, truth.Image)),
            sandboxes=tuple(thing for thing in whole if isinstance(thing, truth.Sandbox)),
        )


def _before(now: truth.Thing | None, before: truth.Thing) -> truth.Thing:
    """It, but for what the program has done to it."""
    if isinstance(now, truth.Container) and isinstance(before, truth.Container) and now.started != before.started:
        return now  # it was started meanwhile
    return before


class DockerPlace(Place):
    """An engine."""

    provider = "docker"

    def __init__(self, name: str, clock: Clock, seed: int, host: Host, skew: timedelta) -> None:
        super().__init__(name, Faults(seed), host, skew)
        self.engine = Engine(clock, seed=seed, skew=skew)
        self.life = Life(self.engine)
        self.simulator = DockerSimulator(self.engine, self.faults, name)
        self.built: dict[Image, str] = {}  # what builds have made for projects, which they may make again
        self.made = 0

    def world(self, config: Config, now: datetime, leases: tuple[truth.Lease, ...]) -> truth.World:
        self.engine.settle()
        engine = self.engine
        found = truth.World(
            config,
            images=tuple(map(_image, engine.images)),
            containers=tuple(_container(c) for c in engine.containers.values()),
            networks=tuple(
                truth.Network(n.id, n.name, dict(n.labels), _moment(n.created)) for n in engine.networks if not n.predefined
            ),
            volumes=tuple(truth.Volume(v.name, v.labels or {}, _moment(v.created)) for v in engine.volumes.values()),
            leases=leases,
            skew=self.skew,
            now=now + self.skew,
            remembered=frozenset(self.remembered),
            begun=frozenset(self.begun),
            dead={label: ended + self.skew for label, ended in self.host.dead(local=True).items()},
            runners=tuple((began + self.skew, ended and ended + self.skew) for began, ended in self.host.runners()),
            pressed=self.pressed,
        )
        return found if self.use is None else self.use.noted(found, {i.id: _moment(i.tagged) for i in engine.images})

    def watched_again(self, *, is_whole: bool) -> None:
        """A sweep has ended that no fault struck: what was unused since the one before is known, unless events were lost."""
        if self.use is None:
            return
        last, self.use.looked = self.use.looked, self.engine.time()
        oldest = self.engine.events.since(0, None)[:1]
        is_lost = len(self.engine.events.since(0, None)) >= KEPT and (last is None or oldest[0]["timeNano"] > last)
        if is_lost or self.use.steady is None or not is_whole:
            self.use.steady = _moment(self.engine.time())

    def add(self, rng: random.Random, now: datetime, name: str, labels: Mapping[str, str], **fields: object) -> Container:
        """A container with a past, or a new one."""
        reference = str(fields.get("image") or rng.choice(IMAGES))
        given = rng.choice(({},) * 9 + (*SIGNS, {"reaper.keep": ""}))
        image, owner = self.engine.images.find(reference), self.owner(rng)
        if image is None or rng.random() < 0.3:
            of_image = {**given, **(fields.get("built") or {}), **(owner if rng.random() < 0.15 else {})}  # type: ignore[dict-item]
            image = self.engine.images.add(reference, labels=of_image)
        state = str(
            fields.get("state") or rng.choice(("running",) * 5 + ("exited",) * 5 + ("created", "paused", "restarting"))
        )
        age = fields.get("age", rng.choice(AGES))
        assert isinstance(age, timedelta)
        created = now - age
        if age and rng.random() < 0.04:
            created = rng.choice(IMPOSSIBLE)
        started = min(created + age * rng.choice((0.0, 0.0, 0.5, 0.9)), created + age)
        finished = started + (now - started) * rng.choice((0.0, 0.5, 0.9)) if state == "exited" else None
        manners = Behaviour(
            obeys=rng.random() < 0.7,
            stops_in=rng.choice((0.0, 0.5, 3.0)),
            removal=rng.choice((0.0, 0.0, 0.0, 0.1, 4.0, 4.0, 400.0)),
            removal_failures=rng.choice((0, 0, 0, 0, 1)),
            blocks=rng.random() < 0.5,
        )
        networks = fields.get("networks") or ("bridge",)
        made = add_container(
            self.engine,
            name=name,
            image=reference,
            state=state,
            created=created,
            started=None if state == "created" else started,
            finished=finished,
            labels={**owner, **labels},
            networks=networks,  # type: ignore[arg-type]
            restart_policy=rng.choice(("no",) * 20 + ("always", "unless-stopped", "on-failure")),
            volumes=fields.get("volumes") or {},  # type: ignore[arg-type]
            behaviour=Behaviour(runs=0, code=1) if state == "restarting" else manners,
        )
        made.auto_remove = made.policy == "no" and rng.random() < 0.1
        if host := fields.get("host"):
            made.host = host  # type: ignore[assignment]
        if self.use is not None:  # the engine tells of what has come
            self.engine.emit(made, "create")
            for network in (self.engine.networks.named(name) for name in made.networks):
                if network is not None and not network.predefined:
                    self.engine.networks.emit(network, "connect", container=made.id)
        return made

    def fresh(self, rng: random.Random) -> str:
        """A name that is not taken."""
        self.made += 1
        return rng.choice(("trial-{}", "trial-{}", "work-{}", "trial-{}-db", "work-{}-db")).format(self.made)

    def network(self, project: str, labels: Mapping[str, str], created: datetime) -> str:
        """The name of a project's network, which is made when it is missing."""
        name = f"{project}_default"
        if not any(network.name == name for network in self.engine.networks):
            known = {PROJECT: project, "com.docker.compose.network": "default", **labels}
            at = nanoseconds(created) + int(self.skew.total_seconds() * NS)
            self.engine.networks.add(name, labels=known, created=at)
        return name

    def project(
        self, rng: random.Random, now: datetime, number: int, extra: Mapping[str, str], age: timedelta | None = None
    ) -> None:
        """A Compose project, or more of one."""
        name, folder = PROJECTS[number % len(PROJECTS)]
        files = min(oracle.IS_HARBOR_FILE) if name == MADE_UP else f"{folder}/compose.yaml"
        age = rng.choice(AGES) if age is None else age
        net = self.network(name, extra if rng.random() < 0.5 else {}, now - age)
        for index in range(rng.choice((1, 2, 2, 3))):
            service = f"s{index}"
            made = {NUMBER: str(index + 1)} if rng.random() < 0.8 else {ONEOFF: "True"}
            labels = {PROJECT: name, "com.docker.compose.service": service, CONFIG_FILES: files, WORKING_DIR: folder, **made}
            labels |= extra or _rarely(rng, (*SIGNS, *OVERRIDES), 6)
            built = {PROJECT: name, "com.docker.compose.service": service} if rng.random() < 0.4 else {}
            fields: dict[str, object] = {
                "networks": (net,) if rng.random() < 0.7 else ("bridge",),
                "built": built,
                "age": age,
            }
            if extra and age == timedelta(0):
                fields["state"] = "running"
            self.add(rng, now, self.fresh(rng), labels, **fields)


def _moment(ns: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=ns // 1000)


def _image(i: Image) -> truth.Image:
    return truth.Image(i.id, tuple(i.tags), dict(i.labels or {}), _moment(i.created), tagged=_moment(i.tagged))


def _container(c: Container) -> truth.Container:
    host = c.host
    return truth.Container(
        c.id,
        c.name,
        c.image,
        c.image_id,
        dict(c.labels),
        c.state,
        _moment(c.created),
        _moment(c.started) if c.started else None,
        _moment(c.finished) if c.finished else None,
        c.exit_code,
        c.policy or "no",
        network_mode=c.network_mode,
        pid_mode=str(host.get("PidMode") or ""),
        ipc_mode=str(host.get("IpcMode") or "private"),
        cgroup_parent=str(host.get("CgroupParent") or ""),
        links=tuple(host.get("Links") or ()),
        volumes_from=tuple(host.get("VolumesFrom") or ()),
        networks=tuple(c.networks),
        volumes=tuple(mount.name for mount in c.mounts if mount.kind == "volume"),
        auto_remove=c.auto_remove,
    )


class DaytonaPlace(Place):
    """An organisation."""

    provider = "daytona"

    def __init__(self, name: str, clock: Clock, rng: random.Random, seed: int, host: Host) -> None:
        super().__init__(name, Faults(seed), host)
        quick = Manners(get_cache=0, list_lag=rng.choice((0.0, 1.5)), destroy=rng.choice(((0.0, 0.0), (1.0, 16.0))))
        self.daytona = Daytona(clock, self.faults, seed=rng.randrange(1 << 30), behaviour=quick)
        self.daytona.url = f"http://{name}.test:80"
        limits = rng.choice((None, Limit(30, 60.0), Limit(10, 30.0)))
        self.organisation = self.daytona.add_organisation(name, general=limits, lifecycle=limits)
        self.made = 0

    def world(self, config: Config, now: datetime, leases: tuple[truth.Lease, ...]) -> truth.World:
        self.organisation.settle()
        rows = [_sandbox(row) for row in self.organisation.rows.values() if not row.hidden]
        remembered, dead = frozenset(self.remembered), self.host.dead(local=False)
        return truth.World(config, sandboxes=tuple(rows), leases=leases, now=now, remembered=remembered, dead=dead)

    def add(self, rng: random.Random, now: datetime, labels: Mapping[str, str], age: timedelta | None = None) -> None:
        """A sandbox."""
        age = rng.choice(AGES) if age is None else age
        created = now - age
        states = (
            ("started",) * 5 + ("stopped",) * 4 + ("archived", "error", "build_failed", "creating", "unknown", "resizing")
        )
        self.made += 1
        owner = rng.choice(list(self.organisation.rows.values())) if self.organisation.rows and rng.random() < 0.15 else None
        linked = owner.id if owner is not None and owner.desired == owner.state and moment(owner.created) < created else None
        if owner is not None and linked is not None and owner.linked is not None:
            linked = None
        pool = "pool-1" if rng.random() < 0.05 and linked is None else None  # one that is not claimed has no labels
        spec = SandboxSpec(
            name=f"trial-box-{self.made}-{rng.randrange(1000)}",
            state=rng.choice(states) if age else "started",
            created=created,
            active=created + age * rng.choice((0.0, 0.5, 0.9)),
            labels={} if pool else rng.choice(({**self.owner(rng), **labels},) * 9 + (None,)),
            target=rng.choice(("us", "us", "us", "eu")),
            linked=linked,
            runner=owner.runner or "" if linked and owner else "",
            warm_pool=pool,
            destroy_fails=rng.random() < 0.05,
            runner_dead=rng.random() < 0.05,
            inconsistent=rng.random() < 0.05,
            auto_stop=rng.choice((0, 0, 0, 30000)),
            auto_archive=0,
            auto_delete=0 if rng.random() < 0.1 else -1,
        )
        self.organisation.add(spec)

    def recover(self) -> None:
        """Whatever was broken works again."""
        for row in list(self.organisation.rows.values()):
            if row.runner_dead or row.destroy_fails or row.inconsistent:
                self.organisation.change(row, runner_dead=False, destroy_fails=False, inconsistent=False)


def _sandbox(row: Sandbox) -> truth.Sandbox:
    def at(us: int | None) -> datetime | None:
        return None if us is None else moment(us // 1000 * 1000)

    return truth.Sandbox(
        row.id,
        row.name,
        row.labels,
        row.shown,
        at(row.created),
        at(row.updated),
        at(row.active),
        wanted=row.desired if row.desired != row.shown else None,
        target=row.target,
        runner=row.runner,
        linked=row.linked,
        warm=row.warm_pool is not None,
        auto_stop=row.auto_stop,
        auto_delete=row.auto_delete,
        cpu=row.cpu,
        memory=row.memory,
        disk=row.disk,
    )


class World(Builds, Crowds):
    """All endpoints, and all that lives there besides the program.

    Attributes:
        runs: by the id of their leases.
        take: is asked to grant a lease; False when that cannot be.
        give_back: is told that one is over.
    """

    def __init__(self, seed: int, clock: Clock, config: Config) -> None:
        rng = random.Random(f"world/{seed}")
        self.clock, self.config = clock, config
        self.runs: dict[str, Run] = {}
        self.take: Callable[[Run], bool] = lambda _: False
        self.give_back: Callable[[Run], object] = lambda _: None
        engines, organisations = rng.choice((1, 1, 1, 2)), rng.choice((0, 1, 1))
        self.host = Host(clock)
        self.host.start()
        self.dockers = [DockerPlace(f"engine-{n}", clock, seed + n, self.host, self._skew(rng)) for n in range(engines)]
        self.daytonas = [DaytonaPlace(f"org-{n}", clock, rng, seed, self.host) for n in range(organisations)]
        for place in self.dockers:
            place.use = Use() if any({*KINDS.values()} & {*policy.kinds} for policy in config.policies) else None

    @staticmethod
    def _skew(rng: random.Random) -> timedelta:
        return rng.choice((timedelta(0),) * 16 + (5 * MINUTE, -20 * MINUTE, 3 * HOUR))

    @property
    def places(self) -> Sequence[Place]:
        return (*self.dockers, *self.daytonas)

    def truth(self, place: Place, *, sure: bool = False) -> truth.World:
        """What a place holds now, with the leases that count there; ``sure``: what the program is sure to know of it."""
        now = self.clock.now()
        leases = tuple(run.lease(now, place.skew, place.name, sure=sure) for run in self.runs.values())
        policies = tuple(one for one in self.config.policies if not one.endpoints or place.name in one.endpoints)
        world = place.world(replace(self.config, policies=policies), now, leases)
        if sure:
            world = replace(world, dead=self.host.surely(world.dead, place.skew))
        if not self.config.quotas:
            return world
        place.exceeded |= limits.exceeded(world, (*world.containers, *world.sandboxes))
        return replace(world, exceeded=frozenset(place.exceeded))

    def forget(self) -> None:
        """The program has lost what it remembered."""
        for place in self.places:
            place.remembered.clear()
            place.begun.clear()
            if place.use is not None:
                place.use.seen.clear()
                place.use.steady = place.use.looked = None
        self.host.forget()

    # -- what happens --------------------------------------------------------------------------------------------------

    def happen(self, kind: str, rng: random.Random) -> None:
        """One deed of a person or a runner. What the server refuses has not happened."""
        deed = getattr(self, f"_do_{kind}")
        with suppress(RefusedError):
            deed(rng)

    def _do_project(self, rng: random.Random) -> None:
        rng.choice(self.dockers).project(rng, self.clock.now(), rng.randrange(4), {})

    def _do_single(self, rng: random.Random) -> None:
        place = rng.choice(self.dockers)
        labels = {**rng.choice((*NO_SIGN * 12, *SIGNS * 2, *OVERRIDES, *self._lease_labels())), **_rarely(rng, SYSTEM, 30)}
        volumes = {"/data": rng.choice(sorted(place.engine.volumes))} if place.engine.volumes and rng.random() < 0.2 else {}
        name = f"buildx_buildkit_{place.made}" if rng.random() < 0.03 else place.fresh(rng)
        with suppress(RefusedError):
            place.life.free_name(name)
            place.add(rng, self.clock.now(), name, labels, volumes=volumes)

    def _do_dependent(self, rng: random.Random) -> None:
        """A container that needs another one: in its namespace, linked to it, with its volumes."""
        place = rng.choice(self.dockers)
        if not place.engine.containers:
            return
        other = rng.choice(sorted(place.engine.containers.values(), key=lambda c: c.name))
        by = rng.choice((other.name, other.id))
        host, networks = rng.choice(
            (
                ({"PidMode": f"container:{other.id}"}, ("bridge",)),
                ({"IpcMode": f"container:{other.id}"}, ("bridge",)),
                ({"Links": [f"/{other.name}:/guest/alias"]}, ("bridge",)),
                ({"VolumesFrom": [by]}, ("bridge",)),
                ({}, (f"container:{other.id}",)),
                ({}, tuple(n.name for n in place.engine.networks if not n.predefined)[:1] or ("bridge",)),
            )
        )
        labels = _rarely(rng, (*SIGNS, *OVERRIDES), 3)
        state = rng.choice(("running", "exited")) if other.running else "exited"
        place.add(
            rng,
            self.clock.now(),
            place.fresh(rng),
            labels,
            host=host,
            networks=networks,
            state=state,
            age=rng.choice(AGES[:2]),
        )

    def _lease_labels(self) -> list[Mapping[str, str]]:
        return [{"reaper.lease": run} for run in sorted(self.runs) * 2]

    def _do_volume(self, rng: random.Random) -> None:
        place = rng.choice(self.dockers)
        some: list[Mapping[str, str]] = [{}, {PROJECT: "chess"}, {"reaper.keep": ""}]
        labels = rng.choice([*some, *self._lease_labels() * 2])
        at = nanoseconds(self.clock.now()) + int(place.skew.total_seconds() * NS)
        place.engine.add_volume(f"data-{len(place.engine.volumes)}-{rng.randrange(1000)}", labels, created=at)

    def _do_sandbox(self, rng: random.Random) -> None:
        for place in self.daytonas:
            for _ in range(rng.choice((1, 2, 3))):
                labels = {**rng.choice(({"harbor.managed": "true"},) * 3 + ({},)), **_rarely(rng, (*SIGNS, *OVERRIDES), 4)}
                if rng.random() < 0.5:
                    labels[SESSION] = rng.choice(("s1", "s1", "s2"))
                place.add(rng, self.clock.now(), labels)

    def _do_run(self, rng: random.Random) -> None:
        """A run takes a lease and begins a trial."""
        now = self.clock.now()
        granted = frozenset(place.name for place in self.places)
        if rng.random() < 0.2:
            granted = frozenset({rng.choice(self.places).name})
        claims = tuple(rng.choice(CLAIMS) for _ in range(rng.choice((0, 1, 1, 2))))
        run = Run(f"run-{len(self.runs) + 1}", now, claims, granted, now)
        if not self.take(run):
            return
        self.runs[run.id] = run
        self._begin_trial(rng, run)

    def _begin_trial(self, rng: random.Random, run: Run) -> None:
        now = self.clock.now()
        label = {"reaper.lease": run.id} if rng.random() < 0.8 else {"bench": ""}
        place = rng.choice(self.dockers)
        place.project(rng, now, rng.randrange(4), label, timedelta(0))
        if rng.random() < 0.4:
            at = nanoseconds(now) + int(place.skew.total_seconds() * NS)
            place.engine.add_volume(f"work-{run.id}-{rng.randrange(1000)}", label, created=at)
        for other in self.daytonas:
            other.add(rng, now, {**label, "harbor.managed": "true", SESSION: run.id}, timedelta(0))

    def _alive(self) -> list[Run]:
        return [run for run in self.runs.values() if run.alive and run.over is None]

    def _do_trial(self, rng: random.Random) -> None:
        if alive := self._alive():
            self._begin_trial(rng, rng.choice(alive))

    def _do_finish(self, rng: random.Random) -> None:
        """A run ends in order; its containers may be left running."""
        if alive := self._alive():
            run = rng.choice(alive)
            run.over, run.alive = self.clock.now(), False
            self.give_back(run)

    def _do_process(self, rng: random.Random) -> None:
        """A process begins that owns what is made from now on, or a runner does."""
        rng.choice((self.host.start, self.host.run))()

    def _do_process_ends(self, rng: random.Random) -> None:
        if living := self.host.living():
            self.host.end(rng.choice(living), rng)

    def _do_kill_holder(self, rng: random.Random) -> None:
        if alive := self._alive():
            rng.choice(alive).alive = False

    def _any(self, rng: random.Random) -> Iterator[tuple[DockerPlace, Container]]:
        place = rng.choice(self.dockers)
        if place.engine.containers:
            yield place, rng.choice(sorted(place.engine.containers.values(), key=lambda c: c.name))

    def _do_start(self, rng: random.Random) -> None:
        for place, one in self._any(rng):
            place.life.start(one)

    def _do_stop(self, rng: random.Random) -> None:
        for place, one in self._any(rng):
            place.life.stop(one, 10)

    def _do_restart(self, rng: random.Random) -> None:
        for place, one in self._any(rng):
            place.life.stop(one, 0)
            place.engine.settle()
            place.life.start(one)

    def _do_remove(self, rng: random.Random) -> None:
        for place, one in self._any(rng):
            place.life.remove(one, one.id, volumes=True, force=True)

    def _do_again(self, rng: random.Random) -> None:
        """Another container takes the name of one."""
        for place, one in self._any(rng):
            place.life.remove(one, one.id, volumes=False, force=True)
            place.engine.settle()
            place.life.free_name(one.name)
            place.add(rng, self.clock.now(), one.name, dict(one.labels), image=one.image, age=timedelta(0))

    def _do_join(self, rng: random.Random) -> None:
        """A project gets another container."""
        rng.choice(self.dockers).project(rng, self.clock.now(), rng.randrange(4), {}, timedelta(0))

    def _do_connect(self, rng: random.Random) -> None:
        """A container that is kept uses a project's network."""
        place = rng.choice(self.dockers)
        if nets := sorted(network.name for network in place.engine.networks if not network.predefined):
            place.add(
                rng,
                self.clock.now(),
                place.fresh(rng),
                {},
                networks=(rng.choice(nets),),
                image="postgres:16",
                age=timedelta(0),
            )

    def _do_relabel(self, rng: random.Random) -> None:
        """Someone labels a sandbox."""
        for place in self.daytonas:
            rows = sorted((row for row in place.organisation.rows.values() if not row.hidden), key=lambda row: row.id)
            if rows:
                row = rng.choice(rows)
                place.organisation.change(row, labels={**(row.labels or {}), **rng.choice((*SIGNS, *OVERRIDES))})

    def _do_sandbox_state(self, rng: random.Random) -> None:
        for place in self.daytonas:
            rows = sorted((row for row in place.organisation.rows.values() if not row.hidden), key=lambda row: row.id)
            if rows:
                row, organisation = rng.choice(rows), place.organisation
                act = rng.choice((organisation.start, organisation.stop))
                with suppress(Exception):
                    act(row, row.version)


def _rarely(rng: random.Random, some: Sequence[Mapping[str, str]], weight: int) -> Mapping[str, str]:
    return rng.choice(some) if rng.randrange(weight) == 0 else {}

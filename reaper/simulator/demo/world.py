"""The world of the demo: what killed runs left, what is alive, what belongs to others, and what goes wrong meanwhile.

Everything follows from the seed and the time. The counts are the same for all seeds.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from reaper.simulator.daytona.limits import Limit
from reaper.simulator.daytona.rules import Behaviour
from reaper.simulator.docker.life import Life
from reaper.simulator.faults import Fault
from reaper.simulator.server import Simulator
from reaper.simulator.world import ContainerSpec, NetworkSpec, SandboxSpec

ENGINE, ORGANISATION, FLAKY = "local", "rl-org", "flaky-org"

WARM = 16  # members of a pool that wait to be claimed: the API never lists them

_SERVERS = {ENGINE: "docker", ORGANISATION: ORGANISATION, FLAKY: FLAKY}  # the simulator's names of the endpoints
_TASKS: tuple[str, ...] = (
    "chess-best-move",
    "fix-git",
    "hello-world",
    "crack-7z-hash",
    "play-zork",
    "qemu-startup",
    "oom",
    "tmux",
)
_TASKS += ("blind-maze", "csv-to-parquet", "path-tracing", "raman-fitting", "nginx-logs", "polyglot-c-py")
_TEAMS = ("web", "data", "infra", "research")
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_COMPOSE = "com.docker.compose."
_HARBOR_FILE = "/home/ci/.venv/lib/python3.12/site-packages/harbor/environments/docker/docker-compose-build.yaml"
_RESUMED = "tmux-debug"  # is exited until a user starts it again


def _flaky_id(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


# Real rules of the simulator. The first three only make the way to each server a little longer: each counts its requests.
_WAYS = tuple(Fault(kind="latency", seconds=0.004, endpoint=server) for server in _SERVERS.values())
_FAULTS = (
    "status:500,endpoint=docker,method=DELETE,path=/containers/,skip=3,times=2,message=driver failed to remove the files",
    f"status:429,endpoint={ORGANISATION},method=DELETE,skip=90,times=1,header=Retry-After-sandbox-lifecycle:2"
    ",message=ThrottlerException: Too Many Requests",
    f"status:503,endpoint={FLAKY},method=GET,path=/sandbox$,times=2",
    f"latency:3s,endpoint={FLAKY},method=GET,path=/sandbox/,skip=6,times=2",
    *(f"reset,endpoint={FLAKY},method=DELETE,resource={_flaky_id(number)},times=1" for number in (5, 12, 20, 31)),
    f"status:503,endpoint={FLAKY},method=DELETE,every=6,times=6",
)
_BEHAVIOUR = Behaviour(pickup=(0.05, 0.3), destroy=(0.2, 2.0), get_cache=1.0, list_lag=0.5)
_LIMITS = {"general": Limit(500, 2.0), "lifecycle": Limit(220, 2.0)}


@dataclass
class World:
    """What is simulated."""

    simulator: Simulator

    @classmethod
    def make(cls, seed: int, now: datetime) -> "World":
        """The world that follows from ``seed``; it is not served yet."""
        chance = random.Random(f"{seed}/demo")  # noqa: S311 - reproducible on purpose
        containers, networks = _engine(chance, now)
        simulator = Simulator(
            seed=seed,
            containers=containers,
            networks=networks,
            sandboxes={ORGANISATION: _organisation(chance, now), FLAKY: _flaky(chance, now)},
            behaviour=_BEHAVIOUR,
        )
        simulator.daytona.set_limits(ORGANISATION, **_LIMITS)
        simulator.faults.add(*_WAYS)
        return cls(simulator)

    def go_wrong(self) -> None:
        """From now on things fail, and requests are counted anew."""
        self.simulator.faults.clear()
        self.simulator.faults.add(*_WAYS, *_FAULTS)

    def requests(self, endpoint: str) -> int:
        """How many requests the endpoint's server has met since ``go_wrong``."""
        server = _SERVERS[endpoint]
        return next(met for fault, met, _ in self.simulator.faults.rules() if fault.endpoint == server)

    def restart(self) -> str:
        """Start a container that is about to be deleted, as its owner would; its name."""
        engine = self.simulator.engine
        self.simulator.do(lambda: Life(engine).start(engine.container(_RESUMED)))
        return _RESUMED

    def there(self) -> set[str]:
        """The ids of all that really is there: asked of the simulator itself, not of its API."""
        return self.simulator.do(self._there)

    def _there(self) -> set[str]:
        engine = self.simulator.engine
        engine.settle()
        found = {*engine.containers, *(network.id for network in engine.networks if not network.predefined)}
        for name in (ORGANISATION, FLAKY):
            organisation = self.simulator.organisation(name)
            organisation.settle()
            found |= {row.id for row in organisation.rows.values() if not row.hidden}
        return found


# -- the engine --------------------------------------------------------------------------------------------------------


def _engine(chance: random.Random, now: datetime) -> tuple[Sequence[ContainerSpec], Sequence[NetworkSpec]]:
    run = now - timedelta(hours=27)
    containers: list[ContainerSpec] = []
    networks: list[NetworkSpec] = []

    def project(name: str, services: Sequence[tuple[str, str, bool]], created: datetime, files: str) -> None:
        """Add a Compose project with its network; its ``services`` are names, images and whether they run."""
        for service, image, runs in services:
            labels = {
                f"{_COMPOSE}project": name,
                f"{_COMPOSE}service": service,
                f"{_COMPOSE}container-number": "1",
                f"{_COMPOSE}oneoff": "False",
                f"{_COMPOSE}project.config_files": files,
                f"{_COMPOSE}project.working_dir": f"/home/ci/tasks/{name.partition('__')[0]}",
            }
            full = name if service == "client" else f"{name}-{service}-1"
            containers.append(_container(full, image, created, labels, runs=runs, network=f"{name}_default"))
        labels = {f"{_COMPOSE}project": name, f"{_COMPOSE}network": "default"}
        networks.append(NetworkSpec(name=f"{name}_default", created=created, labels=labels))

    for number, task in enumerate(_TASKS[:8], 1):  # a Terminal-Bench run that was killed yesterday
        image, files = f"tb__{task}__client", f"/home/ci/terminal-bench/tasks/{task}/docker-compose.yaml"
        project(f"{task}-{number}-of-8-{run:%m-%d}", (("client", image, number % 2 == 0),), _about(chance, run), files)
    for number, task in enumerate(_TASKS[8:]):  # a Harbor run that ended with it
        name = f"{task}__{_code(chance)}"
        services = [("main", f"{name}-main", number % 2 == 1)] + ([("db", "postgres:16", True)] if number < 2 else [])
        project(name, services, _about(chance, run), _HARBOR_FILE)
    for task in _TASKS[:3]:  # trials that are alive
        name = f"{task}__{_code(chance)}"
        project(name, (("main", f"{name}-main", True),), now - timedelta(minutes=chance.randint(4, 50)), _HARBOR_FILE)
    name = f"path-tracing__{_code(chance)}"  # half of it is old, and the other half is in use
    project(name, (("main", f"{name}-main", False), ("db", "postgres:16", True)), _about(chance, run), _HARBOR_FILE)
    containers[-1] = replace(containers[-1], started=now - timedelta(minutes=12))
    debugged, keep = run - timedelta(hours=chance.randint(2, 9)), {"reaper.keep": "ask anna"}
    client = "tb__tmux__client"
    containers += [
        _container(_RESUMED, client, debugged, {}, runs=False),
        _container("oom-post-mortem", "tb__oom__client", debugged - timedelta(days=4), keep, runs=False),
        _container("tb-long-soak", client, debugged, {"reaper.ttl": "72h"}, runs=True),
        _container("results-db", "postgres:16", run - timedelta(days=60), {"team": "rl"}, runs=True, restart="always"),
        _container("grafana", "grafana/grafana:11", run - timedelta(days=80), {}, runs=True, restart="unless-stopped"),
        _container("jupyter-anna", "jupyter/scipy-notebook", run - timedelta(days=2), {}, runs=False),
    ]
    return containers, networks


def _container(
    name: str,
    image: str,
    created: datetime,
    labels: dict[str, str],
    *,
    runs: bool,
    network: str = "bridge",
    restart: str = "no",
) -> ContainerSpec:
    started = created + timedelta(seconds=1)
    return ContainerSpec(
        name=name,
        image=image,
        labels=labels,
        state="running" if runs else "exited",
        created=created,
        started=started,
        finished=None if runs else started + timedelta(minutes=40),
        exit_code=0 if runs else 137,
        networks=(network,),
        restart_policy=restart,
    )


# -- the organisations -------------------------------------------------------------------------------------------------


def _organisation(chance: random.Random, now: datetime) -> Iterator[SandboxSpec]:
    for _ in range(170):  # their runner was killed: they run, and do nothing
        yield _sandbox(chance, now, hours=(25, 90))
    for _ in range(38):
        yield _sandbox(chance, now, hours=(20, 200), state="stopped")
    for _ in range(12):
        yield _sandbox(chance, now, hours=(20, 90), state="error")
    for _ in range(64):  # trials that are alive
        yield _sandbox(chance, now, hours=(0.1, 5))
    for _ in range(9):
        yield _sandbox(chance, now, hours=(40, 400), state="archived")
    for _ in range(2):
        yield _sandbox(chance, now, hours=(30, 60), label=("reaper.keep", "bug 4711"))
    for number in range(WARM):
        pool = {"labels": {"harbor.managed": "true"}, "warm_pool": "pool-python", "created": now - timedelta(days=3)}
        yield SandboxSpec(name=f"warm-{number:02}", **pool)  # type: ignore[arg-type]  # one dict, several types
    for number in range(31):
        created = now - timedelta(hours=chance.uniform(30, 2000))
        team, state = chance.choice(_TEAMS), chance.choice(("started", "started", "stopped"))
        name = f"{chance.choice(('notebook', 'preview', 'agent'))}-{team}-{number}"
        yield SandboxSpec(name=name, state=state, created=created, labels={"team": team})


def _flaky(chance: random.Random, now: datetime) -> Iterator[SandboxSpec]:
    for number in range(42):
        yield replace(_sandbox(chance, now, hours=(25, 60)), id=_flaky_id(number))
    for _ in range(11):
        yield _sandbox(chance, now, hours=(0.1, 5))


def _sandbox(
    chance: random.Random,
    now: datetime,
    *,
    hours: tuple[float, float],
    state: str = "started",
    label: tuple[str, str] | None = None,
) -> SandboxSpec:
    """A sandbox of a Harbor trial, created so many hours ago and busy for the first part of them."""
    task = chance.choice(_TASKS)
    session = f"{task}__{_code(chance)}"
    created = now - timedelta(hours=chance.uniform(*hours))
    labels = {"harbor.managed": "true", "harbor.session_id": session} | dict([label] if label else [])
    active = created + (now - created) * chance.uniform(0.01, 0.3)
    return SandboxSpec(name=session, state=state, created=created, active=active, labels=labels)


def _about(chance: random.Random, moment: datetime) -> datetime:
    return moment + timedelta(minutes=chance.uniform(0, 90))


def _code(chance: random.Random) -> str:
    return "".join(chance.choices(_LETTERS, k=7))

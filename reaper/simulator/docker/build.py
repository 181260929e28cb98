"""Making the containers of a simulated engine: from the body of a request, or as a world describes them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from reaper.simulator.docker.engine import Engine
from reaper.simulator.docker.life import Life
from reaper.simulator.docker.model import (
    Behaviour,
    Container,
    Endpoint,
    Mount,
    RefusedError,
    Removal,
    behaviour_of,
    signal_number,
)
from reaper.simulator.docker.text import NS, nanoseconds
from reaper.simulator.world import ContainerSpec, NetworkSpec

_LEFT = ("adoring", "blissful", "crazy", "eager", "focused", "gifted", "happy", "jolly")
_RIGHT = ("bell", "curie", "darwin", "euler", "fermi", "gauss", "hopper", "keller")
_COMPOSE = "com.docker.compose."


def create(engine: Engine, name: str, body: Mapping[str, Any]) -> Container:
    """What `POST /containers/create` does. Raises RefusedError."""
    host: Mapping[str, Any] = body.get("HostConfig") or {}
    policy: Mapping[str, Any] = host.get("RestartPolicy") or {}
    given = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    ref = str(body.get("Image") or "")
    argv = (*_words(body.get("Entrypoint")), *_words(body.get("Cmd")))
    image = engine.images.need(ref)
    bare = name.removeprefix("/")
    Life(engine).free_name(bare)
    mode, networks = _networks(engine, str(host.get("NetworkMode") or "default"), given)
    ident = engine.new_id()
    container = Container(
        id=ident,
        name=bare or _any_name(engine),
        image=ref,
        image_id=image.id,
        argv=argv,
        created=engine.tick(),
        labels={**(image.labels or {}), **(body.get("Labels") or {})},
        config={k: v for k, v in body.items() if k not in ("HostConfig", "NetworkingConfig", "Labels")},
        host=host,
        network_mode=mode,
        networks=networks,
        mounts=_mounts(engine, body, host),
        behaviour=behaviour_of(argv),
        policy=str(policy.get("Name") or ""),
        retries=int(policy.get("MaximumRetryCount") or 0),
        auto_remove=bool(host.get("AutoRemove")),
        stop_signal=signal_number(str(body["StopSignal"])) if body.get("StopSignal") else 15,
        stop_timeout=10 if body.get("StopTimeout") is None else int(body["StopTimeout"]),
    )
    engine.enter(container)
    engine.emit(container, "create")
    return container


def _words(given: object) -> Sequence[str]:
    if isinstance(given, str):
        return (given,)
    return tuple(str(word) for word in given) if isinstance(given, list | tuple) else ()


def _any_name(engine: Engine) -> str:
    choose = engine.random.choice
    while (name := f"{choose(_LEFT)}_{choose(_RIGHT)}") in engine.names:
        name += str(engine.random.randrange(1_000_000))
        if name not in engine.names:
            break
    return name


def _networks(engine: Engine, mode: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Endpoint]]:
    if mode.startswith("container:"):
        try:
            return f"container:{engine.container(mode.removeprefix('container:')).id}", {}
        except RefusedError:
            return mode, {}
    name = "bridge" if mode == "default" else mode
    wanted = given.get(name) or given.get(mode) or {}
    return mode, {name: Endpoint(aliases=wanted.get("Aliases"), given=wanted)}


def _mounts(engine: Engine, body: Mapping[str, Any], host: Mapping[str, Any]) -> tuple[Mount, ...]:
    mounts: dict[str, Mount] = {}
    for bind in host.get("Binds") or ():
        source, _, rest = str(bind).partition(":")
        destination, _, mode = rest.partition(":")
        mounts[destination] = _mount(engine, source, destination, mode)
    for wanted in host.get("Mounts") or ():
        kind, source, target = wanted.get("Type"), str(wanted.get("Source") or ""), str(wanted.get("Target") or "")
        mode = "ro" if wanted.get("ReadOnly") else ""
        if kind == "tmpfs":
            mounts[target] = Mount("tmpfs", "", "", target)
        elif source or kind == "volume":
            mounts[target] = _mount(engine, source, target, mode)
    for path in body.get("Volumes") or ():
        if path not in mounts:
            volume = engine.add_volume()
            mounts[path] = Mount("volume", volume.name, engine.mountpoint(volume.name), path, anonymous=True)
    return tuple(mounts.values())


def _mount(engine: Engine, source: str, destination: str, mode: str) -> Mount:
    writable = "ro" not in mode.split(",")
    if source.startswith("/"):
        return Mount("bind", "", source, destination, mode, writable)
    volume = engine.add_volume(source)
    where = engine.mountpoint(volume.name)
    return Mount("volume", volume.name, where, destination, mode or "z", writable, anonymous=not source)


def add_container(
    engine: Engine,
    *,
    name: str,
    image: str,
    state: str = "exited",
    created: datetime | None = None,
    started: datetime | None = None,
    finished: datetime | None = None,
    exit_code: int = 0,
    labels: Mapping[str, str] | None = None,
    command: Sequence[str] = ("sleep", "infinity"),
    networks: Sequence[str] = ("bridge",),
    restart_policy: str = "no",
    volumes: Mapping[str, str] | None = None,
    behaviour: Behaviour | None = None,
) -> Container:
    """Put a container into an engine as if it had been there for long. Tells no event.

    Args:
        engine: where it goes. Images and networks that it has not are made.
        name: must be new.
        image: a reference, or `sha256:...` for one whose tag has been taken away.
        state: Docker's word: created, running, paused, restarting, exited, removing (for ever), dead.
        created: true time, as the others; now when None. The engine's skew is added.
        started: `created` when None, unless it is `created`.
        finished: `started` when None, where it has ended.
        exit_code: of its last end.
        labels: may be shared between containers. Those of its image come to them.
        command: what `docker ps` shows and, without `behaviour`, sets how it behaves.
        networks: names; or one `host`, `none` or `container:ID`.
        restart_policy: no, always, unless-stopped, on-failure.
        volumes: path in the container to the name of a volume, or "" for an anonymous one.
        behaviour: what it does from now on.
    """
    found = engine.images.find(image) or engine.images.add("" if image.startswith("sha256:") else image)
    shift = int(engine.skew.total_seconds() * NS)
    born = nanoseconds(created) + shift if created else engine.tick()
    begun = 0 if state == "created" else nanoseconds(started) + shift if started else born
    ended = nanoseconds(finished) + shift if finished else 0
    if state in ("exited", "dead", "removing", "restarting"):
        ended = ended or begun
    mode = networks[0] if networks else "none"
    places: dict[str, Endpoint] = {}
    for network in networks:
        if not network.startswith("container:"):
            place = engine.networks.named(network) or engine.networks.add(network)
            # As after an end: the network's id stays in the container.
            places[network] = Endpoint(network_id="" if state == "created" else place.id)
    ident = engine.new_id()
    mounts = []
    for path, volume in (volumes or {}).items():
        made = engine.add_volume(volume, created=born)
        mode_of = "" if not volume else "z"
        mounts.append(Mount("volume", made.name, engine.mountpoint(made.name), path, mode_of, anonymous=not volume))
    acts = behaviour or behaviour_of(command)
    if behaviour is None and state in ("running", "paused"):
        acts = Behaviour(obeys=acts.obeys, stop_code=acts.stop_code, log=acts.log)  # it has not ended so far
    container = Container(
        id=ident,
        name=name,
        image=found.id if image.startswith("sha256:") else image,
        image_id=found.id,
        argv=tuple(command),
        created=born,
        labels={**found.labels, **(labels or {})} if found.labels else labels or {},
        config={"Cmd": list(command)},
        host={},
        network_mode="default" if mode == "bridge" else mode,
        networks=places,
        mounts=tuple(mounts),
        behaviour=acts,
        policy=restart_policy,
        started=begun,
        finished=ended,
        exit_code=exit_code,
        oom_killed=acts.oom and bool(ended),
        log=list(acts.log) if begun else [],
    )
    engine.enter(container)
    _put_into_state(engine, container, state)
    return container


def _put_into_state(engine: Engine, container: Container, state: str) -> None:
    match state:
        case "created" | "exited":
            pass
        case "running" | "paused":
            container.running, container.paused = True, state == "paused"
            container.run, container.pid = 1, engine.random.randrange(1000, 4_000_000)
            for name, place in container.networks.items():
                engine.networks.attach(container, engine.networks.lookup(name, place), place)
        case "restarting":
            container.running = container.restarting = True
            container.run, container.delay, container.restart_count = 1, 60.0, 12
            if container.behaviour.runs is None:
                container.behaviour = Behaviour(runs=0, code=container.exit_code or 1)
            container.policy = container.policy if container.policy not in ("", "no") else "always"
            Life(engine).restart_in(container, 60.0)
        case "dead":
            container.dead = True
        case "removing":
            container.dead = container.removing = True
            container.removal = Removal(volumes=False)
        case _:
            raise ValueError(f"{state!r} is no state of a container")


def _built(container: ContainerSpec) -> dict[str, str]:
    """The labels of the container's image where Compose 2 has built it: its name is that of project and service then."""
    project, service, version = (container.labels.get(f"{_COMPOSE}{key}", "") for key in ("project", "service", "version"))
    if not project or container.image != f"{project}-{service}":
        return {}
    return {f"{_COMPOSE}project": project, f"{_COMPOSE}service": service, f"{_COMPOSE}version": version}


def load(engine: Engine, containers: Iterable[ContainerSpec], networks: Iterable[NetworkSpec] = ()) -> None:
    """Put a world's networks and containers into an engine."""
    shift = int(engine.skew.total_seconds() * NS)
    for spec in networks:
        created = nanoseconds(spec.created) + shift
        engine.networks.add(spec.name, driver=spec.driver, labels=spec.labels, created=created)
    for container in containers:
        if (built := _built(container)) and engine.images.find(container.image) is None:
            engine.images.add(container.image, labels=built)
        add_container(engine, **{field: getattr(container, field) for field in ContainerSpec.__slots__})

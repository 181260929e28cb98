"""Makes up what a world holds: believable leftovers of benchmark runs, living trials and bystanders, by seed."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from reaper.simulator.world import ABSENT, ContainerSpec, NetworkSpec, SandboxSpec

_TASKS = (
    "chess-best-move", "fix-git", "hello-world", "build-linux-kernel-qemu", "sqlite-db-truncate", "swe-bench-astropy-1",
    "crack-7z-hash", "play-zork", "train-fasttext", "vim-terminal-task", "create-bucket", "polyglot-c-py", "qemu-startup",
    "blind-maze-explorer", "heterogeneous-dates", "nginx-request-logging", "oom", "path-tracing", "raman-fitting", "tmux",
)  # fmt: skip
_RUNS = ("opus-sweep", "nightly", "rl-step-1200", "ablation-7", "regression")
_TEAMS = ("web", "data", "infra", "research")
_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_TRANSITIONS = ("creating", "starting", "stopping", "destroying", "archiving", "pending_build", "pulling_snapshot")
_BYSTANDERS = (
    ("billing-db", "postgres:16", "unless-stopped"),
    ("grafana", "grafana/grafana:11.2.0", "always"),
    ("registry", "registry:2", "always"),
    ("redis-cache", "redis:7", "no"),
    ("jupyter-anna", "jupyter/scipy-notebook:latest", "no"),
)


def sandboxes(seed: int, count: int, now: datetime, *, odd: float = 0.0) -> Iterator[SandboxSpec]:
    """So many sandboxes of an organisation that runs Harbor, most of them forgotten.

    Args:
        seed: the same seed makes the same ones.
        count: how many.
        now: their ages are counted from then.
        odd: the share that breaks careless clients: null labels, no activity, unknown states and labels, strange fields.
    """
    chance = random.Random(f"{seed}/sandboxes")  # noqa: S311 - reproducible on purpose
    for number in range(count):
        spec_id = _uuid(chance)
        pick = chance.random()
        if pick < odd:
            yield _odd(chance, spec_id, now, number)
        elif pick < 0.55:
            yield _harbor(chance, spec_id, now, number, hours=(26, 400))  # its runner was killed
        elif pick < 0.72:
            yield _harbor(chance, spec_id, now, number, hours=(0.05, 8))  # a trial that lives
        elif pick < 0.80:
            yield _harbor(chance, spec_id, now, number, hours=(8, 200), state="stopped", auto_delete=-1)
        elif pick < 0.85:
            failed = chance.choice(("error", "error", "build_failed"))
            yield _harbor(chance, spec_id, now, number, hours=(1, 300), state=failed, error="Failed to start: timeout")
        elif pick < 0.87:
            yield _harbor(chance, spec_id, now, number, hours=(0.001, 0.01), state=chance.choice(_TRANSITIONS))
        elif pick < 0.88:
            yield _harbor(chance, spec_id, now, number, hours=(30, 200), label=("reaper.keep", "true"))
        else:
            yield _foreign(chance, spec_id, now, number)


def _harbor(
    chance: random.Random,
    own: str,
    now: datetime,
    number: int,
    *,
    hours: tuple[float, float],
    state: str = "started",
    auto_delete: int = 0,
    error: str | None = None,
    label: tuple[str, str] | None = None,
) -> SandboxSpec:
    task = chance.choice(_TASKS)
    session = f"{task}__{_code(chance)}"
    created = now - timedelta(hours=chance.uniform(*hours))
    active = created + (now - created) * min(1.0, chance.uniform(0.001, 0.3))
    labels = {"harbor.managed": "true", "harbor.environment_name": task, "harbor.session_id": session}
    labels["run"] = chance.choice(_RUNS)
    if label is not None:
        labels[label[0]] = label[1]
    return SandboxSpec(
        id=own,
        name=f"{session.lower()}-{number}",
        state=state,
        created=created,
        active=active,
        labels=labels,
        snapshot=chance.choice(("daytonaio/sandbox:0.5.0-slim", f"harbor-{task}:latest")),
        cpu=chance.choice((1, 2, 4)),
        memory=chance.choice((1, 2, 4, 8)),
        disk=chance.choice((3, 10)),
        auto_delete=auto_delete,
        error_reason=error,
        runner_dead=state not in {"started", "stopped"} and chance.random() < 0.1,
    )


def _foreign(chance: random.Random, own: str, now: datetime, number: int) -> SandboxSpec:
    created = now - timedelta(hours=chance.uniform(1, 2000))
    return SandboxSpec(
        id=own,
        name=f"{chance.choice(('dev', 'notebook', 'preview', 'agent'))}-{chance.choice(_TEAMS)}-{number}",
        state=chance.choice(("started", "started", "stopped", "paused", "archived", "archived")),
        created=created,
        active=created + (now - created) * chance.random(),
        labels={"team": chance.choice(_TEAMS), "code-toolbox-language": "python"},
        target=chance.choice(("us", "us", "eu")),
        public=chance.random() < 0.1,
    )


def _odd(chance: random.Random, own: str, now: datetime, number: int) -> SandboxSpec:
    created = now - timedelta(hours=chance.uniform(1, 300))
    name = f"odd-{number}"
    match chance.randrange(5):
        case 0:
            return SandboxSpec(id=own, name=name, created=created, labels=None)
        case 1:
            return SandboxSpec(id=own, name=name, created=created, no_activity=True, extra={"lastActivityAt": ABSENT})
        case 2:
            return SandboxSpec(id=own, name=name, created=created, state="hibernating", stuck=True)
        case 3:
            return SandboxSpec(id=own, name=name, created=created, labels={"code-toolbox-language": "cobol"})
        case _:
            return SandboxSpec(id=own, name=name, created=created, extra={"quantum": {"qubits": 8}, "cpu": 0.5})


def containers(seed: int, count: int, now: datetime) -> tuple[list[ContainerSpec], list[NetworkSpec]]:
    """So many containers of a host that runs Terminal-Bench and Harbor, and their networks."""
    chance = random.Random(f"{seed}/containers")  # noqa: S311 - reproducible on purpose
    made: list[ContainerSpec] = []
    networks: list[NetworkSpec] = []
    while len(made) < count:
        pick = chance.random()
        if pick < 0.45:
            members, network = _terminal_bench(chance, now)
        elif pick < 0.9:
            members, network = _harbor_trial(chance, now)
        else:
            members, network = [_bystander(chance, now, len(made))], None
        made += members[: count - len(made)]
        if network is not None:
            networks.append(network)
    return made, networks


def _compose(project: str, service: str, files: str, folder: str = "") -> dict[str, str]:
    return {
        "com.docker.compose.project": project,
        "com.docker.compose.service": service,
        "com.docker.compose.container-number": "1",
        "com.docker.compose.oneoff": "False",
        "com.docker.compose.version": "2.40.3",
        "com.docker.compose.project.working_dir": folder or files.rpartition("/")[0],
        "com.docker.compose.project.config_files": files,
    }


def _life(chance: random.Random, now: datetime) -> dict[str, Any]:
    """State, times and exit code of a trial's containers."""
    if chance.random() < 0.2:  # it lives
        created = now - timedelta(hours=chance.uniform(0.05, 7))
        return {"state": "running", "created": created, "started": created + timedelta(seconds=1)}
    created = now - timedelta(hours=chance.uniform(25, 300))
    started = created + timedelta(seconds=chance.uniform(0.5, 3))
    if chance.random() < 0.5:  # its runner was killed
        return {"state": "running", "created": created, "started": started}
    ended = {"finished": started + timedelta(minutes=chance.uniform(2, 90)), "exit_code": chance.choice((0, 1, 137))}
    return {"state": "exited", "created": created, "started": started, **ended}


def _terminal_bench(chance: random.Random, now: datetime) -> tuple[list[ContainerSpec], NetworkSpec]:
    task = chance.choice(_TASKS)
    life, attempt = _life(chance, now), chance.randint(1, 5)
    project = f"{task}-{attempt}-of-5-{life['created']:%Y-%m-%d__%H-%M-%S}-{_code(chance).lower()}"
    labels = _compose(project, "client", f"/home/ci/terminal-bench/tasks/{task}/docker-compose.yaml")
    if chance.random() < 0.3:
        labels["terminal-bench"] = "true"
    client = ContainerSpec(
        name=project,
        image=f"tb__{task}__client",
        labels=labels,
        networks=(f"{project}_default",),
        **life,
    )
    return [client], _network(project, life["created"])


def _harbor_trial(chance: random.Random, now: datetime) -> tuple[list[ContainerSpec], NetworkSpec]:
    task = chance.choice(_TASKS)
    life = _life(chance, now)
    project = f"{task}__{_code(chance).lower()}"
    kind = chance.choice(("build", "prebuilt"))
    image = f"{project}-main" if kind == "build" else f"registry.example/bench/{task}:1.0"
    files = f"/home/ci/.venv/lib/python3.12/site-packages/harbor/environments/docker/docker-compose-{kind}.yaml"
    services = [("main", image)] + ([("db", "postgres:16")] if chance.random() < 0.15 else [])
    members = [
        ContainerSpec(
            name=f"{project}-{service}-1",
            image=of,
            labels=_compose(project, service, files, f"/home/ci/harbor/tasks/{task}/environment"),
            networks=(f"{project}_default",),
            **life,
        )
        for service, of in services
    ]
    return members, _network(project, life["created"])


def _network(project: str, created: datetime) -> NetworkSpec:
    labels = {"com.docker.compose.project": project, "com.docker.compose.network": "default"}
    return NetworkSpec(name=f"{project}_default", created=created, labels=labels)


def _bystander(chance: random.Random, now: datetime, number: int) -> ContainerSpec:
    name, image, restart = chance.choice(_BYSTANDERS)
    created = now - timedelta(hours=chance.uniform(1, 2000))
    state = "running" if restart != "no" else chance.choice(("running", "exited", "created", "paused"))
    started = None if state == "created" else created + timedelta(seconds=1)
    finished = started + timedelta(hours=0.5) if started is not None and state == "exited" else None
    return ContainerSpec(
        name=f"{name}-{number}",
        image=image,
        labels={},
        state=state,
        created=created,
        started=started,
        finished=finished,
        restart_policy=restart,
        command=(image.partition(":")[0].rpartition("/")[2],),
    )


def _code(chance: random.Random) -> str:
    return "".join(chance.choices(_LETTERS, k=7))


def _uuid(chance: random.Random) -> str:
    bits = f"{chance.getrandbits(128):032x}"
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"

"""What the engine tests have in common: who owns what, Compose projects as the runners make them, and what is left."""

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from devkit.client import DEFAULT_IMAGE, EngineClient
from devkit.compose import HARBOR_FILE
from devkit.engine import Age, PrivateEngine
from devkit.faults import Gate
from devkit.images import run
from tests.run import Ended, Program

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

OWNED = {"terminal-bench": "yes"}
"""A label of a preset."""

WAITS = ("sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait")
"""Runs for ever at no cost, and ends at once with exit code 0 when it is asked to."""

IMPATIENT = {"REAPER_RETRY__INITIAL_DELAY": "50ms", "REAPER_RETRY__JITTER": "0"}
"""Retries soon; everything else as by default."""

COMPOSE_TB_FILE = "tasks/chess-best-move/docker-compose.yaml"


@contextmanager
def started(program: Program, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator["subprocess.Popen[str]"]:
    """The program under way; the block ends it with ``program.finish``, and a test that fails before leaves none behind."""
    with program.start(*arguments, env=env) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def reached(gate: Gate, process: "subprocess.Popen[str]") -> None:
    """Wait until a request of the program stands at the gate, or fail when it has ended before."""
    until(lambda: gate.is_reached or process.poll() is not None, "a request at the gate")
    assert gate.is_reached, process.communicate()


def rows(ended: Ended) -> dict[str, dict[str, Any]]:
    """The report's resources, by name."""
    return {row["name"]: row for endpoint in ended.document["endpoints"] for row in endpoint["resources"]}


def reasons(ended: Ended) -> dict[str, str]:
    """Why each resource is reaped or kept, by name."""
    return {name: row["reason"] for name, row in rows(ended).items()}


def containers(engine: EngineClient) -> set[str]:
    """Names of all containers that the engine has."""
    return {row["Names"][0].removeprefix("/") for row in engine.api.must("GET", "/containers/json?all=1")}


def docker(engine: PrivateEngine, *arguments: str) -> str:
    """What the engine's own ``docker`` prints. Raises EngineError when it fails."""
    return run(*engine.docker_command(), *arguments, env={"DOCKER_HOST": engine.host})


def toml(folder: Path, text: str) -> tuple[str, str]:
    """The option that names a configuration file with this text."""
    file = folder / "reaper-test.toml"
    file.write_text(text)
    return "--config", str(file)


def ran(age: timedelta) -> Age:
    """Of a container that was created and started ``age`` ago and is running still."""
    return Age(created=age, started=age)


def stopped(age: timedelta) -> Age:
    """Of a container that ran for a minute and ended ``age`` ago."""
    return Age(created=age + MINUTE, started=age + MINUTE, finished=age)


def in_parallel(make: Callable[[int], str], number: int, threads: int = 4) -> list[str]:
    """``make`` called for 0, 1, 2, ... by several threads; what it returned, in order."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(make, range(number)))


def exited(engine: EngineClient, name: str, labels: Mapping[str, str] = OWNED, **more: Any) -> str:
    """A container that has run, and has ended this moment; owned unless ``labels`` say otherwise. It has no network unless
    one is named: to get one costs more than to run.
    """
    ident = engine.create(name, cmd=("true",), labels=labels, start=True, **more)
    engine.wait_state(ident, "exited")
    return ident


def until(condition: Callable[[], bool], what: str, deadline: float = 60.0) -> None:
    """Wait for something that nothing can be waited for. Looks every 10 ms."""
    give_up = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < give_up, f"waited {deadline:g} s for {what}"
        time.sleep(0.01)


def events(engine: EngineClient, action: str, since: float = 0) -> list[dict[str, Any]]:
    """The events of containers with this action since then (it keeps the last 256 since its start), oldest first.

    Each is the actor's attributes (``name``, ``signal``, ``exitCode``, ...) and ``at`` in seconds.
    """
    filters = quote(json.dumps({"type": ["container"], "event": [action]}))
    answer = engine.api.must("GET", f"/events?since={since:.9f}&until={time.time():.9f}&filters={filters}")
    lines = [answer] if isinstance(answer, dict) else [json.loads(line) for line in answer.splitlines()]
    return [{**line["Actor"]["Attributes"], "at": line["timeNano"] / 1e9} for line in lines]


def member_of(project: str, labels: Mapping[str, str] | None = None) -> dict[str, str]:
    """The labels that make a container or a network a member of a Compose project, and further ones."""
    return {"com.docker.compose.project": project, "com.docker.compose.container-number": "1", **(labels or {})}


def services(images: Mapping[str, str] | Iterable[str], command: Iterable[str] = WAITS) -> dict[str, Any]:
    """A Compose file: the services, each with its image."""
    named = images if isinstance(images, Mapping) else dict.fromkeys(images, DEFAULT_IMAGE)
    return {
        "version": "3",
        "services": {name: {"image": image, "command": list(command)} for name, image in named.items()},
    }


def harbor(engine: PrivateEngine, folder: Path, *projects: str) -> None:
    """Start projects as Harbor makes them: known only by their configuration file's name."""
    engine.import_image()
    engine.compose_all(dict.fromkeys(projects, services(["main"])), directory=folder, file=HARBOR_FILE)


def terminal_bench(engine: PrivateEngine, folder: Path, *projects: str, sidecars: Iterable[str] = ()) -> None:
    """Start projects as Terminal-Bench makes them: known only by the image of the service ``client``."""
    image = engine.tag(DEFAULT_IMAGE, "tb__chess-best-move__client:latest")
    content = services({"client": image, **dict.fromkeys(sidecars, DEFAULT_IMAGE)})
    engine.compose_all(dict.fromkeys(projects, content), directory=folder, file=COMPOSE_TB_FILE)


def more_of(engine: PrivateEngine, like: str, *names: str) -> None:
    """Projects like one that Compose has made, with the labels that it gave, at a tenth of the cost.

    Every second one does not run: to start it costs more than all else, and `make_old` lets it have run and ended.
    """
    (ident,) = projects(engine)[like]
    config = engine.inspect(ident)["Config"]
    network = engine.api.must("GET", f"/networks/{like}_default")["Labels"]
    service = config["Labels"]["com.docker.compose.service"]

    def copy(number: int) -> str:
        name = names[number]
        net = engine.create_network(f"{name}_default", {**network, **member_of(name)})
        labels = {**config["Labels"], **member_of(name)}
        made = f"{name}_{service}_1"
        return engine.create(made, image=config["Image"], cmd=WAITS, labels=labels, start=number % 2 == 0, network=net)

    in_parallel(copy, len(names))


def projects(engine: EngineClient) -> dict[str, list[str]]:
    """The ids of the containers of each Compose project."""
    found: dict[str, list[str]] = {}
    for row in engine.api.must("GET", "/containers/json?all=1"):
        if project := row["Labels"].get("com.docker.compose.project"):
            found.setdefault(project, []).append(row["Id"])
    return found


def make_old(engine: PrivateEngine, *names: str, age: timedelta = 2 * DAY) -> None:
    """Make whole Compose projects old, with their networks; what runs goes on, and what was not started has ended."""
    found = projects(engine)
    wanted = {i: stopped(age) if engine.state(i) == "created" else ran(age) for name in names for i in found[name]}
    networks = [net for net in engine.networks() if net.removesuffix("_default") in names]
    engine.backdate(wanted, networks=dict.fromkeys(networks, age))


def seen_a_day_ago(state: Path) -> None:
    """Let what the memory has seen have been there for a day, unused."""
    (file,) = state.glob("used-*.json")
    content = json.loads(file.read_text())
    content["since"] -= DAY.total_seconds()
    for entry in content["seen"].values():
        for i in (1, 2, 4):  # seen first, used last, arrived
            entry[i] -= DAY.total_seconds()
    file.write_text(json.dumps(content))

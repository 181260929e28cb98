"""Many simulated engines or organisations in a process of their own, all of whose resources are leftovers of days ago.

    python -m benchmarks.worlds CONFIG [--engines N] [--dead N] [--organisations N] [--each N] [--latency SECONDS]
        [--failing SHARE] [--seed N]

It writes the configuration that names them all, prints the variables to export and an empty line, and a line of JSON with
what is left and how many requests came for each SIGUSR1. It ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from reaper.simulator.clock import Clock
from reaper.simulator.daytona.rules import Behaviour
from reaper.simulator.server import Simulator
from reaper.simulator.world import ContainerSpec, SandboxSpec

INSTANT = (0.0, 0.0)
AGE = timedelta(days=3)
# Every way in which a request fails that was not refused; of "after" the server has done what was asked.
FAILURES = ("status:500", "status:503", "reset", "reset,after", "truncate")


def _containers(count: int, clock: Clock) -> list[ContainerSpec]:
    then = clock.now() - AGE
    return [
        ContainerSpec(
            name=f"trial-{number}",
            image="tb__bench__client",
            labels={"terminal-bench": "hello-world"},
            state="exited",
            created=then,
            started=then,
            finished=then + timedelta(minutes=5),
        )
        for number in range(count)
    ]


def _sandboxes(count: int, clock: Clock) -> list[SandboxSpec]:
    found = []
    for number in range(count):
        created = clock.now() - AGE - timedelta(seconds=number)
        labels = {"harbor.managed": "true", "harbor.session_id": f"task-{number}"}
        found.append(SandboxSpec(name=f"task-{number}", created=created, active=created, labels=labels))
    return found


class Worlds:
    """All that is served."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        clock, each, seed = Clock(), arguments.each, arguments.seed
        self.engines = [
            Simulator(seed=seed + number, containers=_containers(each, clock), clock=clock)
            for number in range(arguments.engines)
        ]
        homes = {f"org-{number}": _sandboxes(each, clock) for number in range(arguments.organisations)}
        behaviour = Behaviour(destroy=INSTANT, pickup=INSTANT)
        self.dead = [socket.socket() for _ in range(arguments.dead)]
        for number, dead in enumerate(self.dead):
            dead.bind(("127.0.0.1", 0))
            if number % 2:
                dead.listen()  # connections are made, and never answered; without it they are refused
        self.daytona = Simulator(seed=seed, sandboxes=homes, clock=clock, behaviour=behaviour) if homes else None
        for simulator in self.simulators:
            if arguments.latency:
                simulator.faults.add(f"latency:{arguments.latency * 1000:g}ms")
            chance = 1 - (1 - arguments.failing) ** (1 / len(FAILURES))
            if chance:
                simulator.faults.add(*(f"{failure},probability={chance}" for failure in FAILURES))

    @property
    def simulators(self) -> list[Simulator]:
        return [*self.engines, *([self.daytona] if self.daytona is not None else [])]

    def announce(self, config: Path) -> None:
        """Write the configuration, and print what it needs besides."""
        tables = [
            f'[[docker]]\nname = "engine-{number}"\nhost = "{simulator.docker_host}"\n'
            for number, simulator in enumerate(self.engines)
        ]
        tables += [
            f'[[docker]]\nname = "dead-{number}"\nhost = "tcp://127.0.0.1:{dead.getsockname()[1]}"\n'
            for number, dead in enumerate(self.dead)
        ]
        if self.daytona is not None:
            for number in range(len(self.daytona.daytona.dump()["organisations"])):
                tables.append(f'[[daytona]]\nname = "org-{number}"\napi_key_env = "KEY_{number}"\nmax_rate_share = 1.0\n')
                print(f"KEY_{number}={self.daytona.api_key(f'org-{number}')}")
            print(f"DAYTONA_API_URL={self.daytona.daytona_url}")
        config.write_text("\n".join(tables), encoding="utf-8")
        print(flush=True)

    def report(self) -> None:
        """Print what is left and how many requests came."""
        found = {"containers": sum(len(simulator.engine.containers) for simulator in self.engines), "sandboxes": 0}
        if self.daytona is not None:
            found["sandboxes"] = sum(each["sandboxes"] for each in self.daytona.daytona.dump()["organisations"].values())
        requests = sum(simulator.docker.traffic.count() + simulator.daytona.traffic.count() for simulator in self.simulators)
        print(json.dumps({"left": sum(found.values()), "requests": requests}), flush=True)


async def _serve(arguments: argparse.Namespace) -> None:
    worlds, stop, loop = Worlds(arguments), asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, worlds.report)
    async with AsyncExitStack() as stack:
        for simulator in worlds.simulators:
            await stack.enter_async_context(simulator)
        worlds.announce(arguments.config)
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--engines", type=int, default=0)
    parser.add_argument(
        "--dead", type=int, default=0, help="engines besides; every other one refuses, the rest never answer"
    )
    parser.add_argument("--organisations", type=int, default=0)
    parser.add_argument("--each", type=int, default=0, help="containers or sandboxes")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--failing", type=float, default=0.0, help="of all requests")
    parser.add_argument("--seed", type=int, default=7)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()

"""A simulated world in a process of its own: what the benchmarks of sandboxes and of the service run against.

    python -m benchmarks.server SANDBOXES [--containers N] [--old] [--leaked N] [--latency SECONDS]
        [--limits LIFECYCLE GENERAL]

It prints the variables to export and an empty line, and ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

from reaper.simulator.clock import Clock
from reaper.simulator.daytona.limits import Limit
from reaper.simulator.daytona.rules import Behaviour
from reaper.simulator.server import DEFAULT, Simulator, serve
from reaper.simulator.world import ContainerSpec, SandboxSpec

INSTANT = (0.0, 0.0)
WINDOW = 10.0


def _sandbox(number: int, age: timedelta, simulator: Simulator) -> SandboxSpec:
    created = simulator.clock.now() - age - timedelta(seconds=number)
    labels = {"harbor.managed": "true", "harbor.session_id": f"task-{number}", "run": "bench"}
    return SandboxSpec(name=f"task-{number}", created=created, active=created, labels=labels, auto_delete=0)


def _container(number: int, now: datetime) -> ContainerSpec:
    """A living trial: it runs, is owned and has just begun."""
    created = now - timedelta(minutes=5)
    return ContainerSpec(
        name=f"trial-{number}",
        image="tb__bench__client",
        labels={"terminal-bench": "hello-world"},
        state="running",
        created=created,
        started=created,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sandboxes", type=int)
    parser.add_argument("--containers", type=int, default=0, help="living ones")
    parser.add_argument("--old", action="store_true", help="leftovers of days ago; without it, trials that have just begun")
    parser.add_argument("--leaked", type=int, default=0, help="so many leftovers of days ago beside them")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--limits", type=int, nargs=2, metavar=("LIFECYCLE", "GENERAL"), help=f"per {WINDOW:g} s")
    arguments = parser.parse_args()
    clock = Clock()
    containers = [_container(number, clock.now()) for number in range(arguments.containers)]
    simulator = Simulator(containers=containers, clock=clock, behaviour=Behaviour(destroy=INSTANT, pickup=INSTANT, race=0.0))
    age = timedelta(days=3 if arguments.old else 0)
    organisation = simulator.organisation()
    for number in range(arguments.sandboxes):
        organisation.add(_sandbox(number, age, simulator))
    for number in range(arguments.leaked):
        leaked = _sandbox(number, timedelta(days=3), simulator)
        organisation.add(replace(leaked, name=f"leaked-{number}", labels={"harbor.managed": "true"}))
    if arguments.latency:
        simulator.faults.add(f"latency:{arguments.latency * 1000:g}ms")
    if arguments.limits:
        lifecycle, general = arguments.limits
        simulator.daytona.set_limits(DEFAULT, general=Limit(general, WINDOW), lifecycle=Limit(lifecycle, WINDOW))

    def announce(running: Simulator) -> None:
        print("\n".join(f"{name}={value}" for name, value in running.environment().items()), end="\n\n", flush=True)

    asyncio.run(serve(simulator, announce))


if __name__ == "__main__":
    main()

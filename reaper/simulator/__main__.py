"""`reaper simulate --seed 7 --containers 500 --sandboxes 2000` prints what to export, and serves until a signal.

The servers are imported when they are started: a shell completes the options, too.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reaper import exits
from reaper.errors import ConfigError
from reaper.simulator import EXAMPLE_FAULTS

_FASTEST = 1e6  # simulated seconds each second

if TYPE_CHECKING:
    from reaper.simulator.daytona.limits import Limit
    from reaper.simulator.faults import Fault
    from reaper.simulator.server import Simulator


def _fault(text: str) -> "Fault":
    from reaper.simulator.faults import Fault  # noqa: PLC0415

    try:
        return Fault.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _limit(text: str) -> "Limit":
    from reaper.simulator.daytona.limits import Limit  # noqa: PLC0415

    match = re.fullmatch(r"(\d+)/(\d+(?:\.\d+)?)s?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no limit; write for example 600/10s: requests per seconds")
    return Limit(int(match[1]), float(match[2]))


def _count(text: str) -> int:
    """A number that is not negative."""
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write for example 500")
    return int(text)


def _port(text: str) -> int:
    if (port := _count(text)) >= 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; write one below 65536, or 0 for a free one")
    return port


def _share(text: str) -> float:
    if not 0 <= (share := _float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; write for example 0.05")
    return share


def _rate(text: str) -> float:
    if not 0 <= (rate := _float(text)) <= _FASTEST:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no rate; write for example 60: a minute each second, or 0: time stands"
        )
    return rate


def _float(text: str) -> float:
    """The number, which may be none ("nan"). Raises ArgumentTypeError for what is no number at all."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _announce(simulator: "Simulator") -> None:
    for name, value in simulator.environment().items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
    sys.stdout.flush()


def build_parser() -> argparse.ArgumentParser:
    """The options of ``reaper simulate``."""
    parser = argparse.ArgumentParser(prog="reaper simulate", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same world (default 0)")
    parser.add_argument("--containers", type=_count, default=0, metavar="N", help="how many containers to make up")
    parser.add_argument("--sandboxes", type=_count, default=0, metavar="N", help="how many sandboxes to make up")
    parser.add_argument("--odd", type=_share, default=0.0, help="share of the sandboxes that breaks careless clients")
    parser.add_argument("--fault", type=_fault, action="append", default=[], help=f"a rule, for example {EXAMPLE_FAULTS}")
    parser.add_argument("--rate", type=_rate, default=1.0, help="simulated seconds per second (default 1)")
    parser.add_argument("--limit", type=_limit, metavar="N/S", help="Daytona's limit for list and get, as 1200/10s")
    parser.add_argument("--lifecycle-limit", type=_limit, metavar="N/S", help="its limit for delete and stop")
    parser.add_argument("--docker-port", type=_port, help="serve Docker on this TCP port too")
    parser.add_argument("--daytona-port", type=_port, default=0, help="serve Daytona on this port (default: a free one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Read the arguments, serve until a signal."""
    options = build_parser().parse_args(argv)
    import asyncio  # noqa: PLC0415

    from reaper.simulator.clock import Clock  # noqa: PLC0415
    from reaper.simulator.server import DEFAULT, Simulator, serve  # noqa: PLC0415

    simulator = Simulator(
        seed=options.seed,
        containers=options.containers,
        sandboxes=options.sandboxes,
        odd=options.odd,
        clock=Clock(rate=options.rate),
        docker_port=options.docker_port,
        daytona_port=options.daytona_port,
    )
    simulator.faults.add(*options.fault)
    simulator.daytona.set_limits(DEFAULT, general=options.limit, lifecycle=options.lifecycle_limit)
    try:
        asyncio.run(serve(simulator, _announce))
    except ConfigError as error:
        sys.stderr.write(f"reaper: {error}\n")
        return exits.USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())

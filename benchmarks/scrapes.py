"""Serves the metrics of many endpoints and has them scraped; prints what that costs, and how long the loop was held.

Beside a scrape stands ``generate_latest`` over the same series in the same process, in the calling thread.

    python scrapes.py ENDPOINTS SCRAPES        (one JSON object on stdout)
"""

import asyncio
import gc
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

from prometheus_client import generate_latest

from reaper.config.settings import Settings
from reaper.observers.instruments import reach
from reaper.observers.metrics import Metrics
from reaper.service.service import settle_in
from reaper.service.status import Status
from reaper.service.web import Web
from reaper.sweep.result import SweepResult

TICK = 0.001
TEXT = "text/plain;version=0.0.4"
OPEN = "application/openmetrics-text;version=1.0.0"  # what Prometheus asks for first


def _now() -> datetime:
    return datetime.now(UTC)


def made(endpoints: int) -> Metrics:
    """Half of them engines and half organisations, the policies that are built in, and something counted everywhere."""
    providers = {f"endpoint-{n}": ("docker", "daytona")[n % 2] for n in range(endpoints)}
    policies = Settings().rules().policies
    metrics = Metrics()
    metrics.configure(
        providers, reach(providers, policies), [n for n, provider in providers.items() if provider == "docker"]
    )
    for number, (name, provider) in enumerate(providers.items()):
        metrics.endpoint_up(name, up=True)
        for _ in range(number + 1):
            metrics.swept(name, provider, SweepResult.SUCCESS.value, 0.1 + number / 7)
        for policy in policies:
            metrics.succeeded(policy.name, name, _now())
    return metrics


class Scraper:
    """Scrapes from another process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def scrape(self, accept: str) -> tuple[float, int]:
        """Seconds, and the size of the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{accept}\n".encode())
        seconds, size = (await self._process.stdout.readline()).split()
        return float(seconds), int(size)


@asynccontextmanager
async def scraper(host: str, port: int) -> AsyncIterator[Scraper]:
    """A process that scrapes there when it is told to."""
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("scrape.py")), host, str(port)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    try:
        yield Scraper(process)
    finally:
        process.stdin.close()
        await process.wait()


@asynccontextmanager
async def watched() -> AsyncIterator[list[tuple[float, float]]]:
    """Measures for how long the loop did not come round while the block runs: how late a timer of a millisecond was.

    By the clock, and in processor time of this process: what others do on the machine is in the first of them only.
    """
    holds: list[tuple[float, float]] = []

    async def watch() -> None:
        while True:
            began, cpu = perf_counter(), process_time()
            await asyncio.sleep(TICK)
            late = perf_counter() - began - TICK
            holds.append((late, min(late, process_time() - cpu)))

    task = asyncio.create_task(watch())
    try:
        yield holds
    finally:
        task.cancel()


async def main(endpoints: int, scrapes: int) -> None:
    metrics = made(endpoints)
    web = Web(Status("1", _now()), metrics.render, clock=_now)
    await web.start("127.0.0.1", 0)
    gc.freeze()  # both as the program does
    gc.set_threshold(20_000, 50, 20)
    settle_in()
    ours: list[float] = []
    theirs: list[float] = []
    async with scraper(*web.addresses[0]) as prometheus:
        for number in range(scrapes + 2):
            began = perf_counter()
            text = generate_latest(metrics.registry)
            plain = perf_counter() - began
            seconds, size = await prometheus.scrape(TEXT)
            if abs(size - len(text)) > len(text) / 1000:  # the ages have grown
                raise SystemExit(f"not the same series: {size} bytes were scraped, {len(text)} are expected")
            if number > 1:  # the first ones warm up
                ours.append(seconds)
                theirs.append(plain)
        cpu, began = process_time(), perf_counter()
        async with watched() as quiet:
            await asyncio.sleep(sum(ours))
        async with watched() as holds:
            for number in range(scrapes):
                await prometheus.scrape((TEXT, OPEN)[number % 2])
        cpu, wall = process_time() - cpu, perf_counter() - began
    await web.close()
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    told = {"ours": median(ours), "theirs": median(theirs), "series": series, "bytes": len(text), "cpu": cpu, "wall": wall}
    told |= {
        "quiet": _worst(quiet, 0),
        "held": _worst(holds, 0),
        "quiet_cpu": _worst(quiet, 1),
        "held_cpu": _worst(holds, 1),
    }
    print(json.dumps(told))


def _worst(holds: list[tuple[float, float]], by: int) -> float:
    return max(hold[by] for hold in holds)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))

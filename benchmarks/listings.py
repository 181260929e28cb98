"""Lists and decides again and again in one process, and prints its resident memory after the first time and the last."""

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from reaper.config.settings import Settings
from reaper.observers.log import LogObserver, configure
from reaper.providers.daytona.registration import REGISTRATION
from reaper.providers.daytona.settings import DaytonaTable
from reaper.providers.registration import EndpointSpec
from reaper.retry.retrier import RetryPolicy
from reaper.sweep.connect import endpoints
from reaper.sweep.sweep import Options, sweep

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE // 1024


async def main(times: int) -> None:
    table = DaytonaTable(name="bench", api_url=os.environ["DAYTONA_API_URL"])
    spec = EndpointSpec(REGISTRATION, table, os.environ["DAYTONA_API_KEY"])
    (endpoint,) = endpoints([spec], RetryPolicy(), Path(os.environ["STATE_DIRECTORY"]), act=False)
    rules, log = Settings().rules(), LogObserver(configure("json", "error"))

    async def held() -> int:
        report = await sweep([endpoint], rules, Options(act=False), clock=lambda: datetime.now(UTC), observer=log)
        assert report.endpoints[0].failure is None, report.endpoints[0].failure
        return report.endpoints[0].held

    count, first = await held(), resident_kib()
    for _ in range(times - 1):
        assert await held() == count
    print(first, resident_kib(), count)
    await endpoint.reader.close()


asyncio.run(main(int(sys.argv[1])))

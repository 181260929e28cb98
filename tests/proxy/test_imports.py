"""Who starts a command through the proxy waits for its imports."""

import subprocess
import sys

HEAVY = {"aiohttp", "aiodocker", "daytona", "anyio", "structlog", "rich", "apscheduler", "prometheus_client"}


def test_no_sdk_is_imported() -> None:
    script = "import sys; import reaper.run.proxy; print(*{name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "reaper" in found
    assert not HEAVY & set(found)

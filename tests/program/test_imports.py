"""What is not needed is not imported: start-up is what a benchmark runner waits for."""

from tests.program.fakeengine import FakeEngine
from tests.program.wrapped import imported
from tests.run import Program

SDKS = {"pydantic", "aiohttp", "aiodocker", "daytona", "anyio", "structlog", "rich", "apscheduler", "prometheus_client"}
SDKS |= {"shtab", "psutil", "asyncio", "tomllib", "logging"}


def _found(modules: set[str], *names: str) -> set[str]:
    return {name for name in modules if any(name == one or name.startswith(f"{one}.") for one in names)}


def test_the_version_needs_nothing(program: Program) -> None:
    modules = imported(program, "--version")
    assert _found(modules, *SDKS) == set()
    assert _found(modules, "reaper") == {"reaper", "reaper.cli", "reaper.cli.channels", "reaper.cli.usage", "reaper.exits"}


def test_a_sweep_in_a_pipe_needs_little(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    fake.add("go-1", "running")
    modules = imported(run, "--once")
    assert fake.names() == set()
    assert {"pydantic", "aiohttp", "aiodocker", "structlog"} <= modules
    unneeded = ("rich", "apscheduler", "daytona", "prometheus_client", "shtab", "psutil")
    assert _found(modules, *unneeded, "reaper.simulator", "reaper.library") == set()
    assert _found(modules, "reaper.providers.daytona.client", "daytona_api_client", "daytona_api_client_async") == set()
    assert _found(modules, "aiohttp.web", "aiohttp.web_app", "aiohttp.web_server") == set()


def test_a_failure_loads_nothing_that_a_deletion_did_not_need(run: Program, fake: FakeEngine) -> None:
    """It may be that nothing can be loaded any more."""
    fake.add("chess-1")
    modules = imported(run, "--once")
    fake.add("chess-2", refusal=(500, "driver failed to remove the root file system"))
    quick = {"REAPER_RETRY__INITIAL_DELAY": "10ms", "REAPER_RETRY__MAX_DELAY": "10ms", "REAPER_RETRY__JITTER": "0s"}
    run.env.update(quick)
    assert imported(run, "--once") - modules == set()
    assert sum(call.startswith("DELETE") for call in fake.calls) > 2, "it was tried again"


def test_asking_for_the_configuration_needs_no_engine_s_sdk(program: Program) -> None:
    modules = imported(program, "config", "check")
    assert _found(modules, "aiodocker", "aiohttp", "daytona", "rich", "structlog") == set()

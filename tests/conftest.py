"""Fixtures that every test may use."""

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from devkit import browser
from devkit.client import EngineClient
from devkit.engine import PrivateEngine
from devkit.flavours import DEFAULT, FLAVOURS
from reaper.leases.store import LeaseFile
from tests import needs
from tests.run import Program

SIMULATOR = "simulator"
QUICK = {"core", "providers", "proxy"}
"""Folders of quick tests, the engines' aside."""

pytest_plugins = ["devkit.instantly", "tests.secrecy"]

# A shell starts what runs in its background with SIGINT ignored, and so would be the programs that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("reaper", deadline=None, derandomize=True)
settings.load_profile("reaper")


def pytest_report_header() -> list[str]:
    no_browser = browser.available()
    reasons = {name: PrivateEngine.available(name) for name in needs.flavours()}
    rest = len(FLAVOURS) - len(reasons)
    return [
        *(
            f"engine tests: {f'on {name}' if reason is None else f'SKIPPED on {name}: {reason}'}"
            for name, reason in reasons.items()
        ),
        *([f"engine tests: SKIPPED on {rest} other engines: REAPER_FLAVOURS=all runs them, too"] if rest else []),
        f"browser tests: {'in a headless browser' if no_browser is None else f'SKIPPED, {no_browser}'}",
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs the tests that are marked with ``engines`` on each of these engines, and all others on the default one.

    Of a mark the default engine alone is used, unless all are asked for.
    """
    if "flavour" not in metafunc.fixturenames:
        return
    mark, names = metafunc.definition.get_closest_marker("engines"), list[str]()
    if {"any_engine", "engine_of_run"} & {*metafunc.fixturenames}:
        names += [SIMULATOR] if mark else [SIMULATOR, DEFAULT]
    names += mark.args if mark else ()
    if names:
        names = [name for name in names if name not in FLAVOURS or name in needs.flavours()]
        params = [pytest.param(name, marks=[pytest.mark.engine] if name in FLAVOURS else []) for name in names]
        if not params:
            why = f"it is for {', '.join(mark.args) if mark else ''}; REAPER_FLAVOURS=all runs it"
            params = [pytest.param("none", marks=[pytest.mark.engine, pytest.mark.skip(reason=why)])]
        metafunc.parametrize("flavour", params, indirect=True, scope="module")


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the groups, which else finds none
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, those that share an engine run one after the other, in one process.

    Those that take milliseconds come last: no process is left with a long one when the others have nothing to do any more.
    """
    items.sort(key=lambda item: item.path.parent.name in QUICK)
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "images_possible" in fixtures:  # which take longer to make than to test
            item.add_marker(pytest.mark.xdist_group("images"))
        elif "engine_possible" in fixtures or item.get_closest_marker("engine") is not None:
            callspec = getattr(item, "callspec", None)
            flavour = callspec.params.get("flavour", DEFAULT) if callspec is not None else DEFAULT
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}/{item.path.stem} {flavour}"))


def pytest_collection_finish() -> None:
    """What pytest and its plugins have loaded stays: a collection after each sweep, as the service makes it, skips it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def files_of_leases(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes the databases that a test has opened in its own process: since Python 3.13 one that is dropped is a warning."""
    opened = list[LeaseFile]()
    init = LeaseFile.__init__

    def tracked(self: LeaseFile, file: Path) -> None:
        init(self, file)
        opened.append(self)

    monkeypatch.setattr(LeaseFile, "__init__", tracked)
    yield
    for file in opened:
        file.close()


@pytest.fixture(scope="session")
def engine_possible() -> None:
    """Skips the test, or fails it where REAPER_REQUIRE_ENGINE demands an engine, when none can be started."""
    reason = PrivateEngine.available()
    if reason is not None:
        needs.lacking(reason)


@pytest.fixture(scope="module")
def flavour(request: pytest.FixtureRequest) -> str:
    """The engine that the test runs on, by its name in ``devkit.flavours``, or another side that its mark names."""
    return str(getattr(request, "param", DEFAULT))


@pytest.fixture(scope="module")
def module_engine(engine_possible: None, flavour: str) -> Iterator[PrivateEngine]:
    """An engine for a module's tests, with the image bench:1."""
    if reason := PrivateEngine.available(flavour):
        needs.lacking(reason)
    with PrivateEngine(flavour) as engine:
        engine.import_image()
        yield engine


@pytest.fixture
def engine(module_engine: PrivateEngine) -> Iterator[PrivateEngine]:
    """The module's engine, which is empty again after each test."""
    yield module_engine
    module_engine.clear()


@pytest.fixture
def any_engine(request: pytest.FixtureRequest, flavour: str) -> Iterator[EngineClient]:
    """An engine with the image bench:1: the simulated one, or a private one."""
    if flavour == SIMULATOR:
        from tests.simulator.docker_world import World

        with World() as world:
            world.import_image()
            yield world
    else:
        found = request.getfixturevalue("engine")
        assert isinstance(found, PrivateEngine)
        yield found


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program, with no endpoint configured."""
    return Program(tmp_path)


@pytest.fixture
def reaper(engine: PrivateEngine, tmp_path: Path) -> Program:
    """The program, with the private engine as its only endpoint."""
    return Program(tmp_path, {"DOCKER_HOST": engine.host})

"""Fixtures that every test may use."""

import gc
import itertools
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from devkit import browser
from devkit.client import EngineClient
from devkit.engine import PrivateEngine
from devkit.flavours import DEFAULT, FLAVOURS
from reaper.leases.store import LeaseFile
from tests import needs
from tests.run import Program

if TYPE_CHECKING:
    from tests.daytona.server import Served
    from tests.simulator.docker_world import World

SIMULATOR = "simulator"
WAITS = {"running": 2.0, "service": 2.0, "ryuk": 1.0, "owners": 1.0, "library": 0.7, "leases": 0.5, "deploy": 0.1}
"""Folders whose tests wait more than they compute, as all do that have an engine, and about how many seconds one takes."""
COMPUTES = {"model": 15.0, "promise": 1.0, "matrix": 0.3, "program": 0.2}
"""The same of those that compute; in all other folders a test takes milliseconds."""
OF_ENGINES = 3.0
LONG = {"test_wheel": 20.0, "test_promise": 4.0, "test_queries": 12.0, "test_beside_sweeps": 25.0}
"""Modules whose tests take longer than those of their folders."""

_ended = itertools.count(1)

pytest_plugins = ["devkit.instantly", "tests.secrecy"]

# A shell starts what runs in its background with SIGINT ignored, and so would be the programs that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A block that has failed waits for its process as one that has not, and one that hangs takes the whole worker with it.
_wait = subprocess.Popen.__exit__


def _kill_or_wait(process: subprocess.Popen[Any], kind: type[BaseException] | None, *rest: Any) -> None:
    if kind is not None:
        process.kill()
    _wait(process, kind, *rest)


subprocess.Popen.__exit__ = _kill_or_wait  # type: ignore[method-assign]

# The same examples in each run. `make explore` makes others.
settings.register_profile("reaper", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("reaper")
# Hypothesis mixes in the constants of the modules that a process has imported by then: which examples a test had would
# depend on the tests that ran before it in its process.
providers._get_local_constants = Constants


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
        *([] if needs.everything() else ["fault matrix: every second cell; REAPER_FLAVOURS=all runs all of them"]),
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

    Those that wait run beside those that compute, from the first to the last, and those that take long come first.
    """
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    waiting, computing = defaultdict[str, list[pytest.Item]](list), defaultdict[str, list[pytest.Item]](list)
    for item, group in groups.items():
        waits = item.path.parent.name in WAITS or _has_engine(item)
        (waiting if waits else computing)[group or item.nodeid].append(item)
    places = {**_places(waiting, 0.9), **_places(computing, 1.0)}
    items.sort(key=places.__getitem__)


def _has_engine(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    return "engine_possible" in fixtures or item.get_closest_marker("engine") is not None


def _group(item: pytest.Item) -> str | None:
    """What a test has to stay with: what its mark says, those of its engine, or of what its module makes once."""
    mark = item.get_closest_marker("xdist_group")
    if mark is not None:
        return str(mark.args[0])
    if "images_possible" in getattr(item, "fixturenames", ()):  # which take longer to make than to test
        return "images"
    module = item.nodeid.partition("::")[0]
    if _has_engine(item):
        callspec = getattr(item, "callspec", None)
        return f"{module} {callspec.params.get('flavour', DEFAULT) if callspec is not None else DEFAULT}"
    made = getattr(item, "_fixtureinfo", None)
    once = made is not None and any(
        d[-1].scope == "module" and d[-1].baseid == module for d in made.name2fixturedefs.values()
    )
    return module if once else None


def _places(groups: Mapping[str, list[pytest.Item]], end: float) -> dict[pytest.Item, float]:
    """Where each stands between the beginning (0) and the end (1), by the time that those before it take."""
    seconds = {name: sum(map(_seconds, items)) for name, items in groups.items()}
    total, before, places = sum(seconds.values()) or 1.0, 0.0, dict[pytest.Item, float]()  # all may be skipped
    for name in sorted(groups, key=lambda name: -seconds[name]):
        places |= dict.fromkeys(groups[name], end * before / total)
        before += seconds[name]
    return places


def _seconds(item: pytest.Item) -> float:
    folder = item.path.parent.name
    if item.get_closest_marker("skip") is not None:
        return 0.0
    return LONG.get(item.path.stem) or (OF_ENGINES if _has_engine(item) else WAITS.get(folder) or COMPUTES.get(folder, 0.02))


def pytest_collection_finish() -> None:
    """What pytest and its plugins have loaded stays: a collection after each sweep, as the service makes it, skips it."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logfinish() -> None:
    """So does what they keep of the tests that have ended: after a thousand, a collection took a quarter of a second."""
    if next(_ended) % 50 == 0:
        pytest_collection_finish()


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
def firewall() -> bool:
    """Whether the module's engine has rules of iptables for its networks, as an engine has by default."""
    return False


@pytest.fixture(scope="module")
def module_engine(engine_possible: None, flavour: str, firewall: bool) -> Iterator[PrivateEngine]:
    """An engine for a module's tests, with the image bench:1."""
    if reason := PrivateEngine.available(flavour):
        needs.lacking(reason)
    with PrivateEngine(flavour).start(rules=firewall) as engine:
        engine.import_image()
        yield engine


@pytest.fixture
def engine(module_engine: PrivateEngine) -> Iterator[PrivateEngine]:
    """The module's engine, which is empty again after each test."""
    yield module_engine
    module_engine.clear()


@pytest.fixture
def world() -> "Iterator[World]":
    """A simulated engine with the image bench:1."""
    from tests.simulator.docker_world import World

    with World() as world:
        world.import_image()
        yield world


@pytest.fixture
def any_engine(request: pytest.FixtureRequest, flavour: str) -> EngineClient:
    """An engine with the image bench:1: the simulated one, or a private one."""
    found: EngineClient = request.getfixturevalue("world" if flavour == SIMULATOR else "engine")
    return found


@pytest.fixture
def served(tmp_path: Path) -> "Iterator[Served]":
    """A Docker engine and a Daytona organisation, simulated."""
    from tests.daytona.server import Served

    with Served(tmp_path) as served:
        yield served


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program, with no endpoint configured."""
    return Program(tmp_path)


@pytest.fixture
def reaper(engine: PrivateEngine, tmp_path: Path) -> Program:
    """The program, with the private engine as its only endpoint."""
    return Program(tmp_path, {"DOCKER_HOST": engine.host})

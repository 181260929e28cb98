"""Every driver sweeps by a session: nothing else makes clients, journals, lease sources or the observer of observers."""

import ast
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

import reaper
from reaper.config.settings import Settings
from reaper.errors import ConfigError
from reaper.observers.journal import Journal
from reaper.retry.retrier import RetryPolicy
from reaper.session import Session
from reaper.sweep import connect
from reaper.sweep.plan import Plan
from reaper.sweep.sweep import Options

ROOT = Path(reaper.__file__).parent
PARTS = {
    "Journal": {"session.py"},
    "KnownLeases": {"session.py"},
    "SharedLeases": {"leases/sources.py"},  # within KnownLeases
    "ServedLeases": {"leases/sources.py"},
    "_Observers": {"session.py"},
    "Retrier": {"sweep/connect.py"},
    "endpoints": {"session.py"},
    "sweep": {"session.py"},
}
HOMES = {"endpoints": "reaper.sweep.connect", "sweep": "reaper.sweep.sweep"}  # names that methods have, too


def _calls(tree: ast.Module) -> Iterator[str]:
    """The parts that a module makes or calls, under whatever name it has imported them."""
    names = {name: name for name in PARTS if name not in HOMES}
    modules = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in node.names:
            local = alias.asname or alias.name
            if alias.name in PARTS and HOMES.get(alias.name, node.module) == node.module:
                names[local] = alias.name
            if f"{node.module}.{alias.name}" in HOMES.values():
                modules.add(local)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in names:
            yield names[node.func.id]
        elif isinstance(node.func, ast.Attribute) and node.func.attr in PARTS:
            of = node.func.value
            if node.func.attr not in HOMES or (isinstance(of, ast.Name) and of.id in modules):
                yield node.func.attr


def test_only_the_session_wires_what_a_sweep_needs() -> None:
    places: dict[str, set[str]] = {part: set() for part in PARTS}
    for path in ROOT.rglob("*.py"):
        for part in _calls(ast.parse(path.read_text())):
            places[part].add(path.relative_to(ROOT).as_posix())
    assert places == PARTS


@pytest.mark.parametrize(
    "source",
    [
        "from reaper.observers.journal import Journal\nJournal(x)",
        "from reaper.observers import journal\njournal.Journal(x)",
        "from reaper.sweep import connect\nconnect.endpoints(x)",
        "from reaper.sweep.connect import endpoints as dial\ndial(x)",
        "from reaper.sweep.sweep import sweep\nasync def f(): await sweep(x)",
    ],
)
def test_a_driver_that_wires_by_itself_is_found(source: str) -> None:
    assert len(list(_calls(ast.parse(source)))) == 1


def test_a_driver_that_asks_its_session_is_not_taken_for_one_that_wires() -> None:
    source = "async def f(session):\n    session.endpoints\n    await session.sweep(stop)\n    plan.endpoints()"
    assert list(_calls(ast.parse(source))) == []


def test_the_journal_is_closed_when_a_client_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    closed, really = [], Journal.close

    async def close(journal: Journal) -> None:
        await really(journal)
        closed.append(True)

    def refuse(*_: object, **__: object) -> None:
        raise ConfigError("the certificate cannot be read")

    monkeypatch.setattr(Journal, "close", close)
    monkeypatch.setattr(connect, "endpoints", refuse)
    settings = Settings()
    session = Session(Plan((), settings.rules(), Options(), RetryPolicy(), tmp_path, settings.journal), sockets=())

    async def work() -> None:
        async with session:
            pytest.fail("it must not open")

    with pytest.raises(ConfigError):
        anyio.run(work)
    assert closed == [True]

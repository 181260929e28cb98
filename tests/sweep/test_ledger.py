"""What is about to be deleted is on record first."""

from collections.abc import Sequence

import pytest

from reaper.core.model import Decision
from reaper.sweep.sweep import Options, sweep
from tests.sweep.lab import Lab, many, stopped

pytestmark = pytest.mark.anyio


class Book:
    """Remembers what it was told, and how many deletions had been asked for by then."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.entries: list[tuple[str, str, set[str], int]] = []

    async def begin(self, endpoint: str, provider: str, decisions: Sequence[Decision]) -> None:
        names = {decision.resource.name for decision in decisions}
        self.entries.append((endpoint, provider, names, len(self.lab.world.made("delete"))))


async def _swept(lab: Lab, **options: object) -> Book:
    book, chosen = Book(lab), Options(**options)  # type: ignore[arg-type]  # as the caller says
    await sweep(
        [lab.endpoint(act=chosen.act)], lab.rules, chosen, clock=lab.clock, observer=lab.observer, ledger=book, stop=lab.stop
    )
    return book


async def test_it_is_reported_of_all_that_goes_before_the_first_deletion() -> None:
    book = await _swept(Lab(*many(3), stopped("young", hours=0.1)))
    assert book.entries == [("local", "memory", {"c0000", "c0001", "c0002"}, 0)]


@pytest.mark.parametrize("options", [{"act": False}, {"max_deletions": 2}, {"due": frozenset({"old"})}])
async def test_it_is_not_told_where_nothing_is_to_be_deleted(options: dict[str, object]) -> None:
    assert (await _swept(Lab(*many(3)), **options)).entries == []

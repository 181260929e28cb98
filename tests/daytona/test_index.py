"""A search index that lacks sandboxes: the database, which the older form of the listing reads, shows them."""

from collections.abc import Container
from datetime import timedelta

import pytest

from reaper.core.model import Report
from reaper.retry.retrier import RetryPolicy
from reaper.simulator.daytona.index import Index
from reaper.simulator.daytona.model import Sandbox
from reaper.simulator.daytona.query import Query
from reaper.sweep.runner import exit_code
from tests.daytona.lab import DAY, FRESH, HARBOR, HOUR, SECOND, Lab, everything, outcomes
from tests.daytona.test_groups import in_session

pytestmark = pytest.mark.anyio
MISSING = "status:404,path=/sandbox/paginated,message=Sandbox with ID or name paginated not found"


def lose(lab: Lab, *names: str) -> None:
    """Let the index lack these for good."""
    lab.org.views.lost |= {row.id for row in lab.org.rows.values() if row.name in names}


@pytest.mark.parametrize("page_size", [200, 3])
async def test_a_living_follower_that_the_index_lacks_keeps_its_owner(page_size: int) -> None:
    async with Lab() as lab:
        owner = lab.add("owner")
        lab.add("follower", age=HOUR, linked=owner.id)
        for number in range(5):
            lab.add(f"young-{number}", age=HOUR / (number + 2))
        lose(lab, "follower")
        report = await lab.sweep(table={"page_size": page_size})
        assert outcomes(report) == {}
        assert lab.left() >= {"owner", "follower"}


@pytest.mark.parametrize("page_size", [200, 3])
async def test_a_living_member_that_the_index_lacks_keeps_its_session(page_size: int) -> None:
    async with Lab() as lab:
        lab.add("alive", age=HOUR, labels=in_session("c"))
        lab.add("ended", labels=in_session("c"))
        for number in range(5):
            lab.add(f"young-{number}", age=HOUR / (number + 2))
        lose(lab, "alive")
        assert outcomes(await lab.sweep(table={"page_size": page_size})) == {}
        assert lab.left() >= {"alive", "ended"}


async def test_a_follower_that_is_made_after_the_listing_and_that_the_index_lacks_keeps_its_owner() -> None:
    async with Lab(behaviour=FRESH) as lab:
        owner = lab.add("owner")
        lab.leftovers(3)

        def follow() -> None:
            lab.add("follower", age=timedelta(0), linked=owner.id)
            lose(lab, "follower")

        lab.observer.on_decided = follow
        report = await lab.sweep()
        assert outcomes(report)["owner"] == "skipped"
        assert lab.left() == {"owner", "follower"}


async def test_a_member_that_joins_after_the_listing_and_that_the_index_lacks_keeps_its_session() -> None:
    async with Lab(behaviour=FRESH) as lab:
        lab.add("ended", labels=in_session("c"))

        def join() -> None:
            for number in range(70):  # more than a page of the newest
                lab.add(f"other-{number}", age=timedelta(0))
            lab.add("new", age=SECOND, labels=in_session("c"))
            lose(lab, "new", *(f"other-{number}" for number in range(70)))

        lab.observer.on_decided = join
        report = await lab.sweep()
        assert outcomes(report) == {"ended": "skipped"}
        assert lab.left() >= {"ended", "new"}


async def test_what_the_index_lacks_is_judged_and_goes_with_its_session() -> None:
    async with Lab() as lab:
        lab.add("single")
        rows = [lab.add(f"chess-{number}", labels=in_session("c")) for number in range(3)]
        lose(lab, "single", rows[1].name)
        report = await lab.sweep()
        assert outcomes(report) == dict.fromkeys(["single", *(f"chess-{number}" for number in range(3))], "deleted")
        assert lab.left() == set()


async def test_a_shard_that_does_not_answer_hides_nothing() -> None:
    async with Lab() as lab:
        names = sorted(lab.leftovers(50))
        lose(lab, *names[::2])
        report = await lab.sweep(everything(), table={"page_size": 10})
        assert len(report.results) == 50
        assert lab.left() == set()


@pytest.mark.parametrize(
    "fault",
    [MISSING, "status:500,path=/sandbox/paginated", "garbage,path=/sandbox/paginated", "hang,path=/sandbox/paginated"],
)
async def test_a_server_whose_database_cannot_be_listed_is_swept_by_its_index(fault: str) -> None:
    async with Lab() as lab:
        names = lab.leftovers(5)
        lab.sim.faults.add(fault)
        report = await lab.sweep()
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert exit_code(report) == 0


@pytest.mark.parametrize("attempts", [1, 4])
@pytest.mark.parametrize("fault", ["hang", "status:503", "reset", "status:429"])
async def test_a_database_that_does_not_answer_within_the_tries_of_a_call_is_done_without(attempts: int, fault: str) -> None:
    patience = RetryPolicy(attempts=attempts, jitter=timedelta(0), request_timeout=5 * SECOND)
    async with Lab(behaviour=FRESH, retry=patience) as lab:
        names = lab.leftovers(3)
        lab.sim.faults.add(f"{fault},path=/sandbox/paginated")
        report = await lab.sweep()
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert exit_code(report) == 0


async def test_it_costs_one_request_a_listing_however_many_there_are() -> None:
    async with Lab(behaviour=FRESH) as lab:
        for number in range(90):
            lab.add(f"young-{number}", age=HOUR, labels=HARBOR)
        report = await lab.sweep(table={"page_size": 10}, act=False)
        assert held(report) == 90
        assert len(lab.asked("GET", "/sandbox/paginated")) == 1


async def test_what_is_made_after_the_listing_costs_no_walk_of_the_database() -> None:
    async with Lab(behaviour=FRESH) as lab:
        for number in range(90):
            lab.add(f"young-{number}", age=HOUR, labels=HARBOR)
        lose(lab, lab.add("newest", age=DAY * 0).name)
        report = await lab.sweep(table={"page_size": 10}, act=False)
        assert held(report) == 91
        assert len(lab.asked("GET", "/sandbox/paginated")) == 1


def held(report: Report) -> int:
    return sum(endpoint.held for endpoint in report.endpoints)


async def test_a_listing_that_ends_too_early_keeps_no_session_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server reads a page by two queries; where one of its rows is destroyed between them, it names no next page."""
    page, cut = Query.page, False

    def cut_page(query: Query, index: Index, lost: Container[str] = ()) -> tuple[list[Sandbox], str | None]:
        rows, cursor = page(query, index, lost)
        return rows, None if cut else cursor

    def begin() -> None:
        nonlocal cut
        cut = True

    monkeypatch.setattr(Query, "page", cut_page)
    async with Lab(behaviour=FRESH) as lab:
        names = {f"{session}-{member}" for session in "abc" for member in range(3)}
        for number, name in enumerate(sorted(names)):
            lab.add(name, age=2 * DAY - number * SECOND, labels=in_session(name[0]))
        lab.observer.on_decided = begin
        assert outcomes(await lab.sweep(table={"page_size": 4})) == dict.fromkeys(names, "deleted")

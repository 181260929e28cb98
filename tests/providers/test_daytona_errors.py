"""Refused keys, rate limits, maintenance and answers that are none, each as the error that the sweep understands."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from reaper.errors import (
    CallTimeoutError,
    CredentialsError,
    DeniedError,
    DependencyError,
    InProgressError,
    InvalidError,
    NotFoundError,
    ProviderError,
    RateLimitedError,
    ServerError,
    UnreadableError,
)
from reaper.providers.daytona.client import DaytonaProvider, DaytonaReader
from reaper.retry.retrier import Retrier, RetryPolicy
from reaper.simulator.daytona.limits import Limit
from tests.providers.lab import KEY, Lab, Observed, Recorder, client, closing, direct, envelope, named, page, refused, server
from tests.simulator.daytona_client import START

pytestmark = pytest.mark.anyio

WRONG = "dtn_" + "0bad" * 15
GRACE = timedelta(seconds=10)
Ask = Callable[[DaytonaReader], Awaitable[object]]


async def _stop(reader: DaytonaReader) -> object:
    assert isinstance(reader, DaytonaProvider)
    await reader.stop(named("some-id"), GRACE)
    return None


async def _delete(reader: DaytonaReader) -> object:
    assert isinstance(reader, DaytonaProvider)
    await reader.delete(named("some-id"))
    return None


ASKS: dict[str, Ask] = {
    "list": lambda reader: reader.list(direct),
    "inspect": lambda reader: reader.inspect(named("some-id")),
    "stop": _stop,
    "delete": _delete,
}


def budgets(reader: DaytonaReader) -> tuple[Observed, Observed]:
    """That of reading, and that of changing."""
    reading, changing = reader._api._budgets.values()
    assert isinstance(reading, Observed)
    assert isinstance(changing, Observed)
    return reading, changing


async def answered(
    answer: Callable[[], web.Response], ask: Ask, kind: type[ProviderError], match: str = ""
) -> ProviderError:
    """The error with which ``ask`` ends when the server answers this."""
    async with server(lambda _: answer()) as url, closing(client(url)) as reader:
        return await refused(kind, lambda: ask(reader), match or None)


# Credentials


async def test_an_expired_key() -> None:
    async with Lab() as lab:
        key = lab.sim.daytona.add_key("default", expires=START + timedelta(hours=1))
        reader = lab.client(key)
        await reader.list(direct)
        lab.turn(3601)
        await refused(CredentialsError, lambda: reader.list(direct), "Invalid credentials", key=key)


async def test_wrong_keys_block_the_address_for_good_keys_too() -> None:
    async with Lab(wrong_keys=Limit(3, 60)) as lab:
        wrong = lab.client(WRONG)
        for _ in range(3):
            await refused(CredentialsError, lambda: wrong.list(direct), key=WRONG)
        lab.turn(20)
        for ask in ASKS.values():
            error = await refused(RateLimitedError, partial(ask, lab.provider), key=lab.key)
            assert (error.retry_after, error.everything) == (40, True)
        lab.turn(40)
        await lab.provider.list(direct)


# The envelope


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "Sandbox is not in a stoppable state", InvalidError),
        (400, "Cannot delete sandbox which has active fork children. The forks must be deleted first.", DependencyError),
        (401, "Invalid credentials", CredentialsError),
        (403, "Access denied", DeniedError),
        (404, "Sandbox with ID or name some-id not found", NotFoundError),
        (409, "Sandbox state change in progress", InProgressError),
        (409, "Sandbox was modified by another operation", InProgressError),
        (422, "limit must be an integer number", InvalidError),
        (429, "ThrottlerException: Too Many Requests", RateLimitedError),
        (500, "An unexpected error occurred.", ServerError),
        (502, "Bad Gateway", ServerError),
        (503, "Service is currently under maintenance. Please try again later.", ServerError),
        (504, "Gateway Timeout", ServerError),
    ],
)
@pytest.mark.parametrize("ask", ["inspect", "stop", "delete"])
async def test_each_status_is_one_of_our_errors_with_the_servers_words(
    ask: str, status: int, message: str, kind: type[ProviderError]
) -> None:
    def answer(request: web.Request) -> web.Response:
        return page() if request.path.endswith("/sandbox") else envelope(status, message)

    async with server(answer) as url, closing(client(url)) as reader:
        error = await refused(kind, lambda: ASKS[ask](reader))
    assert message in str(error)
    assert error.retryable is (status == 429 or status >= 500)


async def test_a_message_of_several_parts_and_a_long_one() -> None:
    await answered(lambda: envelope(400, ["limit is odd", "sort is odd"]), ASKS["list"], InvalidError, "is odd; sort is odd")
    error = await answered(lambda: envelope(400, "x" * 5000), ASKS["list"], InvalidError)
    assert len(str(error)) < 600


@pytest.mark.parametrize("body", ["", "<html>oops</html>", "[]", "7", '{"message": 7}', '{"message": {}}', "[" * 100_000])
async def test_an_error_without_an_envelope(body: str) -> None:
    for status, kind in ((403, DeniedError), (409, InProgressError), (500, ServerError), (418, InvalidError)):
        await answered(partial(web.Response, status=status, text=body), ASKS["inspect"], kind, str(status))


@pytest.mark.parametrize("body", ["", "<html>no such page</html>", "404 page not found", "[]", "{}"])
@pytest.mark.parametrize("ask", ASKS)
async def test_a_404_that_is_not_daytonas_confirms_no_deletion(ask: str, body: str) -> None:
    """A gateway that has lost its way says 404, too."""
    await answered(lambda: web.Response(status=404, text=body), ASKS[ask], InvalidError, "404, and not as Daytona does")


async def test_maintenance() -> None:
    async with Lab() as lab:
        lab.sim.daytona.maintenance = True
        for ask in ASKS.values():
            error = await refused(ServerError, partial(ask, lab.provider), "under maintenance", key=lab.key)
            assert error.retryable
        assert (await refused(ServerError, lambda: lab.provider.list(direct), key=lab.key)).retry_after is None


async def test_maintenance_that_says_when_it_ends() -> None:
    error = await answered(lambda: envelope(503, "later", {"Retry-After": "17"}), ASKS["list"], ServerError)
    assert error.retry_after == 17


async def test_no_answer_within_the_time_of_the_caller() -> None:
    async with Lab() as lab:
        lab.sim.faults.add("hang")
        retrier = Retrier(RetryPolicy(attempts=1, request_timeout=timedelta(milliseconds=50)))
        error = await refused(CallTimeoutError, lambda: lab.provider.list(retrier.call), key=lab.key)
        assert error.retryable


# Rate limits


async def test_the_budgets_learn_of_the_limits_from_every_answer() -> None:
    async with Lab() as lab:
        lab.sim.daytona.set_limits("default", general=Limit(100, 60), lifecycle=Limit(10, 30))
        reading, changing = budgets(lab.provider)
        row = lab.add("chess")
        resource = lab.resource(row)
        await lab.provider.list(direct)
        lab.turn(2)
        await lab.provider.inspect(resource)
        assert (reading.told, changing.told) == ([(100, 99, 60), (100, 98, 60), (100, 97, 58)], [])
        await lab.provider.delete(resource)
        await refused(InProgressError, lambda: lab.provider.stop(resource, GRACE), key=lab.key)  # a refusal tells, too
        assert changing.told == [(10, 9, 30), (10, 8, 30)]


async def test_a_server_without_limits_tells_the_budgets_nothing() -> None:
    async with Lab() as lab:
        await lab.provider.list(direct)
        assert [budget.told for budget in budgets(lab.provider)] == [[], []]


@pytest.mark.parametrize("value", ["", "many", "-", "1e400000", "nan"])
async def test_odd_limits_are_no_limits(value: str) -> None:
    names = ("Limit", "Remaining", "Reset")
    for odd in names:
        headers = {f"X-RateLimit-{name}-authenticated": value if name == odd else "5" for name in names}

        def answer(_: web.Request, headers: dict[str, str] = headers) -> web.Response:
            return page(**headers)

        async with server(answer) as url, closing(client(url)) as reader:
            await reader.list(direct)
            assert budgets(reader)[0].told == []


async def test_a_limit_on_reading_silences_reading_alone() -> None:
    async with Lab() as lab:
        lab.sim.daytona.set_limits("default", general=Limit(4, 10), lifecycle=Limit(2, 20))
        row = lab.add("chess")
        for _ in range(2):
            await lab.provider.list(direct)
        for ask in ("list", "inspect"):
            error = await refused(RateLimitedError, partial(ASKS[ask], lab.provider), "ThrottlerException", key=lab.key)
            assert (error.retry_after, error.everything) == (10, False)
        await lab.provider.delete(lab.resource(row))


async def test_a_limit_on_changing_silences_changing_alone() -> None:
    async with Lab() as lab:
        lab.sim.daytona.set_limits("default", general=Limit(9, 10), lifecycle=Limit(1, 20))
        await lab.provider.delete(lab.resource(lab.add("chess")))
        for ask in ("stop", "delete"):
            error = await refused(RateLimitedError, partial(ASKS[ask], lab.provider), key=lab.key)
            assert (error.retry_after, error.everything) == (20, False)
        await lab.provider.list(direct)


@pytest.mark.parametrize(
    ("headers", "seconds", "everything"),
    [
        ({"Retry-After-authenticated": "10"}, 10, False),
        ({"Retry-After-authenticated": "10", "Retry-After": "99"}, 10, False),
        ({"Retry-After-sandbox-lifecycle": "20"}, 20, True),
        ({"Retry-After-sandbox-list": "15"}, 15, False),
        ({"Retry-After-sandbox-list": "15", "Retry-After": "30"}, 15, False),
        ({"Retry-After-sandbox-list": "15", "Retry-After-authenticated": "10"}, 10, False),
        ({"Retry-After": "30"}, 30, True),
        ({"Retry-After-authenticated": "soon", "Retry-After": "30"}, 30, True),
        ({"retry-after-AUTHENTICATED": "10"}, 10, False),
        ({"Retry-After-authenticated": "-5"}, 0, False),
        ({"Retry-After-authenticated": "inf", "Retry-After": "nan"}, 60, True),
        ({}, 60, True),
    ],
)
async def test_how_long_a_429_orders_cooldown(headers: dict[str, str], seconds: float, everything: bool) -> None:
    error = await answered(lambda: envelope(429, "ThrottlerException", headers), ASKS["list"], RateLimitedError)
    assert isinstance(error, RateLimitedError)
    assert (error.retry_after, error.everything) == (seconds, everything)


# Answers that are none


@pytest.mark.parametrize(
    "body",
    [
        "", "null", "7", "{}", '{"items": null}', '{"items": {}}', '{"items": "x"}', '{"items": [], "nextCursor": 7}',
        '{"items": [], "nextCursor": {}}', '{"items": [', "\ufeff{}", "[" * 100_000, '{"items": [' + "9" * 5000 + "]}",
    ],
    ids=lambda body: body[:30],
)  # fmt: skip
async def test_what_is_no_page_is_unreadable(body: str) -> None:
    error = await answered(lambda: web.Response(text=body), ASKS["list"], UnreadableError)
    assert error.retryable


@pytest.mark.parametrize("body", ["", "null", "7", "[]", "{}", '{"id": 7}', "<html></html>", '{"id": "some-id"'])
async def test_what_is_no_sandbox_is_unreadable(body: str) -> None:
    error = await answered(lambda: web.Response(text=body), ASKS["inspect"], UnreadableError)
    assert error.retryable


@pytest.mark.parametrize("body", ["", "null", "{}", '{"state": "started"}'])
async def test_a_deletion_that_was_accepted_needs_no_body(body: str) -> None:
    async with server(lambda _: web.Response(text=body)) as url, closing(client(url)) as reader:
        assert await _delete(reader) is None


async def test_a_deletion_whose_answer_cannot_be_parsed_has_an_unknown_outcome() -> None:
    error = await answered(lambda: web.Response(text="<html>"), ASKS["delete"], UnreadableError)
    assert error.retryable


async def test_a_web_page_in_place_of_the_listing_is_explained() -> None:
    """The real server has its dashboard where an URL without /api leads."""
    page_of_it = web.Response(text="\n<!doctype html><title>Daytona</title>", content_type="text/html")
    async with server(lambda _: page_of_it) as url, closing(client(url)) as reader:
        await refused(
            UnreadableError, lambda: reader.list(direct), "is no JSON, but a web page; its URL ends in /api as a rule"
        )


async def test_a_cursor_that_never_ends_is_an_error() -> None:
    asked: list[str] = []

    def again(request: web.Request) -> web.Response:
        asked.append(request.query.get("cursor", ""))
        return page({"id": "one"}, cursor=f"more-{len(asked) % 3}")

    async with server(again) as url, closing(client(url)) as reader:
        await refused(UnreadableError, lambda: reader.list(direct), "does not end")
    assert asked[:4] == ["", "more-1", "more-2", "more-0"]
    assert len(asked) < 40


async def test_some_fruitless_pages_are_no_circle() -> None:
    def slowly(request: web.Request) -> web.Response:
        number = int(request.query.get("cursor", "0"))
        return page({"id": f"c{number // 10}"}, cursor=None if number == 49 else str(number + 1))

    async with server(slowly) as url, closing(client(url)) as reader:
        found = (await reader.list(direct)).resources
    assert [resource.id for resource in found] == ["c0", "c1", "c2", "c3", "c4"]


_at = datetime.fromisoformat


class Forgetful:
    """A server that knows no cursor: it answers one with an empty page, as the real one does with one of another store.

    Args:
        size: of a page.
        filters: whether it knows createdAtAfter.
        rows: created so many seconds after START; None for one that does not say when.
    """

    def __init__(self, size: int, *rows: float | None, filters: bool = True) -> None:
        self.size = size
        self.filters = filters
        self.rows = [self._row(f"c{number}", seconds) for number, seconds in enumerate(rows)]
        self.asked: list[str] = []

    @staticmethod
    def _row(id_: str, seconds: float | None) -> dict[str, str]:
        created = None if seconds is None else (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
        return {"id": id_} if created is None else {"id": id_, "createdAt": created}

    def __call__(self, request: web.Request) -> web.Response:
        self.asked.append(request.query_string)
        if "cursor" in request.query:
            return page()
        since = request.query.get("createdAtAfter") if self.filters else None
        rows = [row for row in self.rows if since is None or _at(row["createdAt"]) >= _at(since)]
        return page(*rows[: self.size], cursor="lost" if len(rows) > self.size else None)

    async def list(self) -> list[str]:
        async with server(self) as url, closing(client(url)) as reader:
            return [resource.id for resource in (await reader.list(direct)).resources]


@pytest.mark.parametrize("size", [3, 4, 5, 7])
async def test_an_empty_page_is_no_end_while_there_is_more(size: int) -> None:
    """A partial listing is an error, and this one looks whole."""
    assert await Forgetful(size, 0, 1, 2, 2, 3, 60, 3600).list() == [f"c{number}" for number in range(7)]


async def test_more_rows_of_one_moment_than_a_page_has_are_no_end_either() -> None:
    sick = Forgetful(2, 0, 1, 1, 1, 2)
    with pytest.raises(UnreadableError, match="does not end"):
        await sick.list()
    assert len(sick.asked) < 60


async def test_an_empty_page_is_no_end_where_no_row_says_when_it_was_created() -> None:
    with pytest.raises(UnreadableError, match="page 2 of the listing of rl-org is empty, and may not be its end"):
        await Forgetful(2, None, None, None).list()


@pytest.mark.parametrize("filters", [True, False])
async def test_an_empty_page_is_the_end_where_what_it_had_is_gone(filters: bool) -> None:
    """Also before a server that knows no such filter, and begins anew."""
    sick = Forgetful(2, 0, 1, 2, filters=filters)

    def lose(number: int) -> None:
        if number == 2:
            del sick.rows[2:]

    async with server(sick) as url, closing(client(url)) as reader:
        found = await reader.list(Recorder(lose))
    assert [resource.id for resource in found.resources] == ["c0", "c1"]
    assert len(sick.asked) == 3 + 1  # and what the index lacks


async def test_rows_that_are_no_objects_are_counted() -> None:
    rows: list[Any] = [{"id": "one"}, None, 7, "x", [], {}, {"id": "two"}]
    async with server(lambda _: page(*rows)) as url, closing(client(url)) as reader:
        inventory = await reader.list(direct)
    assert [resource.id for resource in inventory.resources] == ["one", "", "two"]
    assert inventory.unreadable == 4


# Clocks


@pytest.mark.parametrize("hours", [-3, 0, 26])
async def test_the_clocks_difference_is_reported_by_the_date(hours: int) -> None:
    skew = timedelta(hours=hours)
    date = format_datetime(datetime.now(UTC) + skew, usegmt=True)
    async with server(lambda _: page(Date=date)) as url, closing(client(url)) as reader:
        inventory = await reader.list(direct)
    assert abs(inventory.clock_skew - skew) < timedelta(seconds=5)


@pytest.mark.parametrize("date", ["", "today", "Sat, 99 Nov 2026 12:00:00 GMT", "Sat, 21 Nov 2026 12:00:00", "0"])
async def test_an_odd_date_tells_of_no_difference(date: str) -> None:
    async with server(lambda _: page(Date=date)) as url, closing(client(url)) as reader:
        assert (await reader.list(direct)).clock_skew == timedelta(0)


async def test_the_simulators_clock_is_the_one_that_its_answers_show() -> None:
    async with Lab() as lab:
        lab.clock.advance(timedelta(days=2))
        skew = lab.clock.now() - datetime.now(UTC)
        assert abs((await lab.provider.list(direct)).clock_skew - skew) < timedelta(seconds=5)


def test_a_client_shows_no_key() -> None:
    reader = client("https://daytona.example/api")
    assert KEY not in f"{reader} {reader!r} {reader.identity}"

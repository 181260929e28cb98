"""Who holds a lease over the Ryuk protocol, who does not, and what becomes of it: over real sockets."""

from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from reaper.leases import ryuk_server, watcher
from reaper.leases.record import Holder, LeaseState, Liveness
from reaper.leases.ryuk_protocol import LONGEST, claim_of, lease_id
from tests.ryuk.lab import CLAIMABLE, LIMIT, House, lease, line, until

pytestmark = pytest.mark.anyio
LIVE, RECONNECTING, EXPIRED, RELEASED = LeaseState
SECRET = "s3cret"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "ROUND", 0.02)
    monkeypatch.setattr(ryuk_server, "ROUND", 0.02)


async def test_ack_means_that_the_lease_is_on_the_disk(tmp_path: Path) -> None:
    async with House(tmp_path).serving() as house:
        client = await house.client()
        await client.send(line("a"), b"\r\n")
        await client.acks()
        record = house.record("a")
        assert (record.state, record.sort, record.holder) == (LIVE, Liveness.CONNECTION, Holder("127.0.0.1"))
        assert [str(claim) for claim in record.claims] == ["label org.testcontainers.session-id=a"]
        await client.send(line("a") + b"\n\n" + line("b"))
        await client.acks(2)
        assert len(house.records()) == 2
        assert house.told("ryuk_line_refused") == []


async def test_a_dead_client_loses_its_lease_although_another_one_lives(tmp_path: Path) -> None:
    async with House(tmp_path).serving() as house:
        one, other = await (await house.client()).named("a"), await (await house.client()).named("b")
        await one.close()
        await until(lambda: house.states("a") == [RECONNECTING], "loss")
        await until(lambda: house.states("a") == [EXPIRED], "end")
        assert house.states("b") == [LIVE]
        assert house.record("a").cause == "its connection was gone for 0.3 s"
        await other.close()
        await until(lambda: house.states("b") == [EXPIRED], "end")


async def test_clients_of_one_set_hold_one_lease_together(tmp_path: Path) -> None:
    async with House(tmp_path).serving() as house:
        one, other = await (await house.client()).named("a"), await (await house.client()).named("a")
        assert len(house.records()) == 1
        await one.close()
        await until(lambda: house.server.clients == 1, "loss of the one")
        await anyio.sleep(0.4)  # longer than the window: that nothing happens cannot be waited for
        assert house.states("a") == [LIVE]
        await other.close()
        await until(lambda: house.states("a") == [EXPIRED], "end")


async def test_who_comes_back_in_time_has_lost_nothing(tmp_path: Path) -> None:
    async with House(tmp_path).serving() as house:
        client = await (await house.client()).named("a")
        since = house.record("a").since
        await client.close()
        await until(lambda: house.states("a") == [RECONNECTING], "loss")
        await (await house.client()).named("a")
        assert house.states("a") == [LIVE]
        assert house.record("a").since == since


async def test_who_comes_back_late_takes_it_anew_with_all_that_it_made(tmp_path: Path) -> None:
    async with House(tmp_path).serving() as house:
        client = await (await house.client()).named("a")
        first = house.record("a")
        await client.close()
        await until(lambda: house.states("a") == [EXPIRED], "end")
        await (await house.client()).named("a")
        again = house.record("a")
        assert (again.state, again.since, again.ended_at, again.claims) == (LIVE, first.since, None, first.claims)


async def test_a_label_that_is_no_session_s_own_is_claimed_anew_from_then_on(tmp_path: Path) -> None:
    """A nightly suite is claimed by its name each night. What someone made with that in the day between is no night's."""
    nightly = b"label=org.testcontainers.suite=nightly"
    id_ = lease_id(claim_of(nightly, CLAIMABLE))
    async with House(tmp_path).serving() as house:
        found = []
        for _ in range(2):
            client = await house.client()
            await client.send(nightly)
            await client.acks()
            await client.close()
            await until(lambda: [record.state for record in house.records() if record.id == id_] == [EXPIRED], "end")
            found += [record for record in house.records() if record.id == id_]
        first, second = found
        assert first.ended_at is not None
        assert second.since > first.ended_at


async def test_what_is_refused_gets_no_ack_and_an_error_that_names_the_peer(tmp_path: Path) -> None:
    async with House(tmp_path).serving() as house:
        client = await house.client()
        port = client.stream.extra(anyio.abc.SocketAttribute.local_port)
        for refused in (b"name=chess", b"\x1b[2J=1", b"x" * (LONGEST + 1), b"secret=hunter2"):
            await client.send(refused)
            await client.silent()
        await client.named("a")  # it stays open
        told = house.told("ryuk_line_refused")
        assert [entry["level"] for entry in told] == ["error"] * 4
        assert {entry["peer"] for entry in told} == {f"127.0.0.1:{port}"}
        assert all(entry["problem"].isprintable() and len(entry["problem"]) < 200 for entry in told)
        assert "hunter2" not in str(house.log)
        assert house.refused == 4
        assert len(house.records()) == 1


async def test_a_page_in_a_browser_takes_no_lease(tmp_path: Path) -> None:
    """Any page can have a browser send a POST here, with a line of the protocol for its body."""
    async with House(tmp_path).serving() as house:
        client = await house.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n\r\n" + line("a"))
        await client.ended()
        assert house.records() == ()
        assert [told["problem"] for told in house.told("ryuk_client_refused")] == [
            "it speaks HTTP, as a browser does, and not the Ryuk protocol"
        ]


async def test_a_line_that_was_cut_off_claims_nothing(tmp_path: Path) -> None:
    async with House(tmp_path).serving() as house:
        client = await house.client()
        await client.send(line("abc"), b"")
        await client.stream.send_eof()
        await client.ended()
        assert house.records() == ()
        (told,) = house.told("ryuk_line_refused")
        assert "line break" in told["problem"]


async def test_who_closes_its_side_at_once_still_hears_the_answer(tmp_path: Path) -> None:
    """As ``nc -N`` does, which the original's README shows."""
    async with House(tmp_path).serving() as house:
        client = await house.client()
        await client.send(line("a"))
        await client.stream.send_eof()
        await client.acks()
        await until(lambda: house.states("a") == [EXPIRED], "end")


async def test_a_noisy_client_does_not_fill_the_log(tmp_path: Path) -> None:
    async with House(tmp_path).serving() as house:
        client = await house.client()
        await client.send(b"name=x\n" * 200 + line("a"))
        await client.acks()
        assert house.refused == 200
        assert len(house.told("ryuk_line_refused")) == ryuk_server.MOST_LOGGED
        assert "further" in house.told("ryuk_line_refused")[-1]


async def test_there_are_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ryuk_server, "MOST_OF_ONE", 2)
    monkeypatch.setattr(ryuk_server, "MOST", 3)
    monkeypatch.setattr(ryuk_server, "MOST_CLIENTS", 2)
    async with House(tmp_path).serving() as house:
        one, other = await house.client(), await house.client()
        for session in "ab":
            await one.named(session)
        await one.send(line("c"))
        await one.silent()
        await one.named("a")
        await other.named("c")
        await other.send(line("d"))
        await other.silent()
        assert [told["problem"] for told in house.told("ryuk_line_refused")] == [
            "this connection holds 2 leases already",
            "3 leases are open already",
        ]
        third = await house.client()
        await third.ended()
        (told,) = house.told("ryuk_client_refused")
        assert told["problem"] == "2 connections are open already"
        await one.close()
        await until(lambda: house.server.clients == 1, "place")
        await (await house.client()).named("a")


async def test_a_client_that_names_nothing_makes_room_for_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ryuk_server, "MOST_CLIENTS", 2)
    async with House(tmp_path).serving() as house:
        one = await house.client()
        await one.named("a")
        idle = await house.client()
        await until(lambda: house.server.clients == 2, "both")
        other = await house.client()
        await other.named("b")
        await idle.ended()
        await one.named("c")
        assert house.server.connected == {lease("a"), lease("b"), lease("c")}
        assert house.told("ryuk_client_refused") == []


async def test_a_lease_of_another_is_not_taken_over(tmp_path: Path) -> None:
    async with House(tmp_path).serving() as house:
        assert house.book is not None
        house.book.take(Liveness.HEARTBEAT, Holder("gpu-1"), name=lease("a"))
        client = await house.client()
        await client.send(line("a"))
        await client.silent()
        elsewhere = House(tmp_path, token=2)
        house.living.add(2)
        elsewhere.open().take(Liveness.CONNECTION, Holder("gpu-2"), name=lease("b"))
        await client.send(line("b"))
        await client.silent()
        told = [entry["problem"] for entry in house.told("ryuk_line_refused")]
        assert "is there already, and is another one" in told[0]
        assert "held by another process" in told[1]


# -- the secret --------------------------------------------------------------------------------------------------------


async def test_who_knows_the_secret_is_served(tmp_path: Path) -> None:
    async with House(tmp_path, secret=SECRET).serving() as house:
        client = await house.client()
        await client.send(f"secret={SECRET}".encode())
        await client.acks()
        await client.named("a")
        await client.send(f"secret={SECRET}".encode())
        await client.silent()
        assert house.states("a") == [LIVE]
        assert SECRET not in str(house.log)


@pytest.mark.parametrize(
    "first",
    [line("a"), b"secret=s3cre", b"secret=s3cret2", b"secret=", b"", b"s3cret", b"x" * (LONGEST + 1), b"secret=\xff"],
)
async def test_who_does_not_gets_no_ack_and_is_sent_away(tmp_path: Path, first: bytes) -> None:
    async with House(tmp_path, secret=SECRET).serving() as house:
        client = await house.client()
        await client.send(first + b"\n" + line("a"))
        await client.ended()
        assert house.records() == ()
        (told,) = house.told("ryuk_client_refused")
        assert told["level"] == "error"
        assert SECRET not in str(house.log)
        assert house.refused == 1


async def test_who_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ryuk_server, "SECRET_WITHIN", 0.05)
    async with House(tmp_path, secret=SECRET).serving() as house:
        client = await house.client()
        await client.ended()
        assert len(house.told("ryuk_client_refused")) == 1
        proven = await house.client()
        await proven.send(f"secret={SECRET}".encode())
        await proven.acks()
        await proven.silent()  # for longer than that
        await proven.named("a")


# -- the book ----------------------------------------------------------------------------------------------------------


async def test_while_there_is_no_book_there_is_no_ack(tmp_path: Path) -> None:
    async with House(tmp_path).serving(closed=True) as house:
        client = await house.client()
        await client.send(line("a"))
        await client.silent()
        house.begin()
        assert house.records() == ()
        await client.named("a")


async def test_a_book_that_is_opened_anew_is_reported_who_is_there(tmp_path: Path) -> None:
    async with House(tmp_path).serving() as house:
        await (await house.client()).named("a")
        gone = await (await house.client()).named("b")
        house.book = None
        await gone.close()
        await until(lambda: house.server.clients == 1, "loss")
        house.begin()
        assert house.states("a", "b") == [RECONNECTING, RECONNECTING]
        await until(lambda: house.states("a") == [LIVE], "news")
        assert house.states("b") == [RECONNECTING]


async def test_a_file_that_cannot_be_written_takes_no_lease_and_forgets_none(tmp_path: Path) -> None:
    async with House(tmp_path).serving() as house:
        client = await (await house.client()).named("a")
        whole = house.file.file.read_bytes()
        house.file.file.write_bytes(b"")
        await client.send(line("b"))
        await client.silent()
        (told,) = house.told("ryuk_line_refused")
        assert "cannot be read" in told["problem"]
        await client.close()
        await until(lambda: house.server.clients == 0, "loss")
        house.file.file.write_bytes(whole)
        await until(lambda: house.states("a") == [EXPIRED], "end")
        assert len(house.records()) == 1


async def test_who_came_back_when_nothing_could_be_written_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async with House(tmp_path).serving() as house:
        client = await (await house.client()).named("a")
        await client.close()
        await until(lambda: house.states("a") == [RECONNECTING], "loss")
        whole = house.file.file.read_bytes()
        house.file.file.write_bytes(b"")
        client = await house.client()
        await client.send(line("a"))
        await client.silent()
        house.file.file.write_bytes(whole)
        await until(lambda: house.states("a") == [EXPIRED], "end")


async def test_those_who_are_connected_may_go_on_when_no_others_are_taken(tmp_path: Path) -> None:
    async with House(tmp_path).serving() as house:
        client = await (await house.client()).named("a")
        house.server.refuse_new()
        with anyio.fail_after(LIMIT), suppress(OSError):
            while True:
                await (await house.client()).ended()
        await client.named("b")
        assert house.states("a", "b") == [LIVE, LIVE]


async def test_a_lease_that_is_released_by_hand_ends(tmp_path: Path) -> None:
    """Over HTTP, say: the client is still connected, and takes it anew when it names it again."""
    async with House(tmp_path).serving() as house:
        client = await (await house.client()).named("a")
        assert house.book is not None
        house.book.release(lease("a"))
        await anyio.sleep(0.1)
        assert house.states("a") == [RELEASED]
        await client.named("a")
        assert house.states("a") == [LIVE]


async def test_a_bug_costs_one_client_its_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with House(tmp_path).serving() as house:
        witness = await (await house.client()).named("a")
        with monkeypatch.context() as broken:
            broken.setattr(ryuk_server, "claim_of", lambda *_: 1 / 0)
            client = await house.client()
            await client.send(line("b"))
            await client.ended()
        assert [told["error"] for told in house.told("internal_error")] == ["ZeroDivisionError: division by zero"]
        await witness.named("b")

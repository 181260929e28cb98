"""What reads bytes of others, each as a function of bytes that raises only where the parser breaks its promise.

A parser answers, or raises the one error that it documents. What it answers has the types that the rest relies on, and
does not depend on where the bytes were cut on their way.
"""

import json
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from reaper.cli import history, summary
from reaper.config import load
from reaper.core import conditions, durations
from reaper.core.claim_check import ClaimError, check_all
from reaper.core.lease import Claim
from reaper.core.lease_index import Leases
from reaper.core.model import Decision, EndpointReport, Kind, Outcome, Reason, Resource, Result, State, Verdict
from reaper.core.savings import Prices, Rates
from reaper.errors import ConfigError, InvalidError, LeasesUnknownError
from reaper.leases import authorization, documents, ryuk_protocol
from reaper.leases.database import create
from reaper.leases.record import Holder, LeaseRecord, LeaseState, Liveness
from reaper.leases.served import ServedLeases
from reaper.leases.store import LeaseFile
from reaper.observers.journal_db import DamagedError, Database, NewerError, reaped_projects
from reaper.observers.journal_rows import Begun, Gap, gaps_left, spell
from reaper.providers import answers, parsing
from reaper.providers.daytona import links as daytona_links
from reaper.providers.daytona import sandboxes
from reaper.providers.docker import containers, docker_host, events, links, upstream, use_record, volumes_images
from reaper.providers.docker.image_labels import ImageLabels
from reaper.providers.docker.settings import DockerTable
from reaper.run.orders import Orders, OrdersError
from reaper.run.proxy import http1, labels
from reaper.service.catchup import last_runs
from reaper.sweep.ownership import Memory

Target = Callable[[bytes], None]

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
CLAIMABLE = ("org.testcontainers.*",)
_LABELS = {"reaper.lease": "run-1"}


def _cut(data: bytes) -> Iterator[bytes]:
    """The data in pieces of sizes that it names itself, so that the same input is cut the same way."""
    place = 0
    while place < len(data):
        step = data[place] % 7 + 1
        yield data[place : place + step]
        place += step


def _json(data: bytes) -> object:
    """The JSON in it, as the clients read it; None where there is none: that they raise is another target's matter."""
    with suppress(ValueError, RecursionError):
        return json.loads(data)
    return None


# -- HTTP through the proxy of ``reaper run`` --------------------------------------------------------------------------


def _request(pieces: Iterator[bytes]) -> tuple[object, ...]:
    """What the proxy takes for the first request, and how many bytes of the stream belong to it."""
    heads, body, taken, request = http1.Heads(), None, 0, None
    try:
        for piece in pieces:
            place = 0
            if request is None:
                raw, place = heads.take(piece, 0, len(piece))
                taken += place
                if not raw:
                    continue
                request = http1.read_request(raw)
                body = request.body
            assert body is not None
            if not body.done:
                stop = body.take(piece, place, len(piece))
                assert place <= stop <= len(piece)
                taken += stop - place
            if body.done:
                break
    except http1.BadMessageError:
        return ("refused",)
    return (request and (request.method, request.target, request.raw), taken, body is not None and body.done)


def http_request(data: bytes) -> None:
    """A client's request: where it ends must not depend on how it is cut, or one could be smuggled behind it."""
    whole = _request(iter([data]))
    assert _request(_cut(data)) == whole
    if whole[0] and whole[0] != "refused":
        assert b"\n" not in whole[0][1], "the engine would read another line"  # type: ignore[index]


def http_answer(data: bytes) -> None:
    """An engine's answer."""
    for method in ("GET", "HEAD"):
        with suppress(http1.BadMessageError):
            answer = http1.read_answer(data, method)
            assert 100 <= answer.status < 600
            rest = data.partition(b"\r\n\r\n")[2]
            assert 0 <= answer.body.take(rest, 0, len(rest)) <= len(rest) or answer.body.done


def http_creation(data: bytes) -> None:
    """A request that creates something, and its answer: the labels get in and all else stays, or nothing is changed."""
    head, _, body = data.partition(b"\n")
    labels.creates("POST", head)
    labels.creates_container(head)
    labels.hijacks("POST", head)
    id_ = labels.created_id(body)
    assert id_ is None or len(id_) == 64
    with suppress(labels.TooDeepError):
        changed = labels.labelled(body, _LABELS)
        if changed != body:
            before, after = (_first(text.decode("utf-8", "surrogateescape")) for text in (body, changed))
            rest = [{k: v for k, v in each.items() if k.casefold() != "labels"} for each in (before, after)]
            assert rest[0] == rest[1]
            assert any(k.casefold() == "labels" and "reaper.lease" in v for k, v in after.items() if isinstance(v, dict))


def _first(text: str) -> dict[str, object]:
    """The first object in a text, which is all that the engine reads of it."""
    found: dict[str, object] = json.JSONDecoder().raw_decode(text.lstrip(" \t\r\n"))[0]
    return found


# -- clients of leases -------------------------------------------------------------------------------------------------


def ryuk_stream(data: bytes) -> None:
    """What a client of Ryuk sends."""

    def lines(pieces: Iterator[bytes]) -> list[bytes | None]:
        reader = ryuk_protocol.Lines()
        return [line for piece in pieces for line in reader.feed(piece)]

    found = lines(iter([data]))
    assert lines(_cut(data)) == found
    for line in found:
        if line is None:
            continue
        ryuk_protocol.is_http(line)
        try:
            claim = ryuk_protocol.claim_of(line, CLAIMABLE)
        except ryuk_protocol.LineError as refused:
            assert str(refused).isprintable()  # noqa: PT017 - either is right
        else:
            check_all([claim], CLAIMABLE)
            assert claim == Claim.of(claim.fields())


def lease_request(data: bytes) -> None:
    """The body of POST /leases, and the header before it."""
    header, _, body = data.partition(b"\n")
    with suppress(authorization.RefusedError):
        text = header.decode("utf-8", "surrogateescape")
        requester = authorization.authenticate(text, token="t0ken", trusted=(), local=True, peer=None)
        assert requester.trusted is text.lower().startswith("bearer ")
    with suppress(ValidationError, ClaimError):
        wanted = documents.LeaseRequest.model_validate_json(body)
        claims = [Claim.of(claim.model_dump()) for claim in wanted.claims]
        check_all(claims, CLAIMABLE)
        assert all(key.startswith("org.testcontainers") for claim in claims for key in claim.selector.labels)


def served_leases(data: bytes) -> None:
    """What a service behind a socket says of its leases: any user of the machine may listen there."""
    for trusted in (False, True):
        reader = ServedLeases("/nowhere")
        with suppress(LeasesUnknownError):
            with suppress(ValueError, TypeError, RecursionError):
                reader.take({**json.loads(data), "whole": True, "trusted": trusted})
            _ask(Leases(reader._index))
            assert trusted or all(lease.ending is None for lease in reader._index)


def _ask(leases: Leases) -> None:
    """Ask as the rules do: what was taken for a lease must hold."""
    labels = {"run": "x", "reaper.lease": "run-1"}
    leases.covering(_container({"Id": "a" * 64, "Names": ["/chess-1"], "Created": int(NOW.timestamp()), "Labels": labels}))


# -- engines and clouds ------------------------------------------------------------------------------------------------


def _container(row: Mapping[str, object]) -> Resource:
    return containers.listed_container(row, "local")


def _check(found: Resource) -> None:
    """Nothing that is without an id, a state or its labels is in any shape to be deleted."""
    assert isinstance(found.id, str)
    assert found.id or found.unreadable
    assert isinstance(found.state, State)
    assert all(isinstance(part, str) for pair in (found.labels or {}).items() for part in pair)
    for at in (found.created_at, found.started_at, found.stopped_at, found.last_activity_at):
        assert at is None or at.utcoffset() == timedelta(0)
    assert isinstance(found.name, str)
    found.name.encode()
    with suppress(conditions.InvalidLabelError):
        conditions.override_end(found)


def docker_rows(data: bytes) -> None:
    """Rows of an engine's listings, and its inspections."""
    found = _json(data)
    rows = [row for row in (found if isinstance(found, list) else [found]) if isinstance(row, dict)]
    directory = links.Directory(rows, rows)
    for row in rows:
        readers: tuple[Callable[[parsing.Row], Resource | None], ...] = (
            lambda row: containers.listed_container(row, "local", directory),
            lambda row: containers.inspected_container(row, "local", directory),
            lambda row: containers.network(row, "local", None),
            lambda row: volumes_images.volume(row, "local", exact=True),
            lambda row: volumes_images.image(row, "local"),
        )
        for read in readers:
            with suppress(ValueError):
                if (resource := read(row)) is not None:
                    _check(resource)
        learnt = ImageLabels("local", None, None)  # type: ignore[arg-type]
        learnt._learn(row, [str(row.get("Id"))])
        learnt.mark(_container({**row, "ImageID": row.get("Id")}))
    containers.engine_id("unix:///x", rows)


def docker_events(data: bytes) -> None:
    """The stream of an engine's events."""

    def read(pieces: Iterator[bytes]) -> list[Resource]:
        async def stream() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        found, reading = list[Resource](), events.deaths(stream(), "local")
        while True:
            try:
                reading.__anext__().send(None)  # type: ignore[attr-defined]  # it waits for nothing
            except StopIteration as answered:
                found.append(answered.value)
            except StopAsyncIteration:
                return found

    found = read(iter([data]))
    assert read(_cut(data)) == found
    for resource in found:
        assert resource.kind is Kind.CONTAINER
        assert not resource.inspected


def docker_uses(data: bytes) -> None:
    """The same stream, of which a record of uses is kept."""
    now = int(NOW.timestamp()) * use_record.NS

    def read(pieces: Iterator[bytes]) -> list[object]:
        async def stream() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        record = use_record.UseRecord()
        record.connected()
        with suppress(StopIteration):  # it waits for nothing
            use_record.read(stream(), record, lambda: now).send(None)
        told = record.joined(record.run, now, ())
        assert told is None, "nothing is what the engine remembers"
        assert 0 <= record.since <= now + use_record.WRONG
        known = (record._used, record._deleted, record._arrived)
        assert all(at <= now + 2 * use_record.WRONG for names in known for at in names.values())
        return [record.since, record.run.partition("-")[2], *known]

    assert read(_cut(data)) == read(iter([data]))


def daytona_rows(data: bytes) -> None:
    """Rows of Daytona's listings."""
    found = _json(data)
    for row in found if isinstance(found, list) else [found]:
        with suppress(ValueError):
            _check(sandboxes.sandbox(row, "org"))
            _check(sandboxes.sandbox(row, "org", {}, "us"))


def answer_texts(data: bytes) -> None:
    """What people are shown of an answer's body and headers."""
    for shown in (answers.message(data), answers.cause(data), answers.text(data)):
        assert "\n" not in shown
        assert "\x1b" not in shown
    text = data.decode("latin-1")
    with suppress(InvalidError):
        answers.refuse_redirect("GET /x", "http://x", 302, {"Location": text}, "host")
    wait = parsing.retry_after(text)
    assert wait is None or 0 <= wait < float("inf")
    skew, error = parsing.clock_skew({"Date": text}, NOW, NOW + timedelta(seconds=1))
    assert abs(skew) <= timedelta(days=36500)
    assert error >= timedelta(0)


# -- texts of people and labels of containers --------------------------------------------------------------------------


def texts(data: bytes) -> None:
    """Durations, times, and the labels that override policies."""
    text = data.decode("utf-8", "replace")
    for parse in (durations.parse, durations.parse_go, durations.parse_time):
        with suppress(ValueError):
            parse(text)
    row = {"Id": "a" * 64, "Created": 1_700_000_000, "Labels": {"reaper.ttl": text, "reaper.expires": text}}
    with suppress(conditions.InvalidLabelError):
        conditions.override_end(_container(row))
    load._value(text, "int", "REAPER_RETRY__ATTEMPTS") if text.strip(" ,") else None
    with suppress(ConfigError):
        load._value(text, "tuple[str, ...]", "REAPER_SCOPE__LABELS")


# -- files -------------------------------------------------------------------------------------------------------------


class _Folder:
    """A folder for files that are read; one for the whole process, since thousands are written."""

    def __init__(self) -> None:
        self._made: tempfile.TemporaryDirectory[str] | None = None

    def write(self, name: str, data: bytes) -> Path:
        self._made = self._made or tempfile.TemporaryDirectory(prefix="reaper-fuzz-")
        file = Path(self._made.name, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("-wal", "-shm", ""):
            Path(f"{file}{suffix}").unlink(missing_ok=True)
        file.write_bytes(data)
        file.chmod(0o600)
        return file


_FOLDER = _Folder()


def configuration(data: bytes) -> None:
    """The configuration file."""
    file = _FOLDER.write("reaper.toml", data)
    with suppress(ConfigError):
        found = load.load(str(file), {})
        load.endpoints(found.settings, {"HOME": "/nonexistent"})


def docker_config(data: bytes) -> None:
    """The configuration of the docker command, and its contexts; and what a run records of the engine behind it."""
    file = _FOLDER.write("docker/config.json", data)
    for name in ("x", data[:8].hex()):
        env = {"DOCKER_CONFIG": str(file.parent), "DOCKER_CONTEXT": name}
        with suppress(ConfigError):
            docker_host.engine_of_commands({"DOCKER_CONFIG": str(file.parent)})
        with suppress(ConfigError):
            docker_host.engine_of_commands(env)
    key = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of "x"
    _FOLDER.write(f"docker/contexts/meta/{key}/meta.json", data)
    with suppress(ConfigError):
        docker_host.engine_of_commands({"DOCKER_CONFIG": str(file.parent), "DOCKER_CONTEXT": "x"})
    file.parent.chmod(0o700)
    _FOLDER.write("docker/s.upstream", data)
    with suppress(upstream.UpstreamError):
        upstream._read(file.parent / "s.upstream")
    upstream.engine_behind(DockerTable(name="x", host=f"unix://{file.parent}/other"))


def orders(data: bytes) -> None:
    """What the guard of a run is told."""
    with suppress(OrdersError):
        _check_record(Orders.load(data).record)


def _check_record(record: LeaseRecord) -> None:
    record.lease().brief(NOW)
    assert record.since.utcoffset() == record.seen_at.utcoffset() == timedelta(0)
    for claim in record.claims:
        claim.covers(_container({"Id": "a" * 64, "Labels": {"run": "x"}}), taking=True)


def remembered(data: bytes) -> None:
    """The small files of the state directory, which an earlier version or a broken disk may have written."""
    folder = _FOLDER.write("state/journal.db.gap-1", data).parent
    for _, gap in gaps_left(folder / "journal.db"):
        assert gap is None or gap.began_at == spell(durations.parse_time(gap.began_at))
    memory, links = Memory(folder, "x"), daytona_links.Links(folder, "x")
    for stored in (memory._stored, links._stored):
        assert stored is not None
        _FOLDER.write(f"state/{stored.path.name}", data)
    memory.recall([_container({"Id": "a" * 64})])
    for id_ in (*memory._known, *links.known):
        assert isinstance(id_, str)


def leases_rows(data: bytes) -> None:
    """A row of the file of leases, of which each column holds what a line says: a file that is whole for SQLite."""
    file = _FOLDER.write("rows/leases.db", _leases())
    with closing(sqlite3.connect(file)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(lease)") if row[1] != "seq"]
        for column, line in zip(columns, data.split(b"\n"), strict=False):
            with suppress(ValueError, RecursionError, sqlite3.Error, OverflowError):
                value = json.loads(line)
                value = value if isinstance(value, str | int | float | None) else json.dumps(value)
                connection.execute(f"UPDATE lease SET {column} = ?", (value,))
        connection.commit()
    _read_leases(file)


def leases_file(data: bytes) -> None:
    """The file of leases: the bytes at the places that the input names are others."""
    _read_leases(_FOLDER.write("file/leases.db", _patched(_leases(), data)))


def _read_leases(path: Path) -> None:
    file = LeaseFile(path)
    try:
        with suppress(LeasesUnknownError):
            for record in file.records():
                _check_record(record)
            _ask(file.leases())
    finally:
        file.close()


def journal_file(data: bytes) -> None:
    """The journal: the bytes at the places that the input names are others."""
    file = _FOLDER.write("journal/journal.db", _patched(_journal(), data))
    last_runs(file)
    reaped_projects(file)
    wanted = history.Wanted(None, None, (), (), (), (), None)
    with suppress(ConfigError):
        found = history._read(file, wanted, load.of_environment({}), None)
        json.loads(history._document(file, found, enabled=True))
        for row in found.acts:
            "".join(history._plain(row))
            history._row(row)
    with suppress(ConfigError):
        prices = Prices("USD", Rates(1.0, 1.0, 1.0, 1.0))
        added = history._read(file, wanted, load.of_environment({}), prices).summary
        json.loads(summary.document(added, prices, None, None, {}))
    with suppress(DamagedError, NewerError, sqlite3.Error):
        Database(file, thorough=True).close()


@cache
def _leases() -> bytes:
    """A file of leases with two records."""
    path = _FOLDER.write("new", b"").with_name("leases.db")
    path.unlink(missing_ok=True)
    create(path)
    file = LeaseFile(path)
    claims = (Claim.of({"labels": ["run=x"], "names": ["chess-*"], "images": [], "projects": []}),)
    for id_, state in (("run-1", LeaseState.LIVE), ("run-2", LeaseState.EXPIRED)):
        ended = NOW if state.ended else None
        holder = Holder("gpu-1", 4711, "1", "harbor run", "ada", 1000)
        record = LeaseRecord(id=id_, sort=Liveness.PROCESS, holder=holder, since=NOW, seen_at=NOW, claims=claims)
        file.put(replace(record, state=state, ended_at=ended))
    file.put_made("run-1", [("engine-1", "a" * 64)], NOW)
    file.close()
    return path.read_bytes()


@cache
def _journal() -> bytes:
    """A journal with a sweep and a gap."""
    path = _FOLDER.write("new", b"").with_name("journal.db")
    path.unlink(missing_ok=True)
    database = Database(path, thorough=True)
    begun = Begun(
        endpoint="local", provider="docker", host="gpu-1", pid=1, token=1, version="0", due=frozenset({"old"}), at=NOW
    )
    thing = _container({"Id": "a" * 64, "Names": ["/chess-1"], "Created": 1_700_000_000, "Labels": {"run": "x"}})
    decision = Decision(thing, Verdict.REAP, Reason.OLDER_THAN, "older than 6 h", policy="old", owner="label run=x")
    database.begin(begun, [decision], NOW)
    database.finish(
        begun,
        EndpointReport(
            endpoint="local", provider="docker", decisions=(decision,), results=(Result(decision, Outcome.DELETED),)
        ),
        NOW,
        NOW,
        {},
    )
    database.begin(begun, [decision], NOW)
    database.add_gap(Gap.of(NOW, NOW, (1, 2), "full"))
    database.close()
    return path.read_bytes()


def _patched(content: bytes, data: bytes) -> bytes:
    """A file with other bytes: each line of the input is a place, a colon and what stands there."""
    found = bytearray(content)
    for line in data.split(b"\n"):
        place, colon, there = line.partition(b":")
        if colon and place.isdigit() and len(place) < 7:
            start = int(place) % len(found)
            found[start : start + len(there)] = there[: len(found) - start]
        elif place == b"cut":
            del found[len(found) // 2 :]
    return bytes(found)


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        target.__name__: target
        for target in (
            http_request,
            http_answer,
            http_creation,
            ryuk_stream,
            lease_request,
            served_leases,
            docker_rows,
            docker_events,
            docker_uses,
            daytona_rows,
            answer_texts,
            texts,
            configuration,
            docker_config,
            orders,
            remembered,
            leases_rows,
            leases_file,
            journal_file,
        )
    }
)

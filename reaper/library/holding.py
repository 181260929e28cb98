"""``lease``: what belongs to a run is kept while it lives, and goes when it has ended, however it ended."""

import getpass
import http.client
import json
import os
import secrets
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import anyio.to_thread

from reaper.claims import LEASE_LABEL
from reaper.library import own
from reaper.library.closing import CleanupScope
from reaper.library.failure import CleanupError
from reaper.places import LISTEN

URL, TOKEN = "REAPER_URL", "REAPER_TOKEN"
ANSWERS_WITHIN = 5.0  # seconds for one request
AGAIN = 5.0  # seconds until one asks again who has had no answer
_FIELDS = ("labels", "names", "images", "projects")

Claim = Mapping[str, Sequence[str]]


class LeaseRefusedError(CleanupError):
    """The service answers, and does not grant the lease: the token or the claims are not what it takes."""


class _AwayError(Exception):
    """Nobody answers, or not as the service does."""


class HeldLease:
    """A lease, taken when its block begins and given back when it ends. See ``lease``.

    Attributes:
        id: its id. It changes only when the service has ended the lease and does not take the same one again.
        state: "live"; "away" while the service does not answer; "refused" when it does not grant the lease (any more);
            "released" outside of the block.
    """

    def __init__(self, service: "_Service", claims: Sequence[Claim], told: Callable[[str], None], name: str | None) -> None:
        self.id = name or secrets.token_hex(8)
        self.state = "released"
        self._service = service
        self._claims = [{field: list(claim.get(field, ())) for field in _FIELDS} for claim in claims]
        self._told = told
        self._every = 20.0
        self._over = threading.Event()
        self._turn = threading.Lock()  # a task that is cancelled while it begins ends it at once
        self._thread: threading.Thread | None = None
        self._taken = False

    @property
    def label(self) -> str:
        """What makes a resource the lease's: ``docker run --label``, or Daytona's labels."""
        return f"{LEASE_LABEL}={self.id}"

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, body: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    async def __aenter__(self) -> Self:
        try:
            await anyio.to_thread.run_sync(self._begin)
        except BaseException:  # cancelled: nobody would leave the block, which is never entered
            async with CleanupScope() as scope:
                scope.call(self._end, in_thread=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, body: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with CleanupScope() as scope:
            scope.call(self._end, in_thread=True)

    # -- in a thread, for every sort of loop and none ------------------------------------------------------------------

    def _begin(self) -> None:
        with self._turn:
            self._start()

    def _end(self) -> None:
        self._over.set()
        with self._turn:
            self._stop()

    def _start(self) -> None:
        self._over.clear()
        own.held.add(self.id)
        try:
            self._take()
        except _AwayError as error:
            self._is_away(error)
        except LeaseRefusedError:
            own.held.discard(self.id)
            raise
        self._thread = threading.Thread(target=self._beat, name=f"lease {self.id}", daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        self._over.set()  # again: it may have begun since
        if self._thread is not None:
            self._thread.join(3 * ANSWERS_WITHIN)
            self._thread = None
        own.held.discard(self.id)
        if self._taken:
            self._taken = False
            try:
                self._service.ask("DELETE", self.id)
            except (_AwayError, LeaseRefusedError) as error:
                self._told(f"lease {self.id} could not be given back, and ends when its heartbeats are missed: {error}")
        self.state = "released"

    def _beat(self) -> None:
        while not self._over.wait(self._every if self.state == "live" else min(self._every, AGAIN)):
            try:
                self._heartbeat()
            except _AwayError as error:
                self._is_away(error)
            except LeaseRefusedError as error:
                if self.state != "refused":
                    self._told(f"lease {self.id} is not granted any more: {error}")
                self.state = "refused"

    def _heartbeat(self) -> None:
        if self._taken:
            status, answer = self._service.ask("PUT", self.id)
            if status == 200 and answer.get("id") == self.id and answer.get("claims") == self._claims:
                self._is_live(answer)
                return
        lost, before = self._taken, self.id
        self._take()
        if lost:
            kept = (
                "it has it again" if before == self.id else f"lease {self.id} took its place: {LEASE_LABEL}={before} is over"
            )
            self._told(f"the service did not know lease {before} any more; {kept}")

    def _take(self) -> None:
        """Raises _AwayError and LeaseRefusedError."""
        for _ in range(2):
            status, answer = self._service.ask("POST", "", {"id": self.id, "holder": _holder(), "claims": self._claims})
            if status in (200, 201) and answer.get("id") == self.id:
                self._taken = True
                self._is_live(answer)
                return
            if status != 409 or not self._taken:
                break
            own.held.discard(self.id)
            self.id = secrets.token_hex(8)  # the service has ended the other one, and what it covered is going
            own.held.add(self.id)
        raise LeaseRefusedError(str(answer.get("error", f"the service answered {status}")))

    def _is_live(self, answer: Mapping[str, Any]) -> None:
        if self.state == "away":
            self._told(f"lease {self.id} is live")
        self.state = "live"
        self._every = float(answer.get("heartbeat_seconds") or 60) / 3

    def _is_away(self, error: _AwayError) -> None:
        if self.state != "away":
            self._told(f"lease {self.id} covers nothing yet: {error}" if not self._taken else f"lease {self.id}: {error}")
        self.state = "away"


class _Service:
    """Asks the service. Knows no loop."""

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no http or https URL; write for example 'http://{LISTEN}'")
        self._parts = parts
        self._token = token

    def ask(self, method: str, name: str, body: Mapping[str, Any] | None = None) -> tuple[int, Mapping[str, Any]]:
        """Status and answer. Raises _AwayError, and LeaseRefusedError for a token that is not the right one."""
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        assert self._parts.hostname is not None
        connection = kind(self._parts.hostname, self._parts.port, timeout=ANSWERS_WITHIN)
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = None if body is None else json.dumps(body)
        path = f"{self._parts.path.rstrip('/')}/leases" + (f"/{name}" if name else "")
        try:
            connection.request(method, path, data, headers | ({"Content-Type": "application/json"} if data else {}))
            response = connection.getresponse()
            status, text = response.status, response.read(1_000_000)
            answer = json.loads(text)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _AwayError(f"{self._parts.netloc} does not answer as the service does: {error}") from None
        finally:
            connection.close()
        if not isinstance(answer, dict) or status >= 500:
            raise _AwayError(f"{self._parts.netloc} answered {status}")
        if status in (401, 403):
            raise LeaseRefusedError(str(answer.get("error", status)))
        return status, answer


def lease(
    claims: Sequence[Claim] = (),
    *,
    name: str | None = None,
    url: str | None = None,
    token: str | None = None,
    on_trouble: Callable[[str], None] | None = None,
) -> HeldLease:
    """Hold a lease while a block runs. Works with ``with`` and with ``async with``, under asyncio and trio::

        with lease() as held:
            subprocess.run(["docker", "run", "--label", held.label, "bench:1"])

    What carries its label, and what it claims, is kept by every reaper that shares the service's state. When the block ends
    it is garbage at once; when this process is killed, some minutes later. A thread sends the heartbeats. The block runs
    although the service does not answer; that is told, and asked again every few seconds.

    Args:
        claims: what it covers besides its label: mappings with "labels" (all of them), "names", "images" and "projects"
            (any of each). Without a token only what the service's ``[leases] claimable`` allows.
        name: its id; made up when None.
        url: where the service listens; ``$REAPER_URL``, or where it listens unless told otherwise.
        token: the service's, where it wants one; ``$REAPER_TOKEN``.
        on_trouble: is told, in words and in some thread, when the service is away, back, or did not know the lease any
            more; a RuntimeWarning when None.

    Raises:
        LeaseRefusedError: at the start of the block: the service does not grant it.
        ValueError: the URL is none, or a claim has other keys.
    """
    for claim in claims:
        if (odd := sorted(set(claim) - set(_FIELDS))) or not any(claim.values()):
            raise ValueError(f"a claim has some of {', '.join(_FIELDS)}, not {odd or 'nothing'}")
    service = _Service(url or os.environ.get(URL) or f"http://{LISTEN}", token or os.environ.get(TOKEN))
    return HeldLease(service, claims, _warn if on_trouble is None else on_trouble, name)


def _warn(problem: str) -> None:
    warnings.warn(problem, RuntimeWarning, stacklevel=2)


def _holder() -> Mapping[str, Any]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.geteuid())
    command = Path(sys.argv[0]).name[:1024]  # without its arguments: they may hold a secret
    return {"host": os.uname().nodename, "pid": os.getpid(), "command": command, "user": user[:256]}

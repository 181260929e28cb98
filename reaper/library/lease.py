"""``lease``: what belongs to a run is kept while it lives, and goes when it has ended, however it ended."""

import os
import secrets
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import anyio.to_thread

from reaper.core.scope import LEASE_LABEL
from reaper.leases.peers import this_user
from reaper.leases.served import WITHIN
from reaper.library import process
from reaper.library.cleanup_scope import CleanupScope
from reaper.library.lease_client import ENDED, AwayError, LeaseRefusedError, Line, Service
from reaper.paths import TOKEN, URL

SOON, AGAIN = 0.1, 5.0  # seconds until one asks again who has had no answer: at first, and after a while
_FIELDS = ("labels", "names", "images", "projects")

Claim = Mapping[str, Sequence[str]]


class HeldLease:
    """A lease, taken when its block begins and given back when it ends. See ``lease``.

    Attributes:
        id: its id. It changes only when the service has ended the lease and does not take the same one again.
        state: "live"; "away" while the service does not answer; "refused" when it does not grant the lease (any more);
            "released" outside of the block.
        endpoints: the addresses of what the service sweeps: engines' hosts, organisations' URLs. Empty while unknown.
    """

    def __init__(
        self,
        service: Service,
        claims: Sequence[Claim],
        report: Callable[[str], None],
        name: str | None,
        max_age: float | None = None,
    ) -> None:
        self.id = name or secrets.token_hex(8)
        self._is_named = name is not None
        self.state = "released"
        self.endpoints: tuple[str, ...] = ()
        self._service = service
        self._claims = [{field: list(claim.get(field, ())) for field in _FIELDS} for claim in claims]
        self._report = report
        self._max_age = max_age
        self._every = 20.0
        self._over = threading.Event()
        self._turn = threading.Lock()  # a task that is cancelled while it begins ends it at once
        self._thread: threading.Thread | None = None
        self._cause = "released"
        self._over_for = 0.0
        self._taken = False
        self._line: Line | None = None  # what is held, where the open connection is the lease
        self._tries = 0  # in vain, since the last answer
        self._process = process.current()

    @property
    def label(self) -> str:
        """What makes a resource the lease's: ``docker run --label``, or Daytona's labels."""
        return f"{LEASE_LABEL}={self.id}"

    @property
    def labels(self) -> dict[str, str]:
        """The same as a mapping of its own, for ``labels=`` of the SDKs: ``{**held.labels, "run": "nightly"}``."""
        return {LEASE_LABEL: self.id}

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, body: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    async def __aenter__(self) -> Self:
        try:
            await anyio.to_thread.run_sync(self._begin)
        except BaseException:  # cancelled: the block, which is never entered, would never be left
            async with CleanupScope() as scope:
                scope.call(self._end, in_thread=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, body: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process != process.current():
            return  # nor are the parent's worker threads in a forked child
        async with CleanupScope() as scope:
            scope.call(self._end, in_thread=True)

    def over(self) -> None:
        """Say that what it is held for has ended: what is made from now on is not its own, however it ends."""
        if self._taken:
            with suppress(AwayError, LeaseRefusedError):  # then its claims go on until it is given back
                self._service.ask("PUT", f"{self.id}?over_for=0")

    def release(self, cause: str, over_for: float = 0.0) -> None:
        """Give it back before its block ends.

        Args:
            cause: why, for people.
            over_for: how many seconds ago that ended for which it was held: what was made since then is not its own.
        """
        self._cause, self._over_for = cause, over_for
        self._end()

    # -- in a thread, for every sort of loop and none ------------------------------------------------------------------

    def _begin(self) -> None:
        if self._process != process.current():
            self._begin_in_child()
        with self._turn:
            self._start()

    def _begin_in_child(self) -> None:
        """Take a lease of this process's own: two children of one parent must not share, and end, the same one."""
        self._process = process.current()
        if not self._is_named:
            self.id = secrets.token_hex(8)
        self.state, self._taken, self._line, self._thread, self._tries = "released", False, None, None, 0
        self._over, self._turn = threading.Event(), threading.Lock()  # a thread of the parent's may have held them

    def _end(self) -> None:
        if self._process != process.current():
            return  # a forked child leaves the block, too: the lease is its parent's
        self._over.set()
        with self._turn:
            self._stop()

    def _start(self) -> None:
        self._over.clear()
        self._hold()
        try:
            self._take()
        except AwayError as error:
            self._is_away(error)
        except LeaseRefusedError:
            self._let_go()
            raise
        self._thread = threading.Thread(target=self._keep, name=f"lease {self.id}", daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        self._over.set()  # again: it may have begun since
        if (line := self._line) is not None:
            line.end()
        if self._thread is not None:
            self._thread.join(3 * WITHIN)
            self._thread = None
        if self._let_go() and self._taken:
            self._taken = False
            try:
                self._service.ask("DELETE", f"{self.id}?cause={quote(self._cause)}&over_for={self._over_for:.3f}")
            except (AwayError, LeaseRefusedError) as error:
                self._report(f"lease {self.id} could not be given back, and ends when its holder is missed: {error}")
        if (line := self._line) is not None:
            self._line = None
            line.close()
        self.state = "released"

    def _hold(self) -> None:
        held.add(self.id)
        _blocks.setdefault(self.id, set()).add(id(self))

    def _let_go(self) -> bool:
        """Whether no other block of this process holds it: the last one gives it back."""
        blocks = _blocks.get(self.id, set())
        blocks.discard(id(self))
        if not blocks:
            _blocks.pop(self.id, None)
            held.discard(self.id)
        return not blocks

    def _keep(self) -> None:
        while not self._waited():
            try:
                self._ask_again()
            except Exception as error:  # noqa: BLE001 - on_trouble's own: no lease may end by that
                threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, self._thread)))

    def _waited(self) -> bool:
        """Wait until the service has to be asked again; whether it is over."""
        if (line := self._line) is not None:
            if not self._over.is_set():  # set before the line is looked for that is to end
                line.until_it_ends()
            if not self._over.is_set():  # or it is needed until the lease is given back
                self._line = None
                line.close()
            return self._over.wait(SOON)
        return self._over.wait(min(SOON * 2 ** min(self._tries, 10), AGAIN) if self._tries else self._every)

    def _ask_again(self) -> None:
        try:
            self._renew()
        except AwayError as error:
            self._is_away(error)
        except LeaseRefusedError as error:
            self._is_refused(error)
            if error.ended:
                self._over.set()  # an operator, or its age, has ended it: it is not taken again

    def _renew(self) -> None:
        if self._taken and not self._service.uses_connection:
            status, answer = self._service.ask("PUT", self.id)
            if status == 200 and answer.get("id") == self.id and answer.get("claims") == self._claims:
                self._is_live(answer)
                return
            if status == ENDED:
                raise LeaseRefusedError(str(answer.get("error", status)), ended=True)
        known, before = self._taken, self.id
        if self._take() and known:
            kept = (
                "it has it again" if before == self.id else f"lease {self.id} took its place: {LEASE_LABEL}={before} is over"
            )
            self._report(f"the service did not have lease {before} any more; {kept}")

    def _take(self) -> bool:
        """Whether the service had to make a new one. Raises AwayError and LeaseRefusedError."""
        if not self._taken:
            self._service.find()
        for _ in range(2):
            body: dict[str, Any] = {"id": self.id, "holder": _holder(), "claims": self._claims}
            if self._max_age is not None:
                body["max_age_seconds"] = self._max_age
            status, answer, line = self._service.take(body)
            if status in (200, 201) and answer.get("id") == self.id:
                self._taken, self._line = True, line
                self.endpoints = tuple(map(str, answer.get("endpoints") or ()))
                self._is_live(answer)
                return status == 201
            if line is not None:
                line.close()
            if status != 409 or not self._taken:
                break
            self._let_go()
            self.id = secrets.token_hex(8)  # the service has ended the other one, and what it covered is going
            self._hold()
        raise LeaseRefusedError(str(answer.get("error", f"the service answered {status}")), ended=status == ENDED)

    def _is_live(self, answer: Mapping[str, Any]) -> None:
        before, self.state = self.state, "live"
        self._tries = 0
        self._every = float(answer.get("heartbeat_seconds") or 60) / 3
        if before == "away":
            self._report(f"lease {self.id} is live")

    def _is_away(self, error: AwayError) -> None:
        self._tries += 1
        before, self.state = self.state, "away"
        if before != "away":
            self._report(f"lease {self.id} covers nothing yet: {error}" if not self._taken else f"lease {self.id}: {error}")

    def _is_refused(self, error: LeaseRefusedError) -> None:
        self._tries += 1
        before, self.state = self.state, "refused"
        if before != "refused":
            self._report(f"lease {self.id} is not granted any more: {error}")


def lease(
    claims: Sequence[Claim] = (),
    *,
    name: str | None = None,
    url: str | None = None,
    token: str | None = None,
    on_trouble: Callable[[str], None] | None = None,
    max_age: float | None = None,
) -> HeldLease:
    """Hold a lease while a block runs. Works with ``with`` and with ``async with``, under asyncio and trio::

        with lease() as held:
            subprocess.run(["docker", "run", "--label", held.label, "bench:1"])

    What carries its label, and what it claims, is kept by every reaper that shares the service's state. When the block ends
    it is garbage at once. Over the service's local socket the open connection is the lease: however this process dies, what
    was its own goes ten seconds later, and a thread takes it up again when the service was restarted. To an address the
    thread sends heartbeats; when this process is killed, what was its own goes some minutes later: a network may fail for
    longer than ten seconds. The block runs although the service does not answer; that is reported, and retried.

    Args:
        claims: what it covers besides its label: mappings with "labels" (all of them), "names", "images" and "projects"
            (any of each). Without a token only what the service's ``[leases] claimable`` allows.
        name: its id; made up when None.
        url: where the service listens: "unix:///PATH", or a URL of http or https. Without it ``$REAPER_URL``, else the local
            socket of the user's own service or the machine's, else the address where the service listens by default.
        token: the service's, where it requires one; ``$REAPER_TOKEN``. Over a socket it may claim more with it.
        on_trouble: is called with a message, in some thread, when the service is away, back, or did not have the lease any
            more; a RuntimeWarning when None.
        max_age: after how many seconds it ends although its holder lives: a run that hangs keeps nothing for longer.

    Raises:
        LeaseRefusedError: at the start of the block: the service does not grant it.
        ValueError: the URL or the token is none, a claim has other keys, or ``max_age`` is less than a second.
    """
    for claim in claims:
        if (odd := sorted(set(claim) - set(_FIELDS))) or not any(claim.values()):
            raise ValueError(f"a claim has some of {', '.join(_FIELDS)}, not {odd or 'nothing'}")
    if max_age is not None and not max_age >= 1:
        raise ValueError(f"max_age is a number of seconds, at least 1, not {max_age!r}")
    service = Service(url or os.environ.get(URL), token or os.environ.get(TOKEN))
    return HeldLease(service, claims, _warn if on_trouble is None else on_trouble, name, max_age)


def _warn(problem: str) -> None:
    warnings.warn(problem, RuntimeWarning, stacklevel=2)


def _holder() -> Mapping[str, Any]:
    # Without its arguments: they may hold a secret.
    command = Path(sys.argv[0]).name[:1024].encode(errors="replace").decode()
    return {"host": os.uname().nodename, "pid": os.getpid(), "command": command, "user": this_user()[:256]}


OWN_LEASE = "REAPER_LEASE"
held: set[str] = set()
"""Those that this process holds by ``lease``."""
_blocks: dict[str, set[int]] = {}
"""By lease the blocks that hold it: several may name one."""


def own_leases() -> frozenset[str]:
    """These, and the one that ``reaper run`` has taken for it."""
    return frozenset({*held, os.environ.get(OWN_LEASE, "")} - {""})

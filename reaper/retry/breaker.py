"""Cooldowns and circuit breaking, shared by all tasks of one endpoint. Times are anyio's, so tests turn the clock."""

import math

import anyio

from reaper.errors import CircuitOpenError, CredentialsError, ProviderError, UnavailableError


class Cooldown:
    """A time in which no request goes to the endpoint, ordered by a 429."""

    LONGEST = 300.0
    MARGIN = 0.3  # Daytona refuses a request that comes a moment too early, and counts it

    def __init__(self) -> None:
        self._until = -math.inf

    def order(self, seconds: float) -> None:
        """Pause requests for ``seconds`` and a margin, at most for five minutes. A longer cooldown stays in force."""
        wanted = min(max(seconds, 0.0), self.LONGEST) + self.MARGIN
        self._until = max(self._until, anyio.current_time() + wanted)

    @property
    def active(self) -> bool:
        """Whether it is in force now."""
        return self._until > anyio.current_time()

    async def wait(self) -> None:
        """Wait until it is over; it may be prolonged meanwhile."""
        while (left := self._until - anyio.current_time()) > 0:  # noqa: ASYNC110 - it waits for a time, not for an event
            await anyio.sleep(left)


class _Circuit:
    """The failures in a row of one kind of calls."""

    def __init__(self) -> None:
        self.last: ProviderError | None = None  # that speaks of the endpoint, in this sweep
        self.in_a_row = 0
        self.next_probe = math.inf


class Breaker:
    """Opens when calls fail in a row with no success between them: the endpoint is down or sick.

    While it is open every call fails at once, so that a thousand resources do not each wait for their own time-out; but one
    call every few seconds is let through, and its success closes the breaker.

    Reads and changes are counted apart, and it opens for each by itself: an endpoint may answer every inspection while each
    of its deletions hangs. The inspections just before a change count as reads.
    """

    PROBE_EVERY = 5.0

    def __init__(self, failures: int = 20) -> None:
        self.limit = failures
        self._reads, self._changes = _Circuit(), _Circuit()
        self.answered = False  # in this sweep
        self.refused: CredentialsError | None = None

    @property
    def last(self) -> ProviderError | None:
        """The last failed read of this sweep, where it speaks of the endpoint."""
        return self._reads.last

    @property
    def open(self) -> bool:
        """Whether any calls fail at once."""
        return self.open_for(changes=True)

    def open_for(self, *, changes: bool) -> bool:
        """Whether reads fail at once; or changes, none of which is made without a read."""
        circuits = (self._reads, self._changes) if changes else (self._reads,)
        return self.refused is not None or any(circuit.in_a_row >= self.limit for circuit in circuits)

    def _circuit(self, changes: bool) -> _Circuit:  # noqa: FBT001 - as its callers are told
        return self._changes if changes else self._reads

    def check(self, *, changes: bool = False) -> None:
        """Raise ``CircuitOpenError`` while it is open for these, and ``CredentialsError`` once they were refused."""
        if self.refused is not None:
            raise CredentialsError(str(self.refused))
        circuit = self._circuit(changes)
        if circuit.in_a_row < self.limit:
            return
        if anyio.current_time() < circuit.next_probe:
            what = "changes" if changes else "reads"
            raise CircuitOpenError(f"{circuit.in_a_row} {what} in a row failed, the last one with: {circuit.last}")
        circuit.next_probe = anyio.current_time() + self.PROBE_EVERY

    def succeeded(self, *, changes: bool = False) -> None:
        """An answer came: the endpoint lives."""
        self._circuit(changes).in_a_row = 0
        self.answered = True

    def failed(self, error: ProviderError, *, changes: bool = False) -> None:
        """A call failed. Only errors that speak of the endpoint, not of the resource, count."""
        if not isinstance(error, UnavailableError):
            self.succeeded(changes=changes)
            return
        circuit = self._circuit(changes)
        circuit.in_a_row += 1
        circuit.last = error
        if circuit.in_a_row == self.limit:
            circuit.next_probe = anyio.current_time() + self.PROBE_EVERY

    def trip(self, error: CredentialsError) -> None:
        """The credentials are refused: ask nothing until ``renew``. Wrong ones are counted, and block good ones."""
        self.refused = error

    def reset(self) -> None:
        """Let calls through again, unless the credentials were refused."""
        self._reads.in_a_row = self._changes.in_a_row = 0

    def renew(self) -> None:
        """A new sweep begins: try everything again."""
        self._reads, self._changes = _Circuit(), _Circuit()
        self.answered, self.refused = False, None

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


class Breaker:
    """Opens when calls fail in a row with no success between them: the endpoint is down or sick.

    While it is open every call fails at once, so that a thousand resources do not each wait for their own time-out; but one
    call every few seconds is let through, and its success closes the breaker.
    """

    PROBE_EVERY = 5.0

    def __init__(self, failures: int = 20) -> None:
        self.limit = failures
        self._in_a_row = 0
        self._next_probe = math.inf
        self.last: ProviderError | None = None  # that speaks of the endpoint, in this sweep
        self.answered = False  # in this sweep
        self.refused: CredentialsError | None = None

    @property
    def open(self) -> bool:
        """Whether calls fail at once."""
        return self.refused is not None or self._in_a_row >= self.limit

    def check(self) -> None:
        """Raise ``CircuitOpenError`` while the breaker is open, and ``CredentialsError`` once they were refused."""
        if self.refused is not None:
            raise CredentialsError(str(self.refused))
        if self.open:
            if anyio.current_time() >= self._next_probe:
                self._next_probe = anyio.current_time() + self.PROBE_EVERY
                return
            raise CircuitOpenError(f"{self._in_a_row} calls in a row failed, the last one with: {self.last}")

    def succeeded(self) -> None:
        """An answer came: the endpoint lives."""
        self._in_a_row, self.answered = 0, True

    def failed(self, error: ProviderError) -> None:
        """A call failed. Only errors that speak of the endpoint, not of the resource, count."""
        if isinstance(error, UnavailableError):
            self._in_a_row += 1
            self.last = error
            if self._in_a_row == self.limit:
                self._next_probe = anyio.current_time() + self.PROBE_EVERY
        else:
            self.succeeded()

    def trip(self, error: CredentialsError) -> None:
        """The credentials are refused: ask nothing until ``renew``. Wrong ones are counted, and block good ones."""
        self.refused = error

    def reset(self) -> None:
        """Let calls through again, unless the credentials were refused."""
        self._in_a_row = 0

    def renew(self) -> None:
        """A new sweep begins: try everything again."""
        self._in_a_row = 0
        self.last, self.answered, self.refused = None, False, None

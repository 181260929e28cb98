"""Resources whose deletion has failed are left alone for a while, each time for longer. Times are anyio's."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

import anyio

from reaper.core.model import Outcome, Result
from reaper.errors import CircuitOpenError, CredentialsError, RateLimitedError

FIRST_REST, LONGEST_REST = 60.0, 3600.0
OF_THE_ENDPOINT = frozenset({CircuitOpenError.label, CredentialsError.label, RateLimitedError.label})


@dataclass(frozen=True, slots=True)
class Rest:
    """One resource that is left alone.

    Args:
        until: when its deletion is tried again.
        times: in how many sweeps it has failed.
        why: how it failed the last time, for people, and the error's class.
    """

    until: float
    times: int
    why: str
    error: str | None

    @property
    def left(self) -> float:
        """Seconds that it lasts."""
        return self.until - anyio.current_time()


class Rests:
    """The resources of one endpoint that are left alone, by id."""

    def __init__(self) -> None:
        self._rests: dict[str, Rest] = {}

    def learn(self, results: Iterable[Result]) -> None:
        """Let rest what was tried in a sweep and has failed, but for what says nothing about one resource."""
        for r in results:
            if r.decision.reap and r.outcome is Outcome.FAILED and r.attempts and r.error not in OF_THE_ENDPOINT:
                self.failed(r.decision.resource.id, r.detail, r.error)

    def failed(self, id_: str, why: str, error: str | None) -> None:
        """Its deletion failed in a sweep."""
        times = self._rests[id_].times + 1 if id_ in self._rests else 1
        seconds = min(FIRST_REST * 2 ** min(times - 1, 30), LONGEST_REST)
        self._rests[id_] = Rest(anyio.current_time() + seconds, times, why, error)

    def of(self, id_: str) -> Rest | None:
        """Its rest, while that lasts."""
        rest = self._rests.get(id_)
        return rest if rest is not None and rest.left > 0 else None

    def end(self) -> None:
        """Try all of them again now; what fails again rests for longer."""
        self._rests = {id_: replace(rest, until=anyio.current_time()) for id_, rest in self._rests.items()}

    def forget_all_but(self, ids: Container[str]) -> None:
        """Forget what is not there any more."""
        self._rests = {id_: rest for id_, rest in self._rests.items() if id_ in ids}

"""Saves what is known of containers and sandboxes before their deletion. That it fails is a warning, and keeps nothing."""

from collections.abc import Callable

import anyio

from reaper.core.model import Resource
from reaper.errors import NotFoundError, ProviderError, RateLimitedError
from reaper.providers.abilities import GivesEvidence
from reaper.retry.retrier import Retrier
from reaper.sweep.context import Slots
from reaper.sweep.ports import EvidenceStore

PATIENCE = 5.0  # seconds for one resource
SLOW, MOST_SLOW = 1.0, 30.0  # seconds: what takes longer than the first counts, and after so many of these none is asked for
MOST_WARNINGS = 3  # in one sweep, each of another kind


class EvidenceRecorder:
    """Records the evidence of one endpoint in one sweep: of each resource once, however often its deletion is tried.

    It is asked for with one try, and what goes wrong with that says nothing of the endpoint: no retry, no circuit breaker.

    Args:
        reader: of the endpoint.
        store: takes it.
        retrier: whose budget of reading it counts in.
        slots: whose readings it is one of.
        warnings: what could not be saved is added to these.

    Attributes:
        saved: by id, whether it was saved, where that was tried.
    """

    def __init__(
        self, reader: GivesEvidence, store: EvidenceStore, retrier: Retrier, slots: Slots, warnings: list[str]
    ) -> None:
        self.saved: dict[str, bool] = {}
        self._reader, self._store, self._retrier, self._slots = reader, store, retrier, slots
        self._warnings, self._warned = warnings, set[str]()
        self._slow = 0.0

    async def record(self, resource: Resource, is_ending: Callable[[], bool]) -> None:
        """Save the evidence of one resource, unless the sweep is ending, in ``PATIENCE``. Never raises."""
        if resource.id in self.saved:
            return
        problem: str | None = "its endpoint or the disk was too slow with others"
        if not self._is_vain():
            async with self._retrier.reading, self._slots.reads:
                if is_ending():
                    return
                if not self._is_vain():
                    began, problem = anyio.current_time(), f"it took longer than {PATIENCE:g} s"
                    with anyio.move_on_after(PATIENCE):
                        problem = await self._record(resource)
                    taken = anyio.current_time() - began
                    self._slow += taken if taken > SLOW else 0.0
        if problem is not None:
            self.saved.setdefault(resource.id, False)
            if problem not in self._warned and len(self._warned) < MOST_WARNINGS:
                self._warned.add(problem)
                self._warnings.append(f"the evidence of {resource.name} was not saved, or not all of it: {problem}")

    def _is_vain(self) -> bool:
        return self._retrier.breaker.open or self._slow > MOST_SLOW

    async def _record(self, resource: Resource) -> str | None:
        """Why it could not be saved, or not all of it, if so."""
        try:
            found = await self._reader.evidence(resource, self._store.lines)
            if (problem := await self._store.save(resource, found)) is not None:
                return problem
        except NotFoundError:
            return None  # the deletion will find out and say so
        except ProviderError as error:
            if isinstance(error, RateLimitedError) and error.retry_after is not None:  # it holds for all that is asked next
                self._retrier.reading.blocked(error.retry_after)
            return error.advice
        except Exception as error:  # noqa: BLE001 - no bug in this is worth a deletion, and its text may have a secret
            return f"an internal error, {type(error).__name__}"
        self.saved[resource.id] = True
        return found.problem or None

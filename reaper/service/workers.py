"""The service's workers, one for each endpoint: they come and go with the configuration."""

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import timedelta

import anyio.abc

from reaper.core.conditions import Policy
from reaper.service.endpoint_worker import EndpointWorker
from reaper.service.loaded import Loaded
from reaper.service.reporter import Reporter
from reaper.session import Session
from reaper.sweep.ports import Endpoint


class Workers:
    """Those of the endpoints of the configuration in force, and those of earlier ones that sweep still.

    Args:
        session: what sweeps.
        loaded: returns the configuration in force.
        reporter: is notified of each sweep.
    """

    def __init__(self, session: Session, loaded: Callable[[], Loaded], reporter: Reporter) -> None:
        self._session, self._loaded, self._reporter = session, loaded, reporter
        self._by_name: dict[str, EndpointWorker] = {}
        self._leaving: list[EndpointWorker] = []

    def __iter__(self) -> Iterator[EndpointWorker]:
        return iter(self._by_name.values())

    def __contains__(self, endpoint: str) -> bool:
        return endpoint in self._by_name

    def __getitem__(self, endpoint: str) -> EndpointWorker:
        return self._by_name[endpoint]

    @property
    def names(self) -> list[str]:
        """The names of their endpoints, sorted."""
        return sorted(self._by_name)

    def concerned(self, policy: Policy) -> list[str]:
        """The names of the endpoints that a policy is for."""
        return [worker.name for worker in self if worker.concerns(policy)]

    def post(self, policies: Collection[Policy], *, now: bool = False) -> None:
        """These are due, wherever they concern something; ``now`` ends the rests that failures have brought."""
        for worker in self:
            if (names := [policy.name for policy in policies if worker.concerns(policy)]) or now:
                worker.post(names, now=now)

    def leases_ended(self) -> None:
        """A lease has ended."""
        for worker in self:
            worker.leases_ended()

    def exchange(
        self, made: Iterable[Endpoint], endpoints: Collection[str], drain: timedelta | None, group: anyio.abc.TaskGroup
    ) -> None:
        """Keep these endpoints, those that were ``made`` anew by workers of their own, which take over what was due there.

        Args:
            made: endpoints that were not there before, or not with these settings.
            endpoints: the names of all that there are now.
            drain: how long a worker that leaves may go on with a sweep that is under way; None: to its end.
            group: where workers run.
        """
        for name in self._by_name.keys() - {*endpoints}:
            self._leave(self._by_name.pop(name), drain)
        for endpoint in made:
            name = endpoint.reader.endpoint
            if (before := self._by_name.get(name)) is not None:
                self._leave(before, drain)
            # One that an earlier reload took away may be sweeping still.
            before = next((worker for worker in reversed(self._leaving) if worker.name == name), None)
            self._by_name[name] = EndpointWorker(endpoint, self._session, self._loaded, self._reporter, before)
            group.start_soon(self._by_name[name].run, name=f"keep {name}")

    def _leave(self, worker: EndpointWorker, drain: timedelta | None) -> None:
        worker.retire(drain)
        self._leaving = [leaving for leaving in self._leaving if not leaving.finished.is_set()] + [worker]

    async def drain(self, patience: timedelta) -> None:
        """Begin no sweep; those under way get this long, and are cancelled then. Returns when all have reported."""
        workers = [*self, *self._leaving]
        for worker in workers:
            worker.retire(patience)
        for worker in workers:
            await worker.finished.wait()

"""Which containers depend on others, or have come into their projects: what listings and inspections of one engine show."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from reaper.core.identity import PROJECT_LABEL, same_group
from reaper.core.model import Resource
from reaper.errors import NotFoundError, ProviderError, UnreadableError
from reaper.providers.base import Call, may_depend_unseen, possibly_used_by
from reaper.providers.docker.containers import listed_container, listed_uses
from reaper.providers.docker.links import Below, Directory, Links, configured_links, links_at_networks
from reaper.providers.parsing import Row, shared, text
from reaper.providers.sharing import Shared


class _Users:
    """The containers of one listing, by what they use.

    Attributes:
        of: by the id of what is used, each as its row or as what an inspection shows.
        possible: those that may use what runs, since their links are not known.
        of_project: the rows by the project that they name.
    """

    def __init__(self) -> None:
        self.of: dict[str, list[Row | Resource]] = {}
        self.possible: list[Resource] = []
        self.of_project: dict[str, list[Row]] = {}

    def add(self, container: Row | Resource, uses: frozenset[str]) -> None:
        """Add one container of the listing."""
        for used in uses:
            self.of.setdefault(used, []).append(container)


class Dependents:
    """Knows the links of one engine's containers: each is inspected once, and again when it has joined another network.

    Args:
        endpoint: the engine's name.
        rows: lists its containers.
        inspect: inspects one, and calls ``learn``.
        mark: a listed one with what came with its image.
        below: which of the volumes that these rows have lie on others.

    Attributes:
        directory: the names of the last listing.
    """

    def __init__(
        self,
        endpoint: str,
        rows: Callable[[], Awaitable[Sequence[Row]]],
        inspect: Callable[[Resource], Awaitable[Resource]],
        mark: Callable[[Resource], Resource],
        below: Callable[[Sequence[Row], Call], Awaitable[Below]],
    ) -> None:
        self.directory = Directory()
        self._endpoint = endpoint
        self._rows = rows
        self._inspect = inspect
        self._mark = mark
        self._below = below
        self._links: dict[str, Links] = {}
        self._unseen: dict[str, bool] = {}  # whose inspection failed since the last listing: whether it may depend on others
        self._now: Shared[_Users] = Shared()

    def listed(self, rows: Sequence[Row], networks: Sequence[Row], below: Below) -> list[Resource]:
        """The containers of a whole listing."""
        self.directory = Directory(rows, networks, below)
        self._unseen.clear()
        self._forget_outdated(rows)
        found = [self._container(row) for row in rows]
        self._links = {one.id: self._links[one.id] for one in found if one.id in self._links}
        return found

    def learn(self, id_: str, row: Row) -> None:
        """Keep what the inspection of this container shows: the ids behind the names, which others may have later.

        Of a link at a network the name as well, since that means whatever has it.
        """
        found = configured_links(row)
        ids = self.directory.ids(Links(found.containers)) | links_at_networks(row)
        self._links[id_] = replace(found, containers=shared(ids))

    def _forget_outdated(self, rows: Sequence[Row]) -> None:
        """Forget the links of those that have joined another network since: they may have got links there."""
        for row in rows:
            known = self._links.get(id_ := text(row.get("Id")) or "")
            if known is not None and known.may_have_changed(row):
                del self._links[id_]

    def _container(self, row: Row) -> Resource:
        return listed_container(row, self._endpoint, self.directory, self._links)

    async def of(self, resources: Sequence[Resource], call: Call) -> Sequence[Resource]:
        """The containers that depend on these or are of their projects, these included, of all that there are now.

        One listing answers for all tasks that ask at the same time.
        """
        users = await self._now.get(self._with_links, call)
        ids = {resource.id for resource in resources}
        using = [one for id_ in ids for one in users.of.get(id_, ())]
        found = [one if isinstance(one, Resource) else self._container(one) for one in using]
        found += [container for container in users.possible if possibly_used_by(container, resources)]
        projects = {resource.group for resource in resources if resource.group is not None}
        named = [self._mark(self._container(row)) for project in projects for row in users.of_project.get(project, ())]
        joined = [one for one in named if any(same_group(one, resource) for resource in resources)]
        return [*{one.id: one for one in (*found, *joined)}.values()]

    async def _with_links(self, call: Call) -> _Users:
        """All containers, with their links as far as an inspection shows them."""
        found = _Users()
        rows = await call(f"list containers on {self._endpoint}", self._rows)
        self.directory = self.directory.with_containers(rows, await self._below(rows, call))
        self._forget_outdated(rows)
        for row in rows:
            if isinstance(given := row.get("Labels"), dict) and isinstance(project := given.get(PROJECT_LABEL), str):
                found.of_project.setdefault(project, []).append(row)
            if (links := self._links.get(text(row.get("Id")) or "")) is not None:
                found.add(row, listed_uses(row, self.directory, links))  # thousands need no more
                continue
            listed = self._container(row)
            container: Resource | None = listed
            if not listed.id:
                container = replace(listed, links_known=not may_depend_unseen(listed, UnreadableError("no id")))
            elif listed.id in self._unseen:
                container = replace(listed, links_known=not self._unseen[listed.id])
            elif not listed.links_known:
                container = await self._inspected(listed, call)
            if container is not None:
                found.add(container, container.uses)
                if not container.links_known:
                    found.possible.append(container)
        return found

    async def _inspected(self, listed: Resource, call: Call) -> Resource | None:
        try:
            return await call(f"inspect container {listed.name}", partial(self._inspect, listed))
        except NotFoundError:
            return None
        except ProviderError as error:
            self._unseen[listed.id] = may_depend_unseen(listed, error)
            return replace(listed, links_known=not self._unseen[listed.id])

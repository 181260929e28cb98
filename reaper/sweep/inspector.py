"""Looking more closely at what was listed, until the decisions about it can be trusted."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from reaper.core.caps import Caps, kept_back
from reaper.core.decide import may_be_linked, needs_inspection, possible_owners
from reaper.core.layers import mark_inherited, unread_images
from reaper.core.model import CapHit, Decision, Kind, Outcome, Reason, Resource, Result
from reaper.core.wording import counted, is_or_are
from reaper.errors import NotFoundError, ProviderError, UnreadableError
from reaper.providers.abilities import Linking
from reaper.providers.base import Reader, may_depend_unseen, possibly_used_by
from reaper.retry.retrier import Retrier
from reaper.sweep.concurrency import for_each
from reaper.sweep.context import Slots, carried

T = TypeVar("T")

FEW = 10  # so many are rather inspected than looked for in a listing of all


class Inspector:
    """Makes the looks of one endpoint's sweep, many at the same time.

    Attributes:
        reader: of the endpoint.
        unread: by id, why a resource could not be inspected.
        undecided: by id, for want of whose inspection a resource is kept that might go, and why that one failed.
        warnings: what is kept since its dependencies are unknown.
    """

    def __init__(self, reader: Reader, retrier: Retrier, slots: Slots) -> None:
        self.unread: dict[str, ProviderError] = {}
        self.undecided: dict[str, tuple[Resource, ProviderError]] = {}
        self.warnings: list[str] = []
        self._shows = False  # whether any inspection has succeeded
        self.reader = reader
        self._retrier = retrier
        self._slots = slots

    async def inspect_call(self, what: str, function: Callable[[], Awaitable[T]]) -> T:
        """Make a request that looks at one resource: see ``providers.base.Call``."""
        return await self._retrier.call(what, function, slots=self._slots.reads)

    async def list_call(self, what: str, function: Callable[[], Awaitable[T]]) -> T:
        """Make a request that lists."""
        return await self._retrier.call(what, function, slots=self._slots.listings)

    async def decided(
        self, resources: list[Resource], decide: Callable[[Sequence[Resource]], list[Decision]]
    ) -> list[Decision]:
        """The decisions about all of these that ``decide`` makes when all that they depend on has been inspected."""
        resources = mark_inherited(resources)
        decisions = decide(resources)
        while wanted := needs_inspection(decisions) or unread_images(decisions):
            resources = mark_inherited(await self.inspect(resources, wanted))
            decisions = decide(resources)
        while unknown := may_be_linked(decisions):
            resources = await self.inspect_links(resources, unknown, partial(possible_owners, decisions=decisions))
            decisions = decide(resources)
        return decisions

    async def capped(
        self, caps: Caps, decisions: list[Decision], held: int
    ) -> tuple[list[Decision], CapHit | None, frozenset[str]]:
        """The decisions with the links of what a cap holds back, the limit that was hit, and the ids of all that stays.

        What was to go was asked for no links. Now it stays, and what it is linked to may be something that may go.
        """
        hit, back = caps.hold_back(decisions, held)
        if not back:
            return decisions, hit, back
        staying = kept_back(decisions, back)
        if unknown := may_be_linked(staying):
            resources = [decision.resource for decision in decisions]
            resources = await self.inspect_links(resources, unknown, partial(possible_owners, decisions=staying))
            decisions = [replace(d, resource=resource) for d, resource in zip(decisions, resources, strict=True)]
            hit, back = caps.hold_back(decisions, held)
        return decisions, hit, back

    async def inspect(self, resources: Sequence[Resource], wanted: Sequence[Resource]) -> list[Resource]:
        """``resources`` with the wanted ones inspected, and without those that are gone meanwhile."""
        fresh: dict[str, Resource | None] = {}
        listed = {resource.id: resource for resource in resources}  # a decision may have set one apart from its group
        wanted = [listed[resource.id] for resource in wanted]

        async def one(resource: Resource) -> None:
            try:
                fresh[resource.id] = await self._inspect(resource)
            except NotFoundError:
                fresh[resource.id] = None
            except ProviderError as error:
                self.unread[resource.id] = error
                fresh[resource.id] = replace(resource, inspected=True, unreadable=str(error))

        await self._each(wanted, one)
        if again := [r for r in wanted if (error := self.unread.get(r.id)) is not None and error.retryable]:
            for resource in again:  # one more round, as for deletions
                del self.unread[resource.id]
            await self._each(again, one)
        looked_at = ((resource, fresh.get(resource.id, resource)) for resource in resources)
        return [now for _, now in looked_at if now is not None]

    async def with_layers(self, resources: Sequence[Resource]) -> list[Resource]:
        """``resources`` with the layers of the images, as far as they can be read: which of them others were built on."""
        layers: dict[str, tuple[str, ...]] = {}

        async def one(image: Resource) -> None:
            with suppress(ProviderError):
                look = partial(self.reader.inspect, image)
                layers[image.id] = (await self.inspect_call(f"inspect image {image.name}", look)).layers

        await self._each([r for r in resources if r.kind is Kind.IMAGE and not r.layers and not r.inspected], one)
        return [replace(r, layers=layers[r.id]) if r.kind is Kind.IMAGE and r.id in layers else r for r in resources]

    async def inspect_links(
        self,
        resources: Sequence[Resource],
        wanted: Sequence[Resource],
        possible: Callable[[Resource], frozenset[str]],
    ) -> list[Resource]:
        """``resources`` with the links of the wanted ones known.

        Args:
            resources: all that were listed.
            wanted: those whose links are not known.
            possible: what one that cannot be looked at may be linked to.
        """
        links: dict[str, frozenset[str]] = {}

        async def one(resource: Resource) -> None:
            try:
                if (known := self.unread.get(resource.id)) is not None:
                    raise known
                if not resource.id:
                    raise UnreadableError(resource.unreadable or "its row has no id")
                found = (await self._inspect(resource)).uses
            except NotFoundError:
                found = frozenset()
            except ProviderError as error:
                found = self._unknown_links(resource, error, resources, possible(resource))
            links[resource.id] = links.get(resource.id, frozenset()) | found  # several may have no id

        if len(wanted) > FEW and isinstance(self.reader, Linking):
            found_links = await self.reader.links(self.list_call)
            links = {resource.id: found_links[resource.id] for resource in wanted if resource.id in found_links}
        await self._each([resource for resource in wanted if resource.id not in links], one)
        return [
            replace(resource, uses=resource.uses | links[resource.id], links_known=True)
            if resource.id in links
            else resource
            for resource in resources
        ]

    def _unknown_links(
        self, resource: Resource, error: ProviderError, resources: Sequence[Resource], suspects: frozenset[str]
    ) -> frozenset[str]:
        """What is kept since the dependencies of this one are unknown."""
        if resource.kind is not Kind.SANDBOX:  # a sandbox goes with its owner whatever the state of the two
            if not may_depend_unseen(resource, error):
                return frozenset()
            suspects = possibly_used_by(resource, (r for r in resources if r.id in suspects or r.kind is Kind.NETWORK))
        if suspects:
            if resource.id:  # else nothing has failed: its row is unreadable, and will be
                self.undecided |= dict.fromkeys(suspects, (resource, error))
            kept = f"{counted(len(suspects), 'resource')} {is_or_are(len(suspects))}"
            self.warnings.append(
                f"{resource.kind} {resource.name} could not be inspected, so {kept} kept that it may depend on: {error}"
            )
        return suspects

    def failures(self, decisions: Iterable[Decision]) -> dict[str, Result]:
        """By id: what is owned and kept only because inspections failed is left undone, which is no success.

        One resource of others that cannot be inspected is no failure of this sweep; that none can is.
        """
        found: dict[str, Result] = {}
        for decision in decisions:
            id_ = decision.resource.id
            error, detail = self.unread.get(id_), "it could not be inspected"
            if error is None and not self._shows and decision.reason is Reason.IN_USE and id_ in self.undecided:
                other, error = self.undecided[id_]
                detail = f"{other.kind} {other.name}, which may depend on it, could not be inspected"
            if error is not None and (decision.owner is not None or decision.by_image):
                found[id_] = Result(decision, Outcome.FAILED, f"{detail}: {error.advice}", error=error.label)
        return found

    async def _inspect(self, resource: Resource) -> Resource:
        what = f"inspect {resource.kind} {resource.name}"
        found = carried(resource, await self.inspect_call(what, lambda: self.reader.inspect(resource)))
        self._shows = True
        return found

    async def _each(self, wanted: Sequence[Resource], one: Callable[[Resource], Awaitable[None]]) -> None:
        limits = self.reader.limits
        await for_each(wanted, one, min(len(wanted), 2 * (limits.together or limits.reads)), "look", self._retrier.resting)

"""The rules of quotas: what may go before its turn since more is there than may be.

As in ``oracle``, of which this is a part, all of it is written from the rules alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.promise.truth import PROJECT, SESSION, Container, Quota, Sandbox, World

if TYPE_CHECKING:
    from tests.promise.oracle import Oracle

Counted = Container | Sandbox
AT_REST = ("exited", "created", "dead", "stopped", "error", "build_failed")
HOUR = timedelta(hours=1)


def kind(thing: Counted) -> str:
    """As the file calls it."""
    return "container" if isinstance(thing, Container) else "sandbox"


def value(world: World, quota: Quota, thing: Counted) -> str | None:
    """The value of the label that it counts for; None where it does not. One that its image carries does not count."""
    leaving = thing.state in ("removing", "destroying", "destroyed", "archived")
    if kind(thing) not in quota.kinds or leaving or (isinstance(thing, Sandbox) and thing.wanted == "destroyed"):
        return None
    if quota.label is None:
        return ""
    given = (thing.labels or {}).get(quota.label) or None
    image = next((image for image in world.images if image.id == getattr(thing, "image_id", None)), None)
    return None if image is not None and image.labels.get(quota.label) == given else given


def amount(thing: Counted, measure: str) -> float:
    """What it takes: CPU and memory only while it has not stopped."""
    if measure == "count":
        return 1
    if not isinstance(thing, Sandbox) or (measure != "disk" and thing.state in AT_REST):
        return 0
    return {"cpu": thing.cpu, "memory": thing.memory, "disk": thing.disk}[measure] or 0


def used(world: World, things: Iterable[Counted]) -> Mapping[tuple[str, str, str], float]:
    """How much there is, by quota, value and measure."""
    found: dict[tuple[str, str, str], float] = {}
    for thing in things:
        for quota in world.config.quotas:
            if (whose := value(world, quota, thing)) is not None:
                for measure in quota.most:
                    place = quota.name, whose, measure
                    found[place] = found.get(place, 0) + amount(thing, measure)
    return found


def exceeded(world: World, things: Iterable[Counted]) -> frozenset[tuple[str, str]]:
    """The quotas, with the values, of which there is more than may be."""
    most = {(quota.name, measure): limit for quota in world.config.quotas for measure, limit in quota.most.items()}
    return frozenset((name, whose) for (name, whose, m), much in used(world, things).items() if much > most[name, m])


def unit(oracle: "Oracle", thing: Counted) -> list[Counted]:
    """What goes together with it: projects and sessions of a name."""
    label = PROJECT if isinstance(thing, Container) else SESSION
    name = (thing.labels or {}).get(label)
    some: tuple[Counted, ...] = (*oracle.world.containers, *oracle.world.sandboxes)
    found = [one for one in some if type(one) is type(thing) and name and (one.labels or {}).get(label) == name]
    return found or [thing]


def take(oracle: "Oracle", thing: Counted) -> bool:
    """Whether a quota that is enforced may take it: it has stopped, or shown no activity, for long enough.

    What may be deleted may be stopped for that, and be archived as well.
    """
    if oracle.deed == "timer" or oracle.config.everything_goes or abs(oracle.world.skew) > HOUR:
        return False
    over = oracle.world.exceeded
    for quota in oracle.config.quotas:
        if not quota.enforce or kind(thing) not in quota.kinds or not any(_rested(oracle, thing, quota)):
            continue
        if any((quota.name, value(oracle.world, quota, one)) in over for one in unit(oracle, thing)):
            return True
    return False


def _rested(oracle: "Oracle", thing: Counted, quota: Quota) -> Iterator[bool]:
    stop = oracle._stop(thing)
    yield thing.state in AT_REST and stop is not None and oracle.world.now - stop >= quota.idle_for
    if isinstance(thing, Sandbox) and thing.state != "archived":
        active = thing.last
        yield active is not None and oracle.world.now - active >= quota.idle_for


def needless(oracle: "Oracle", gone: Iterable[Counted], for_quota: Iterable[Counted]) -> list[Counted]:
    """A unit that was taken although the quotas were kept to without it.

    Args:
        oracle: of what there was.
        gone: all that the program has asked to be deleted.
        for_quota: what of this nothing but a quota takes.
    """
    ids = {one.id for one in gone}
    some: tuple[Counted, ...] = (*oracle.world.containers, *oracle.world.sandboxes)
    for one in for_quota:
        back = {member.id for member in unit(oracle, one)}
        if not exceeded(oracle.world, (thing for thing in some if thing.id not in ids - back)):
            return [thing for thing in some if thing.id in back]
    return []

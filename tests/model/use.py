"""When something was used last, and since when the program has been shown it: of networks, volumes and images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from tests.promise import followers, truth


@dataclass
class Use:
    """What is known of one endpoint, by the oracle's keys, in its own time.

    Attributes:
        used: when a container was last seen to have it; of an image also when it was pulled, built or tagged.
        seen: when the program was first shown it.
        called: the tags that an image had last.
        steady: since when nothing kept the program from watching.
        looked: when the last sweep ended that nothing disturbed (ns).
    """

    used: dict[str, datetime] = field(default_factory=dict)
    seen: dict[str, datetime] = field(default_factory=dict)
    called: dict[str, tuple[str, ...]] = field(default_factory=dict)
    steady: datetime | None = None
    looked: int | None = None

    def noted(self, world: truth.World, tagged: Mapping[str, datetime]) -> truth.World:
        """The world with what is known now."""
        mounted = {name for container in world.containers for name in container.volumes}
        joined = {name for container in world.containers for name in container.networks}
        images = {container.image_id for container in world.containers}
        named = {_with_tag(container.image) for container in world.containers}
        used = {f"volume {volume.name}" for volume in world.volumes if volume.name in mounted}
        used |= {network.id for network in world.networks if network.name in joined}
        used |= {image.id for image in world.images if image.id in images or named & {*image.tags}}
        some: tuple[followers.Follower, ...] = (*world.volumes, *world.networks, *world.images)
        there = {truth.key(thing) for thing in some}
        for known in (self.used, self.seen):
            for gone in known.keys() - there:
                del known[gone]
        self.used |= dict.fromkeys(used, world.now)
        for id_, at in tagged.items():
            self.used[id_] = max(at, self.used.get(id_, at))
        self.called |= {image.id: image.tags for image in world.images if image.tags}
        called = dict(self.called)
        return replace(world, used=dict(self.used), seen=dict(self.seen), called=called, steady=self.steady)

    def shown(self, keys: Iterable[str], now: datetime) -> None:
        """The program is shown these."""
        for key in keys:
            self.seen.setdefault(key, now)


def _with_tag(reference: str) -> str:
    return reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest"

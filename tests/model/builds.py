"""What people and runners do with images, volumes and networks: only in worlds that have a policy for these."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from reaper.simulator.docker.model import RefusedError
from reaper.simulator.docker.text import NS, nanoseconds
from tests.promise import oracle
from tests.promise.followers import SERVICE
from tests.promise.truth import CONFIG_FILES, NUMBER, PROJECT, WORKING_DIR

if TYPE_CHECKING:
    from datetime import datetime

    from reaper.simulator.clock import Clock
    from tests.model.world import DockerPlace

MAKES = ("build", "build", "spare", "spare", "spare")
DEEDS = ("use", "use", "use_briefly", "unuse", "pull", "build", "spare")
AGES = tuple(timedelta(minutes=minutes) for minutes in (5, 70, 8 * 60, 26 * 60, 12 * 24 * 60))
OWNERS: tuple[Mapping[str, str], ...] = (
    {"terminal-bench": ""},
    {"terminal-bench": ""},
    {"harbor.managed": "true"},
    {"bench": ""},
    {},
)
KEPT: tuple[Mapping[str, str], ...] = ({},) * 8 + (
    {"reaper.keep": ""},
    {"team": "rl"},
    {"reaper.ttl": "100d"},
    {"reaper.ttl": "soon"},
)
PROJECTS = (("chess", "/srv/a"), ("zz__1", "/srv/z"), *(("shop", "/srv/s"), ("store", "/srv/t")) * 2)
TAGS = (*sorted(oracle.IS_TERMINAL_BENCH), *sorted(oracle.IS_HARBOR), *sorted(oracle.IS_ACME), "postgres:16")


class Builds:
    """A part of the world."""

    clock: Clock
    dockers: list[DockerPlace]

    def _do_build(self, rng: random.Random) -> None:
        """A Compose project with images that were built for it, and a volume."""
        place, now = rng.choice(self.dockers), self.clock.now()
        (name, folder), age, owner = rng.choice(PROJECTS), rng.choice((*AGES, *AGES[2:])), rng.choice(OWNERS)
        states = rng.choice((("exited",), ("exited",), ("exited", "exited", "running", "created")))
        net = place.network(name, {}, now - age)
        volume = place.engine.add_volume(
            f"{name}_data",
            {PROJECT: name, "com.docker.compose.volume": "data", **rng.choice(KEPT)},
            created=_at(place, now - age),
        )
        for number in range(rng.choice((1, 2, 2, 3))):
            service = f"s{number}"
            made = {PROJECT: name, SERVICE: service}
            labels = {**made, CONFIG_FILES: f"{folder}/compose.yaml", WORKING_DIR: folder, NUMBER: str(number + 1), **owner}
            reference = rng.choice((f"{name}-{service}",) * 3 + ("postgres:16", "acme/worker:7"))
            if place.engine.images.find(reference) is None:
                built = made if reference.startswith(name) else {}
                image = place.engine.images.add(reference, labels={**built, **rng.choice(KEPT)})
                image.tagged = _at(place, now - age)
                if built:
                    place.built[image] = reference
                if built and rng.random() < 0.1:
                    place.engine.images.tag(image, rng.choice(("mine:1", "acme/worker:7")))
            place.add(
                rng,
                now,
                place.fresh(rng),
                labels,
                image=reference,
                networks=(net,),
                built=made if reference.startswith(name) else {},
                age=age,
                state=rng.choice(states),
                volumes={"/data": volume.name} if rng.random() < 0.7 else {},
            )

    def _do_spare(self, rng: random.Random) -> None:
        """Something that nothing uses, so far."""
        place, made = rng.choice(self.dockers), _at(rng.choice(self.dockers), self.clock.now() - rng.choice(AGES))
        labels = {**rng.choice((*OWNERS, {})), **rng.choice(KEPT)}
        what, number = rng.choice(("volume", "network", "image")), rng.randrange(1000)
        name = f"{rng.choice(('trial', 'work'))}-{number}{rng.choice(('', '-db'))}"
        match what:
            case "volume":
                place.engine.add_volume(name, labels, created=made)
            case "network" if place.engine.networks.named(name) is None:
                place.engine.networks.add(name, labels=labels, created=made)
            case _:
                place.engine.images.add(rng.choice((*TAGS, "")), labels=labels, created=made)

    def _do_held(self, rng: random.Random) -> None:
        """A volume and perhaps a network of one stopped container that is not owned."""
        place, now, number = rng.choice(self.dockers), self.clock.now(), rng.randrange(1000)
        labels = rng.choice(({"terminal-bench": ""}, {"harbor.managed": "true"}))
        volume = place.engine.add_volume(f"held-{number}", labels, created=_at(place, now - AGES[3]))
        place.engine.networks.add(f"held-{number}", labels=labels, created=_at(place, now - AGES[3]))
        place.add(
            rng,
            now,
            f"holder-{number}",
            {},
            image="postgres:16",
            networks=(f"held-{number}",) if rng.random() < 0.5 else ("bridge",),
            volumes={"/data": volume.name},
            age=AGES[1],
            state="exited",
        )

    def _do_let_go(self, _rng: random.Random) -> None:
        """The container goes that has it."""
        for place in self.dockers:
            self._look(place)
            for one in [one for one in place.engine.containers.values() if one.name.startswith("holder-")]:
                place.life.remove(one, one.id, volumes=False, force=True)

    def _do_use(self, rng: random.Random, *, briefly: bool = False) -> None:
        """A container comes to have some of what there is, perhaps for a moment only."""
        place, engine = (one := rng.choice(self.dockers)), one.engine
        volumes = sorted(engine.volumes)
        networks = sorted(network.name for network in engine.networks if not network.predefined)
        tags = sorted(tag for image in engine.images for tag in image.tags)
        with_volume, with_network = volumes and rng.random() < 0.5, networks and rng.random() < 0.5
        reference = rng.choice(tags) if tags and rng.random() < 0.5 else "postgres:16"
        reference = reference if reference in TAGS else reference.removesuffix(":latest")
        container = place.add(
            rng,
            self.clock.now(),
            place.fresh(rng),
            {},
            image=reference,
            networks=(rng.choice(networks),) if with_network else ("bridge",),
            volumes={"/data": rng.choice(volumes)} if with_volume else {},
            age=timedelta(0),
            state="running",
        )
        if briefly:
            self._look(place)
            place.life.remove(container, container.id, volumes=False, force=True)

    def _do_use_briefly(self, rng: random.Random) -> None:
        self._do_use(rng, briefly=True)

    def _do_unuse(self, rng: random.Random) -> None:
        """A container goes that has something."""
        place = rng.choice(self.dockers)
        self._look(place)
        found = sorted((c for c in place.engine.containers.values() if c.mounts or c.networks), key=lambda c: c.name)
        if found:
            one = rng.choice(found)
            place.life.remove(one, one.id, volumes=False, force=True)

    def _do_pull(self, rng: random.Random) -> None:
        """An image is pulled once more, or gets another name; or a build gives one again from its cache."""
        place = rng.choice(self.dockers)
        images = place.engine.images
        gone = [image for image in place.built if images.find(image.id) is None and images.find(place.built[image]) is None]
        if gone and rng.random() < 0.7:
            again = rng.choice(gone)
            images._by_id[again.id] = again
            images.tag(again, place.built[again])
            place.begun.discard(again.id)
            return
        found: Sequence[str] = sorted(tag for image in images for tag in image.tags)
        if found:
            tag = rng.choice(found)
            with suppress(RefusedError):
                images.tag(image := images.need(tag), rng.choice((tag, tag, tag, "mine:2")))
                place.begun.discard(image.id)  # what is built or tagged again is not left of a project that has gone

    def _look(self, place: DockerPlace) -> None:
        """Note what is used at this moment."""
        place.world(self.config, self.clock.now(), ())  # type: ignore[attr-defined]


def _at(place: DockerPlace, moment: datetime) -> int:
    return nanoseconds(moment) + int(place.skew.total_seconds() * NS)

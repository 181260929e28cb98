"""Many things of few people, in worlds that have quotas, and sandboxes of Harbor's instances, in those that go by these."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.promise.truth import INSTANCE, NUMBER, PROJECT, SESSION, WORKING_DIR

if TYPE_CHECKING:
    from reaper.simulator.clock import Clock
    from reaper.simulator.daytona.model import Sandbox
    from tests.model.world import DaytonaPlace, DockerPlace, Run

MAKES = ("crowd", "crowd", "crowd_of_sandboxes", "crowd_of_sandboxes")
AGES = tuple(timedelta(minutes=minutes) for minutes in (5, 30, 100, 9 * 60, 26 * 60))
USERS = ("ada", "ada", "bob")


class Crowds:
    """A part of the world."""

    clock: Clock
    dockers: list[DockerPlace]
    daytonas: list[DaytonaPlace]
    runs: dict[str, Run]

    def _user(self, rng: random.Random) -> dict[str, str]:
        kept = rng.choice(({},) * 8 + ({"reaper.keep": ""}, *({"reaper.lease": run} for run in sorted(self.runs))))
        return {**({"harbor.managed": "true"} if rng.random() < 0.9 else {}), "user": rng.choice(USERS), **kept}

    def _made(self, place: DaytonaPlace, rng: random.Random, labels: dict[str, str]) -> list[Sandbox]:
        """The rows of what is made there: a sandbox of some age."""
        rows = place.organisation.rows
        before = set(rows)
        place.add(rng, self.clock.now(), labels, rng.choice(AGES))
        return [row for id_, row in rows.items() if id_ not in before]

    def _do_crowd(self, rng: random.Random) -> None:
        """Containers of a person, some of them a project."""
        place, project = rng.choice(self.dockers), rng.choice((None, None, f"crowd-{rng.randrange(3)}"))
        for number in range(rng.choice((1, 2, 3, 4))):
            labels = self._user(rng)
            if project is not None:
                labels |= {PROJECT: project, NUMBER: str(number + 1), WORKING_DIR: "/srv/crowd"}
            state, age = rng.choice(("exited", "exited", "exited", "running")), rng.choice(AGES)
            place.add(rng, self.clock.now(), place.fresh(rng), labels, image="postgres:16", age=age, state=state)

    def _do_crowd_of_sandboxes(self, rng: random.Random) -> None:
        """Sandboxes of a person, some of them a session."""
        for place in self.daytonas:
            session = rng.choice((None, None, f"crowd-{rng.randrange(3)}"))
            for _ in range(rng.choice((1, 2, 3, 4))):
                labels = self._user(rng) | ({SESSION: session} if session is not None else {})
                for row in self._made(place, rng, labels):
                    size = {"cpu": rng.choice((1, 2, 4)), "memory": rng.choice((1, 4)), "disk": rng.choice((3, 10))}
                    place.organisation.change(row, **size)

    def _do_instances(self, rng: random.Random) -> None:
        """Sandboxes of a session of Harbor's, which several processes may share; some do not say whose they are."""
        session = rng.choice(("h1", "h1", "h2"))
        for place in self.daytonas:
            for _ in range(rng.choice((1, 2, 3))):
                instance = rng.choice(("i1", "i1", "i1", "i2", None))
                labels = {"harbor.managed": "true", **({SESSION: session} if rng.random() < 0.8 else {})}
                for row in self._made(place, rng, {**labels, **({INSTANCE: instance} if instance else {})}):
                    place.organisation.change(row, auto_stop=rng.choice((15, 15, 15, 0, 45, 24 * 60)))

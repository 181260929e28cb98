"""Where Docker 28.5 answers otherwise than the simulator, which imitates 20.10: the status of each step of every session."""

from collections.abc import Mapping, Sequence

import pytest

from devkit.engine import PrivateEngine
from tests.simulator.docker_script import SESSIONS
from tests.simulator.docker_world import World
from tests.simulator.test_docker_contract import replay

pytestmark = [pytest.mark.engine, pytest.mark.engines("docker-28.5")]

DIFFERENT: Mapping[str, Sequence[tuple[str, int, int]]] = {
    "about": [("GET /v1.50/containers/json ()", 400, 200)],
    "creation": [
        ("POST /containers/eee/start ()", 404, 500),
    ],
    "networks": [
        # A second network of one name is refused.
        ("POST /networks/create ({'Name': 'n2'},)", 201, 409),
        ("GET /networks/n2 ()", 400, 200),
        ("DELETE /networks/n2 ()", 400, 204),
    ],
    "images": [("POST /images/bench:1/tag?repo=A ()", 500, 400), ("POST /images/bench:1/tag ()", 500, 200)],
}
"""By session: the step, the simulator's status, and this engine's. Nothing of it is asked by reaper."""


@pytest.mark.parametrize("session", SESSIONS)
def test_session_has_the_same_statuses_but_for_those_in_the_table(session: str, world: World, engine: PrivateEngine) -> None:
    pairs = zip(replay(world, session), replay(engine, session), strict=True)
    found = [(step, ours["status"], theirs["status"]) for (step, ours), (_, theirs) in pairs]
    assert [each for each in found if each[1] != each[2]] == list(DIFFERENT.get(session, ()))

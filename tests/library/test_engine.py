"""The library before a real engine."""

from pathlib import Path

import pytest

from devkit.client import OBEYS_TERM
from devkit.engine import PrivateEngine
from reaper import CleanupError, DockerCleanupManager, managed_docker_container
from reaper.core.model import Outcome

pytestmark = pytest.mark.engine


def test_containers_of_a_real_engine(engine: PrivateEngine, alone: Path) -> None:
    def add(name: str, labels: dict[str, str] | None = None) -> str:
        return engine.create(name, cmd=OBEYS_TERM, labels=labels, start=True)

    mine, kept = add("mine"), add("kept", {"reaper.keep": ""})
    add("other")
    with pytest.raises(KeyError), managed_docker_container("mine", host=engine.host, stop_timeout=1) as container:
        assert container.id == mine
        raise KeyError
    assert container.outcome is Outcome.DELETED
    manager = DockerCleanupManager(host=engine.host)
    assert {one.name for one in manager.list_containers()} == {"kept", "other"}
    with pytest.raises(CleanupError, match=r"reaper\.keep"):
        manager.stop_container("kept", 1)
    assert manager.stop_container("kept", 1, even_protected=True) is Outcome.STOPPED
    assert engine.state(kept) == "exited"
    assert manager.remove_container("other", force=True) is Outcome.DELETED
    assert manager.remove_container(mine) is Outcome.GONE
    assert engine.ids() == [kept]

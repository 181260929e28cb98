"""Pulls, builds, runs and Compose projects while images are swept all the time: none may fail by that.

Three of each by default; ``REAPER_RUNS_BESIDE_SWEEPS`` says how many.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devkit.client import DEFAULT_IMAGE
from devkit.engine import PrivateEngine
from tests.engine.lab import docker, toml
from tests.run import Ended, Program

pytestmark = [pytest.mark.engine, pytest.mark.engines("docker-20.10", "docker-28.5", "docker-28.5-containerd")]

TIMES = int(os.environ.get("REAPER_RUNS_BESIDE_SWEEPS", "3"))
PULLED, RAN = min(7, TIMES - 1), min(3, TIMES - 1)  # images of these names, which come again
UNUSED = 10
"""Seconds. On a busy machine ``docker run`` takes some between pull and container, in which nothing has the image."""
BUILT = 20 if TIMES > 10 else UNUSED
"""Likewise between two builds that are cached from the same step, of which nothing tells (docs/safety.md)."""
CONFIG = f"""
[scope]
images = ["acme/*"]

[[policy]]
name = "images"
kinds = ["image"]
images = ["acme/[!b]*"]
unused_for = "{UNUSED}s"

[[policy]]
name = "built"
kinds = ["image"]
images = ["acme/built:*"]
unused_for = "{BUILT}s"
"""
FOREIGN = "neighbour/served:1"


class Sweeps(threading.Thread):
    """Sweeps again and again until it is told to end."""

    def __init__(self, program: Program, config: tuple[str, str]) -> None:
        super().__init__()
        self._program, self._config = program, config
        self._over = threading.Event()
        self.ended: list[Ended] = []

    def run(self) -> None:
        while not self._over.is_set():
            self.ended.append(self._program("--once", "--json", *self._config))

    def end(self) -> list[Ended]:
        self._over.set()
        self.join()
        return self.ended


def ways(engine: PrivateEngine, registry: str, folder: Path) -> dict[str, Callable[[int], object]]:
    """What people do, each with a number. Names come again, so that what was swept is needed again.

    But for Compose, which looks first whether an image is there and makes its container later (docs/safety.md).
    """
    project = {"services": {"main": {"image": f"{registry}/acme/up", "command": ["/bin/true"]}}, "version": "3"}

    def pull(number: int) -> None:
        docker(engine, "pull", "--quiet", f"{registry}/acme/pulled:{number % PULLED}")

    def build(number: int) -> None:
        place = folder / f"build-{number}"
        place.mkdir()
        (place / "Dockerfile").write_text(f"FROM {DEFAULT_IMAGE}\nENV STEP=1\nCOPY mark /mark-{number}\nENV LAST={number}\n")
        (place / "mark").write_text(str(number))
        docker(engine, "build", "--quiet", "--tag", f"acme/built:{number}", str(place))

    def start(number: int) -> None:
        docker(engine, "run", "--rm", f"{registry}/acme/ran:{number % RAN}", "/bin/true")

    def up(number: int) -> None:
        name, content = f"up{number}", {**project}
        content["services"] = {"main": {**project["services"]["main"], "image": f"{registry}/acme/up:{number}"}}  # type: ignore[index]
        engine.compose(name, content, "up", "-d", directory=folder / name)
        engine.compose(name, content, "down", directory=folder / name)

    return {"pull": pull, "build": build, "run": start, "compose up": up}


@pytest.mark.timeout(200 + 30 * TIMES)
def test_no_pull_build_run_or_project_fails_while_images_are_swept(
    engine: PrivateEngine, reaper: Program, registry: str, tmp_path: Path, compose_possible: None
) -> None:
    engine.import_image()
    engine.tag(DEFAULT_IMAGE, FOREIGN)
    docker(engine, "pull", "--quiet", f"{registry}/acme/first:1")
    config = toml(tmp_path, CONFIG)
    failed: list[str] = []

    def repeat(what: str, once: Callable[[int], object]) -> None:
        for number in range(TIMES):
            try:
                once(number)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test is about
                failed.append(f"{what} {number}: {error}")

    sweeps = Sweeps(reaper, config)
    sweeps.start()
    workers = [threading.Thread(target=repeat, args=way) for way in ways(engine, registry, tmp_path).items()]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    swept = sweeps.end()
    assert failed == []
    assert [(ended.code, ended.outcomes(), ended.err) for ended in swept if ended.code] == []
    for _ in range(2):  # what is new to a look counts as used then
        time.sleep(BUILT)
        swept.append(reaper("--once", "--json", *config))
    taken = [name for ended in swept for name, outcome in ended.outcomes().items() if outcome == "deleted"]
    each_once = 1 + PULLED + TIMES + RAN + TIMES
    assert len(taken) >= each_once + (TIMES > 10), "sweeps that take nothing prove nothing"  # of few none need come again
    assert {*engine.images()} == {DEFAULT_IMAGE, FOREIGN}
    engine.remove_images()

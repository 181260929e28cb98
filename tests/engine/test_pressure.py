"""Disk pressure on real engines, whose data are on a small file system of their own that is filled."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devkit.client import DEFAULT_IMAGE
from devkit.engine import PrivateEngine
from tests import needs
from tests.engine.lab import OWNED, containers, exited, toml
from tests.engine.test_kinds import built
from tests.run import Ended, Program
from tests.service.daemon import Daemon, acts

pytestmark = [pytest.mark.engine, pytest.mark.engines(*needs.DOCKERS)]

MIB = 1 << 20
SIZE, INODES = 400, 8000  # MiB, and files
CONFIG = """
[scope]
presets = ["terminal-bench"]
images = ["acme/*"]
[disk]
high = "85%"
low = "75%"
[[policy]]
name = "guard"
kinds = ["container"]
stopped_for = "1ms"
under_pressure = true
[[policy]]
name = "images"
kinds = ["image"]
older_than = "1ms"
under_pressure = true
"""


@contextmanager
def engine_on(folder: Path, flavour: str, *, inodes: int | None = None) -> Iterator[tuple[PrivateEngine, Path]]:
    """An engine on a loop device of 400 MiB, and where that is mounted."""
    if reason := PrivateEngine.available(flavour):
        needs.lacking(reason)
    disk, mount = folder / "disk", Path(f"{PrivateEngine(flavour).directory}-disk")
    with disk.open("wb") as file:
        file.truncate(SIZE * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", *(["-N", str(inodes)] if inodes else []), str(disk)], check=True)
    mount.mkdir()
    try:
        if subprocess.run(["mount", "-o", "loop", str(disk), str(mount)], check=False).returncode:
            pytest.skip("only root may mount a loop device, and not everywhere")
        try:
            with PrivateEngine(flavour).start(directory=mount) as engine:
                yield engine, mount
        finally:
            subprocess.run(["umount", "--lazy", mount], check=True)
    finally:
        mount.rmdir()


def used(mount: Path) -> float:
    """The part of the bytes that is in use, as ``df`` says it."""
    found = os.statvfs(mount)
    taken = found.f_blocks - found.f_bfree
    return taken / (taken + found.f_bavail)


def used_inodes(mount: Path) -> float:
    found = os.statvfs(mount)
    return (found.f_files - found.f_ffree) / found.f_files


def fill(mount: Path, part: float) -> None:
    """Let a file of another program take what is missing to that part of the bytes; all that there is for 1."""
    found = os.statvfs(mount)
    total = (found.f_blocks - found.f_bfree + found.f_bavail) * found.f_frsize
    wanted = int((part - used(mount)) * total)
    with (mount / "others").open("ab") as file:
        try:
            for _ in range(wanted // MIB + (SIZE if part >= 1 else 0)):
                os.write(file.fileno(), b"x" * MIB)
        except OSError:
            os.sync()


def wrote(engine: PrivateEngine, name: str, size: int, **more: object) -> str:
    """A container that has written so many MiB and has ended."""
    command = ("dd", "if=/dev/urandom", "of=/file", "bs=1M", f"count={size}")
    ident = engine.create(name, cmd=command, start=True, **{"labels": OWNED, **more})  # type: ignore[arg-type]
    engine.wait_state(ident, "exited")
    return ident


def world(engine: PrivateEngine) -> None:
    """Containers of 60, 20 and 10 MiB, one of 20 that is not owned, one that runs, one that is kept; two images of 20."""
    engine.import_image()
    for name in ("acme/first:1", "acme/second:1"):
        ident = wrote(engine, f"for-{name[5:-2]}", 20, labels={})
        engine.commit(ident, name)
        engine.remove(ident)
    for size in (10, 60, 20):
        wrote(engine, f"mine-{size}", size)
    wrote(engine, "theirs", 20, labels={})
    engine.create("running", labels=OWNED, start=True)
    exited(engine, "kept", {**OWNED, "reaper.keep": ""})


def ran(reaper: Program, folder: Path, text: str = CONFIG, *more: str) -> Ended:
    return reaper("--once", "--json", *more, *toml(folder, text))


def in_order(program: Program) -> list[str]:
    """What was deleted, as the journal has it."""
    return [row["name"] for row in acts(program, outcome="deleted")]


MINE = {"mine-60", "mine-20", "mine-10"}
OTHERS = {"theirs", "running", "kept"}


def test_a_nearly_full_disk_is_emptied_to_low_and_no_further(flavour: str, tmp_path: Path) -> None:
    """The largest container is enough; the others stay, although the same policy is for them."""
    config = CONFIG.replace("85%", "90%").replace("75%", "88%")
    with engine_on(tmp_path, flavour) as (engine, mount):
        world(engine)
        program = Program(tmp_path, {"DOCKER_HOST": engine.host})
        assert ran(program, tmp_path, config).outcomes() == {}, "there is no pressure"
        fill(mount, 0.95)
        assert used(mount) > 0.94
        ended = ran(program, tmp_path, config)
        assert (ended.code, ended.outcomes()) == (0, {"mine-60": "deleted"}), ended.err
        assert used(mount) <= 0.88
        assert containers(engine) == {"mine-20", "mine-10", *OTHERS}
        (endpoint,) = ended.document["endpoints"]
        assert endpoint["disk"]["where"] == str(engine.data)
        assert endpoint["warnings"] == []
        assert ran(program, tmp_path, config).outcomes() == {}


def test_on_a_full_disk_containers_go_before_images_and_what_may_not_go_is_named(flavour: str, tmp_path: Path) -> None:
    config = CONFIG.replace("75%", "20%")
    with engine_on(tmp_path, flavour) as (engine, mount):
        world(engine)
        fill(mount, 1.0)
        program = Program(tmp_path, {"DOCKER_HOST": engine.host})
        assert "disk" in program("check", *toml(tmp_path, config)).out
        ended = ran(program, tmp_path, config)
        assert ended.code == 3, "cron and runners learn of it in no other way"
        order = in_order(program)
        assert set(order[:3]) == MINE
        assert sorted(order[3:]) == ["acme/first:1", "acme/second:1"]
        assert containers(engine) == OTHERS
        assert DEFAULT_IMAGE in engine.images()
        (warning,) = ended.document["endpoints"][0]["warnings"]
        assert "nothing more may be deleted" in warning
        assert "container theirs (20 MiB): not owned" in warning


def test_inodes_are_freed_to_low_and_no_further(flavour: str, tmp_path: Path) -> None:
    script = "mkdir /d && cd /d && i=0 && while [ $i -lt 300 ]; do : >$i; i=$((i+1)); done"
    config = CONFIG.replace("75%", "80%")
    with engine_on(tmp_path, flavour, inodes=INODES) as (engine, mount):
        engine.import_image()
        for number in range(12):
            ident = engine.create(f"c{number:02}", cmd=("sh", "-c", script), labels=OWNED, start=True)
            engine.wait_state(ident, "exited")
        for number in range(INODES):
            if used_inodes(mount) > 0.95:
                break
            (mount / f"others-{number}").touch()
        assert used_inodes(mount) > 0.95
        ended = ran(Program(tmp_path, {"DOCKER_HOST": engine.host}), tmp_path, config)
        assert ended.code == 0, ended.err
        assert used_inodes(mount) <= 0.80
        assert used(mount) < 0.75, "bytes were never too many"
        assert 2 <= len(containers(engine)) < 12, (
            "a batch of eight is the most that goes before it is known what each gives back"
        )


CACHE = """
[[policy]]
name = "cache"
kinds = ["build-cache"]
unused_for = "1s"
under_pressure = true
"""


@pytest.mark.engines("docker-28.5", "docker-28.5-containerd")
def test_the_build_cache_goes_before_images_and_again_after_them(flavour: str, tmp_path: Path) -> None:
    """Of what BuildKit has built the bytes come back only when its cache is pruned."""
    config = CONFIG.replace("85%", "60%").replace("75%", "20%") + CACHE
    with engine_on(tmp_path, flavour) as (engine, mount):
        engine.import_image()
        for name in ("acme/first:1", "acme/second:1"):
            built(engine, tmp_path / name[5:10], name, DEFAULT_IMAGE)
        wrote(engine, "mine", 10)
        fill(mount, 0.9)
        before = used(mount)
        time.sleep(2)  # the engine counts in whole seconds what the cache was used at
        program = Program(tmp_path, {"DOCKER_HOST": engine.host})
        ended = ran(program, tmp_path, config)
        assert ended.code == 3, "what others have filled the disk with stays"
        order = in_order(program)
        assert order[0] == "mine"
        assert order.index("build-cache") < order.index("acme/first:1"), order
        assert order[-1] == "build-cache", order
        assert {"acme/first:1", "acme/second:1"} <= set(order)
        assert used(mount) < before


def unrelieved_by(daemon: Daemon) -> list[str]:
    """What the metric says of each endpoint."""
    lines = daemon.get("/metrics")[1].splitlines()
    return [line.split()[-1] for line in lines if line.startswith("reaper_disk_unrelieved{")]


def test_the_service_empties_a_disk_that_fills_up_and_says_what_is_in_the_way(flavour: str, tmp_path: Path) -> None:
    policies = CONFIG.partition("[[policy]]")
    config = policies[0].replace("85%", "60%").replace("75%", "20%") + "".join(policies[1:])
    with engine_on(tmp_path, flavour) as (engine, mount):
        world(engine)
        program = Program(tmp_path, {"DOCKER_HOST": engine.host})
        with Daemon(program, config).start() as daemon:
            daemon.wait("service_started")
            daemon.until(lambda: "reaper_disk_pressure{" in daemon.get("/metrics")[1], "a first measurement")
            assert containers(engine) > MINE
            fill(mount, 0.95)
            started = daemon.wait("disk_pressure_started", endpoint="local")
            assert started["high"] == "60%"
            unrelieved = daemon.until(  # half a minute may pass for images that give less than they say
                lambda: next(daemon.events("disk_pressure_unrelieved", endpoint="local"), None), "what is in the way", 180
            )
            assert unrelieved is not None
            assert any(text.startswith("container theirs (20 MiB): not owned") for text in unrelieved["stays"])
            assert containers(engine) == OTHERS
            assert unrelieved_by(daemon) == ["1.0"]
            assert "The disk is fuller than low, and nothing more may be deleted, on local" in daemon.get("/")[1]
            (mount / "others").unlink()
            daemon.wait("disk_pressure_ended", endpoint="local")
            daemon.until(lambda: unrelieved_by(daemon) == ["0.0"], "the end of it in the metrics")
            assert daemon.stop() == 0

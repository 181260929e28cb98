"""How full an engine's disk is: looked at where that is this host's, else as the engine counts, and never a guess."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from reaper.core.disk import BYTES, INODES, DiskUsage, Room
from reaper.providers.docker import data_root
from reaper.providers.docker.client import DockerProvider
from reaper.providers.docker.settings import DockerTable
from tests.core.make import STOPPED

pytestmark = pytest.mark.anyio
GB = 10**9
HERE = os.uname()


@pytest.fixture(autouse=True)
def not_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_root, "_is_contained", lambda: False)


class Engine:
    """An engine that answers what the test says, at a unix socket."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "docker.sock"
        self.info: dict[str, Any] = {
            "DockerRootDir": str(folder),
            "KernelVersion": HERE.release,
            "Name": HERE.nodename,
        }
        self.df: dict[str, Any] = {}
        self.sizes: dict[str, int] = {}
        self.hangs: set[str] = set()
        self.asked: list[str] = []

    @asynccontextmanager
    async def provider(self, **fields: Any) -> AsyncIterator[DockerProvider]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(self.socket)).start()
        provider = DockerProvider(DockerTable(name="local", host=f"unix://{self.socket}", **fields))
        try:
            yield provider
        finally:
            await provider.close()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.path.partition("/v1.41")[2] or request.path
        self.asked.append(path)
        if path in self.hangs:
            await anyio.sleep_forever()
        if path == "/version":
            return web.json_response({"ApiVersion": "1.41"})
        if path == "/info":
            return web.json_response(self.info)
        if path == "/system/df":
            return web.json_response(self.df)
        ident = path.split("/")[2]
        assert request.query["size"] == "1"
        return web.json_response({"Id": ident, "SizeRw": self.sizes[ident]})


@pytest.fixture
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(tmp_path_factory.mktemp("e"))


async def usage(engine: Engine, **fields: Any) -> DiskUsage:
    async with engine.provider(**fields) as provider:
        return await provider.meter.usage()


async def test_the_file_system_of_the_data_root_is_measured(engine: Engine, tmp_path: Path) -> None:
    engine.info["DockerRootDir"] = str(tmp_path)
    found = await usage(engine)
    seen = os.statvfs(tmp_path)
    assert (found.where, found.problem) == (str(tmp_path), None)
    assert found.rooms[BYTES].total == pytest.approx((seen.f_blocks - seen.f_bfree + seen.f_bavail) * seen.f_frsize)
    assert (INODES in found.rooms) == bool(seen.f_files)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"KernelVersion": "6.6.12-linuxkit"}, "kernel (6.6.12-linuxkit) is not this host's"),
        ({"Name": "gpu-7"}, "the engine runs on gpu-7"),
        ({"DockerRootDir": "/no/such/place"}, "/no/such/place, where the engine's data are, cannot be looked at"),
        ({"DockerRootDir": None}, "does not say where its data are"),
    ],
)
async def test_another_host_s_engine_is_not_measured_by_a_path_of_this_one(
    engine: Engine, said: dict[str, Any], problem: str
) -> None:
    engine.info |= said
    found = await usage(engine)
    assert found.rooms == {}
    assert problem in (found.problem or "")
    assert "data_root or disk_size" in (found.problem or "")


async def test_in_a_container_the_path_has_to_be_mounted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_root, "_is_contained", lambda: True)
    engine.info |= {"DockerRootDir": "/", "Name": "the-host"}
    found = await usage(engine)
    assert found.rooms == {}
    assert "mount the engine's data root into this container at the same path, read-only" in (found.problem or "")


async def test_a_path_that_is_named_is_measured_whatever_the_engine_says(engine: Engine, tmp_path: Path) -> None:
    engine.info["Name"] = "gpu-7"
    found = await usage(engine, data_root=str(tmp_path))
    assert found.where == str(tmp_path)
    assert engine.asked == []
    assert "cannot be looked at" in ((await usage(engine, data_root="/no/such")).problem or "")


async def test_an_engine_elsewhere_is_taken_at_its_word_where_its_size_is_named(engine: Engine) -> None:
    engine.info["Name"] = "gpu-7"
    engine.df = {
        "LayersSize": 40 * GB,
        "Containers": [{"SizeRw": 5 * GB}, {"SizeRw": None}, {}],
        "Volumes": [{"UsageData": {"Size": 3 * GB}}, {"UsageData": {"Size": -1}}, {"UsageData": None}],
        "BuildCache": [{"Size": 2 * GB, "Shared": False}, {"Size": 9 * GB, "Shared": True}],
    }
    async with engine.provider(disk_size="100GB") as provider:
        found = await provider.meter.usage()
        assert found.rooms == {BYTES: Room(50 * GB, 50 * GB)}
        assert provider.meter.every >= 3600, "it costs the engine much"
        assert provider.meter.pause >= 60


async def test_an_engine_that_measures_for_too_long_is_left_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_root, "ANSWER_WITHIN", 0.05)
    engine.info["Name"] = "gpu-7"
    engine.hangs.add("/system/df")
    found = await usage(engine, disk_size="100GB")
    assert "GET /system/df was not answered within" in (found.problem or "")
    engine.hangs.add("/info")
    assert "GET /info was not answered within" in ((await usage(engine)).problem or "")


async def test_stopped_containers_are_measured_one_by_one_and_not_for_long(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_root, "LOOK_WITHIN", 0.05)
    ids = [f"{number:064x}" for number in range(5)]
    engine.sizes = {id_: number * GB for number, id_ in enumerate(ids)}
    engine.hangs.add(f"/containers/{ids[2]}/json")
    async with engine.provider() as provider:
        found = await provider.meter.sizes([replace(STOPPED, id=id_) for id_ in ids])
    assert found == {id_: size for id_, size in engine.sizes.items() if id_ != ids[2]}

"""Which version of the API is spoken with an engine: its latest one, as long as this program knows that."""

from contextlib import suppress

import pytest
from aiohttp import web

from reaper.core.model import Kind
from reaper.errors import UnavailableError
from reaper.providers.base import Also
from reaper.providers.docker.client import DockerProvider
from reaper.providers.docker.sdk import spoken
from reaper.providers.docker.settings import DockerTable
from tests.providers.lab import NAME, direct, server

CACHE = [{"ID": "a", "Size": 5000, "InUse": False, "Shared": False, "CreatedAt": "2026-11-01T00:00:00Z"}]


@pytest.mark.parametrize(
    ("latest", "oldest", "version"),
    [
        ("1.41", "1.12", "1.41"),
        ("1.51", "1.24", "1.51"),
        ("1.52", "1.44", "1.51"),
        ("1.60", "1.44", "1.51"),
        ("1.70", "1.55", "1.55"),
        ("1.9", "None", "1.9"),
        ("2.0", "1.44", "1.51"),
    ],
)
def test_no_version_is_spoken_that_is_not_known_unless_the_engine_requires_it(
    latest: str, oldest: str, version: str
) -> None:
    assert spoken(latest, oldest) == version


@pytest.mark.anyio
async def test_what_a_later_version_leaves_out_is_there() -> None:
    """Of the build cache Docker announces that from 1.53 on (moby, api/docs/CHANGELOG.md)."""
    asked = []

    def handle(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        if request.path == "/version":
            return web.json_response({"ApiVersion": "1.54", "MinAPIVersion": "1.44", "Version": "29.9.0"})
        version, _, what = request.path.removeprefix("/v1.").partition("/")
        if what == "system/df":
            field = {"BuildCache": CACHE} if int(version) < 53 else {"BuildCacheUsage": {"TotalCount": 1}}
            return web.json_response(field)
        return web.json_response([])

    async with server(handle) as url:
        provider = DockerProvider(DockerTable(name=NAME, host=url.replace("http:", "tcp:").removesuffix("/api")))
        try:
            found = await provider.list(direct, also=Also(kinds=frozenset({Kind.BUILD_CACHE})))
        finally:
            await provider.close()
    assert [resource.size for resource in found.resources] == [5000]
    assert all(path == "/version" or path.startswith("/v1.51/") for path in asked)


@pytest.mark.anyio
@pytest.mark.parametrize(("before", "after"), [((24, 41), (44, 51)), ((24, 51), (12, 41)), ((24, 51), (44, 54))])
async def test_an_engine_that_was_replaced_is_spoken_to_in_its_own_version(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    """A client lives for as long as the service does, and an upgraded engine may refuse what was spoken before."""
    takes, asked = [before], list[int]()

    def handle(request: web.Request) -> web.StreamResponse:
        oldest, latest = takes[-1]
        headers = {"Api-Version": f"1.{latest}"}
        if request.path == "/version":
            return web.json_response({"ApiVersion": f"1.{latest}", "MinAPIVersion": f"1.{oldest}"}, headers=headers)
        version = int(request.path.removeprefix("/v1.").partition("/")[0])
        if not oldest <= version <= latest:
            what = f"old. Minimum supported API version is 1.{oldest}" if version < oldest else "new. Maximum is less"
            return web.json_response({"message": f"client version 1.{version} is too {what}"}, status=400, headers=headers)
        asked.append(version)
        return web.json_response([], headers=headers)

    async with server(handle) as url:
        provider = DockerProvider(DockerTable(name=NAME, host=url.replace("http:", "tcp:").removesuffix("/api")))
        try:
            await provider.list(direct)
            takes.append(after)
            with suppress(UnavailableError):  # which is tried again
                await provider.list(direct)
            asked.clear()
            await provider.list(direct)
        finally:
            await provider.close()
    assert set(asked) == {min(after[1], 51)}

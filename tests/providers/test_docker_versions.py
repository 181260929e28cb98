"""Which version of the API is spoken with an engine: its latest one, as long as this program knows that."""

import pytest
from aiohttp import web

from reaper.core.model import Kind
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

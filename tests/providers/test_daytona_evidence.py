"""What a Daytona organisation tells of a sandbox before its deletion."""

import json

import pytest

from reaper.errors import NotFoundError
from tests.providers.lab import Lab

pytestmark = pytest.mark.anyio
SECRET = "hunter2s3cr3t"


async def test_it_is_what_get_by_id_shows_without_secrets() -> None:
    async with Lab() as lab:
        row = lab.add("trial", state="stopped", labels={"harbor.managed": "true", "app.token": SECRET})
        row.extra = {"env": {"OPENAI_API_KEY": SECRET, "TEAM": "rl"}, "sshToken": SECRET, "errorReason": f"no {SECRET} here"}
        found = await lab.provider.evidence(lab.resource(row), 200)
    assert (found.log, found.note, found.problem) == (None, "the platform keeps no log of a sandbox", "")
    assert found.inspection["state"] == "stopped"
    assert found.inspection["env"] == {"OPENAI_API_KEY": "***", "TEAM": "rl"}
    assert found.inspection["errorReason"] == "no *** here"
    assert SECRET not in json.dumps(found.inspection)


async def test_the_dockerfile_that_it_was_built_from_is_not_saved() -> None:
    """It says nothing of how it ended, and no name tells which of its words are secrets."""
    async with Lab() as lab:
        row = lab.add("built", state="stopped", snapshot=None)
        found = await lab.provider.evidence(lab.resource(row), 200)
    assert found.inspection["name"] == "built"
    assert "hunter2hunter2" not in json.dumps(found.inspection)


async def test_one_that_is_gone() -> None:
    async with Lab() as lab:
        with pytest.raises(NotFoundError):
            await lab.provider.evidence(lab.resource("0" * 36), 200)

"""An endpoint lives if it answers a request, be it with a refusal; one that is asked nothing shows no sign of life."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from reaper.errors import ConfigError, DeniedError, ReaperError, UnavailableError
from reaper.providers.base import answers
from reaper.providers.memory import MemoryReader, MemoryWorld, Rule, VirtualClock
from tests.example_provider import REGISTRATION

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("error", "lives"),
    [
        (None, True),
        (DeniedError("a proxy refuses"), True),
        (UnavailableError("refused"), False),
        (ConfigError("the certificates cannot be read"), None),
    ],
)
async def test_only_an_answer_is_a_sign_of_life(error: ReaperError | None, *, lives: bool | None) -> None:
    world = MemoryWorld((), VirtualClock(datetime(2026, 11, 21, tzinfo=UTC)), latency=0.0)
    world.rules += [Rule("identify", error=error)] if error is not None else []
    assert await answers(MemoryReader(world)) is lives


async def test_what_need_not_ask_for_its_identity_has_not_answered(tmp_path: Path) -> None:
    table = REGISTRATION.table.model_validate({"name": "here", "folder": str(tmp_path / "gone")})
    reader = REGISTRATION.connect(table, "", tmp_path, act=False).reader
    assert await answers(reader) is None

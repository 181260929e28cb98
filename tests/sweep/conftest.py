"""Every test here runs on two event loops, and on both of them time jumps instead of passing."""

from typing import Any

import pytest
import trio.testing

from tests.sweep.loops import JumpingLoop


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": JumpingLoop}

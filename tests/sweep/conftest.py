"""Every test here runs on two event loops, and on both of them time jumps instead of passing."""

from collections.abc import Iterator
from typing import Any

import pytest
import stamina.instrumentation
import trio.testing

from tests.sweep.loops import JumpingLoop


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": JumpingLoop}


@pytest.fixture(autouse=True, scope="session")
def quiet_stamina() -> Iterator[None]:
    """Stamina's own line about each retry would fill the output of a failing test."""
    stamina.instrumentation.set_on_retry_hooks(())
    yield
    stamina.instrumentation.set_on_retry_hooks(None)

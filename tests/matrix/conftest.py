"""The cells run in a loop in which time jumps, together with the simulated servers that they ask over real HTTP."""

from tests.daytona.conftest import anyio_backend

__all__ = ["anyio_backend"]

"""Time that jumps, as for sweeps."""

from tests.sweep.conftest import anyio_backend

__all__ = ["anyio_backend"]  # a fixture

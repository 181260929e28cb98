"""Fixtures of the library's tests."""

from tests.sweep.conftest import quiet_stamina

__all__ = ["quiet_stamina"]  # a fixture

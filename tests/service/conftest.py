"""The tests of workers run on time that jumps, as those of the sweep do."""

from tests.sweep.conftest import quiet_stamina  # noqa: F401 - a fixture

"""What the tests of deploy/ run on: one engine for all of them, with images made on this machine."""

from collections.abc import Iterator

import pytest

from devkit import images
from devkit.engine import PrivateEngine
from tests import needs

BUILT = {"VERSION": "0.0.0-test", "REVISION": "0123abc", "CREATED": "2026-11-21T00:00:00Z"}


@pytest.fixture(scope="session")
def images_possible(engine_possible: None) -> None:
    """Skips the test where images cannot be made here."""
    needs.tool("docker", "docker.io")
    if packages := images.missing():
        needs.lacking(f"Debian's packages {' '.join(packages)} are not installed")


@pytest.fixture(scope="session")
def deploy_engine(images_possible: None) -> Iterator[PrivateEngine]:
    """An engine with the image bench:1; who uses it leaves no container, network or volume behind."""
    with PrivateEngine().start(rules=True) as engine:
        engine.import_image()
        yield engine


@pytest.fixture(scope="session")
def base(deploy_engine: PrivateEngine) -> str:
    """A Debian with Python and systemd, on `deploy_engine`."""
    return images.base_image(deploy_engine)


@pytest.fixture(scope="session")
def image(deploy_engine: PrivateEngine) -> str:
    """The image of reaper, on `deploy_engine`."""
    return images.reaper_image(deploy_engine, **BUILT)


@pytest.fixture(scope="session")
def ryuk_image(deploy_engine: PrivateEngine, image: str) -> str:
    """The image of its target ryuk, on `deploy_engine`; `image` has built what both have in common."""
    return images.ryuk_image(deploy_engine, **BUILT)


@pytest.fixture
def clean(deploy_engine: PrivateEngine) -> Iterator[PrivateEngine]:
    """`deploy_engine`, empty again after the test."""
    yield deploy_engine
    deploy_engine.clear()

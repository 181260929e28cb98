"""What a test needs of the machine: without it the test is skipped, or fails where everything has to be tested."""

import os
import shutil
from typing import NoReturn

import pytest


def lacking(reason: str) -> NoReturn:
    """Skip the test, or fail it where REAPER_REQUIRE_ENGINE is set.

    Args:
        reason: what is missing, in one sentence.
    """
    if os.environ.get("REAPER_REQUIRE_ENGINE"):
        pytest.fail(f"REAPER_REQUIRE_ENGINE is set, but {reason}")
    pytest.skip(reason)


def tool(name: str, package: str) -> str:
    """The path of a command.

    Args:
        name: the command's name.
        package: Debian's package that has it.
    """
    return shutil.which(name) or lacking(f"{name} (Debian's package {package}) is not installed")

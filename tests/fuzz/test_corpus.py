"""Every parser of bytes that others wrote keeps its promise for what was kept, and for some inputs like it.

``make fuzz`` goes on from here for as long as it is given, guided by what the inputs reach, and keeps what it finds.
"""

from itertools import islice
from random import Random

import pytest

from tests.fuzz.mutation import CORPUS, mutations, seeds
from tests.fuzz.targets import TARGETS

WITH_FILES = {"configuration", "docker_config", "remembered", "leases_rows", "leases_file", "journal_file"}


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_the_documented_error_comes_of_any_input(name: str) -> None:
    target, corpus = TARGETS[name], seeds(name)
    for data in (*corpus, *islice(mutations(corpus, Random(name)), 60 if name in WITH_FILES else 400)):
        try:
            target(data)
        except Exception as error:
            raise AssertionError(f"{name} with {data[:2000]!r}") from error


def test_every_target_has_a_corpus_and_no_corpus_is_without_a_target() -> None:
    assert sorted(folder.name for folder in CORPUS.iterdir()) == sorted(TARGETS)

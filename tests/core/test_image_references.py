"""What an image reference may mean: one image has many names, and containers and events have the one that a person wrote."""

import pytest

from reaper.core.image_references import References, familiar

ID = "sha256:3f2a" + "b" * 60
TAGS = ("acme/x:1",)


@pytest.mark.parametrize(
    ("written", "listed"),
    [
        ("acme/x:1", "acme/x:1"),
        ("acme/x", "acme/x:latest"),
        ("docker.io/acme/x:1", "acme/x:1"),
        ("index.docker.io/acme/x", "acme/x:latest"),
        ("docker.io/library/python:3.13", "python:3.13"),
        ("library/python", "python:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("ghcr.io/acme/x:1", "ghcr.io/acme/x:1"),
        ("acme/x@sha256:12", "acme/x@sha256:12"),
    ],
)
def test_a_reference_is_called_as_the_engine_lists_it(written: str, listed: str) -> None:
    assert familiar(written) == listed


@pytest.mark.parametrize(
    "reference",
    [
        *("acme/x:1", "docker.io/acme/x:1", "index.docker.io/acme/x:1"),
        *(ID, ID.removeprefix("sha256:"), "3f2a", ID[:15]),
        *("acme/x@sha256:" + "c" * 64, "docker.io/acme/x:7@sha256:" + "c" * 64),
    ],
)
def test_each_way_to_name_an_image_may_mean_it(reference: str) -> None:
    assert References(["other:1", reference]).may_mean(ID, TAGS)


@pytest.mark.parametrize(
    "reference",
    [
        *("acme/x:2", "acme/x", "x:1", "ghcr.io/acme/x:1", "acme/xx:1"),
        *("4f2a", "sha256:3f2a" + "c" * 60, "acme/y@sha256:" + "c" * 64, ""),
    ],
)
def test_what_names_another_image_does_not(reference: str) -> None:
    assert not References([reference]).may_mean(ID, TAGS)


def test_an_image_without_tags_has_its_id_alone() -> None:
    assert References(["3f2a"]).may_mean(ID, ())
    assert not References(["acme/x:1", "acme/x@sha256:12"]).may_mean(ID, ())


def test_one_that_was_pulled_by_its_digest_is_meant_with_any_tag_before_that() -> None:
    assert References(["acme/x:1@sha256:" + "c" * 64]).may_mean(ID, ("acme/x@sha256:" + "c" * 64,))

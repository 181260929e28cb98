"""What a lease may claim, whichever way it comes in."""

from collections.abc import Callable

import pytest

from reaper.core.claim_check import MOST_CLAIMS, MOST_ENTRIES, ClaimError, check, check_all
from reaper.core.lease import Claim
from reaper.core.scope import Selector
from reaper.errors import ConfigError
from reaper.leases.ryuk_protocol import LineError, claim_of
from reaper.run.command import claims as owned

CLAIMABLE = ("org.testcontainers.*",)


def labels(*entries: str) -> Claim:
    return Claim(Selector(labels=entries))


FOR_NO_CLIENT = {
    "nothing": (Claim(), "claims nothing"),
    "every name": (Claim(Selector(names=("*",))), "claims everything"),
    "every name beside one": (Claim(Selector(names=("chess-*", "?*"))), "claims everything"),
    "every image": (Claim(Selector(images=("**",))), "claims everything"),
    "every project": (Claim(projects=("*",)), "claims everything"),
    "every name of every image": (Claim(Selector(names=("[a-z]*",), images=("[!x]*",))), "claims everything"),
    "a glob in a key": (labels("team-*"), "in its key"),
    "no key": (labels("=x"), "names no label"),
    "an open bracket": (Claim(Selector(names=("a[b",))), "opens a bracket"),
    "a range that runs backwards": (Claim(projects=("x[z-a]",)), "can never match"),
    "a character that a terminal obeys": (Claim(Selector(names=("a\x1b[2J",))), "cannot be printed"),
    "a long name": (Claim(Selector(names=("x" * 2000,))), "more than 1024 characters"),
    "many names": (Claim(Selector(names=("x",) * (MOST_ENTRIES + 1))), "at most 32 entries"),
}


@pytest.mark.parametrize("name", FOR_NO_CLIENT)
def test_what_matches_everything_or_nothing_is_refused_for_every_client(name: str) -> None:
    claim, problem = FOR_NO_CLIENT[name]
    for claimable in (None, CLAIMABLE):
        with pytest.raises(ClaimError) as refused:
            check(claim, claimable)
        assert problem in str(refused.value)
        assert str(refused.value).isprintable()


TRUSTED = {
    "a name": Claim(Selector(names=("chess-*",))),
    "every name of one label": Claim(Selector(labels=("team=rl",), names=("*",))),
    "every image of one name": Claim(Selector(names=("chess-*",), images=("*",))),
    "a project": Claim(projects=("zz__*",)),
    "a label": labels("team"),
    "a label's glob": labels("team=r*"),
    "all that Testcontainers labels": labels("org.testcontainers.lang=node"),
}


@pytest.mark.parametrize("name", TRUSTED)
def test_who_is_trusted_may_claim_what_tells_its_own_apart_and_others_may_not(name: str) -> None:
    check(TRUSTED[name], None)
    with pytest.raises(ClaimError) as refused:
        check(TRUSTED[name], CLAIMABLE)
    assert refused.value.denied


SHARED = {
    "a language": ("org.testcontainers.lang=node",),
    "all of Testcontainers": ("org.testcontainers=true", "org.testcontainers.lang=node"),
    "a session that is none": ("org.testcontainers.session-id=00000000-0000-0000-0000-000000000000",),
    "true": ("org.testcontainers.something=true",),
}


@pytest.mark.parametrize("name", SHARED)
def test_what_other_sessions_carry_is_claimed_by_no_way_in(name: str) -> None:
    with pytest.raises(ClaimError, match="names no session"):
        check(labels(*SHARED[name]), CLAIMABLE)
    line = "&".join(f"label={label}" for label in SHARED[name])
    with pytest.raises(LineError, match="names no session"):
        claim_of(line.encode(), CLAIMABLE)


def test_a_session_s_own_label_is_claimed() -> None:
    check(labels("org.testcontainers.session-id=abc", "org.testcontainers=true"), CLAIMABLE)


def by_check(number: int) -> None:
    check_all([labels("a=b")] * number, None)


def by_command_line(number: int) -> None:
    owned(["label=a=b"] * number)


@pytest.mark.parametrize("claim", [by_check, by_command_line])
def test_a_lease_has_a_bounded_number_of_claims(claim: Callable[[int], None]) -> None:
    claim(MOST_CLAIMS)
    with pytest.raises((ClaimError, ConfigError), match="at most 32 claims"):
        claim(MOST_CLAIMS + 1)


@pytest.mark.parametrize("text", ["name=*", "name=chess-*,name=*", "project=*", "image=?*", "label=team-*=x", "name=a[b"])
def test_the_command_line_is_checked_as_well(text: str) -> None:
    with pytest.raises(ConfigError, match="--own") as refused:
        owned([text])
    assert repr(text) in str(refused.value)

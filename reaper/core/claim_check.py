"""What a lease may claim: one check for all ways in, HTTP, the local socket, Ryuk, the command line and the library. Pure.

When a lease ends, what it claims is deleted. So a claim is refused that can match nothing, or everything; and a client
that is not trusted claims by labels that are set aside for that, each with its value, one of which identifies its session.
"""

import fnmatch
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from reaper.core.lease import SESSION_LABELS, Claim
from reaper.core.scope import is_total

MOST_CLAIMS, MOST_ENTRIES = 32, 32  # of a lease, and in each field of a claim
LONGEST = 1024  # characters of an entry

EVERYBODYS = "org.testcontainers"
"""The key that every container of Testcontainers carries, as "true". The usual line of Ryuk names it beside the session."""

SHARED = frozenset(
    f"{EVERYBODYS}{key}"
    for key in (
        *("", ".lang", ".version", ".managed-by", ".ryuk", ".reaper", ".reap", ".sshd"),
        *(".hash", ".container-hash", ".reuse-hash", ".copied_files.hash"),  # of what is to be found and used again
    )
)
"""Keys that the libraries put on the containers of more than one session."""

_GLOB = re.compile(r"[*?\[]")
_SET = re.compile(r"\[!?\]?[^\]]*\]")
_SHOWN = 60


class ClaimError(ValueError):
    """A claim that is not taken; says why.

    Args:
        problem: for people.
        denied: whether a trusted client might claim it.
    """

    def __init__(self, problem: str, *, denied: bool = False) -> None:
        super().__init__(problem)
        self.denied = denied


def check_all(claims: Sequence[Claim], claimable: Sequence[str] | None) -> None:
    """Raise ClaimError unless a lease may have these claims.

    Args:
        claims: they.
        claimable: globs of the label keys by which every client may claim; None for trusted clients.
    """
    if len(claims) > MOST_CLAIMS:
        raise ClaimError(f"a lease has at most {MOST_CLAIMS} claims, and this one {len(claims)}")
    for claim in claims:
        check(claim, claimable)


def check(claim: Claim, claimable: Sequence[str] | None) -> None:
    """Raise ClaimError unless this may be claimed; see ``check_all``."""
    if claim == Claim():
        raise ClaimError("an empty claim claims nothing; leave it out")
    selector = claim.selector
    globs = {"name": selector.names, "image": selector.images, "project": claim.projects}
    for word, entries in {"label": selector.labels, **globs}.items():
        if len(entries) > MOST_ENTRIES:
            raise ClaimError(
                f"a claim has at most {MOST_ENTRIES} entries of one sort, and this one {len(entries)} of {word}"
            )
        for entry in entries:
            _check_entry(word, entry)
    if not selector.labels and all(any(map(_is_total, entries)) for entries in globs.values() if entries):
        raise ClaimError("it claims everything that is made while the lease lives; name something that is unique to it")
    if claimable is not None:
        _check_untrusted(claim, claimable)


def _is_total(glob: str) -> bool:
    """Whether a glob has no character of its own, so that it matches everything, or everything of some length."""
    return is_total(_SET.sub("", glob))


def _check_entry(word: str, entry: str) -> None:
    """Raise ClaimError for one that can match nothing, or that no engine could have."""
    key, equals, glob = entry.partition("=") if word == "label" else ("", "=", entry)
    if len(entry) > LONGEST:
        raise ClaimError(f"{word} {_shown(entry)} has more than {LONGEST} characters")
    if not entry.isprintable():
        raise ClaimError(f"{word} {_shown(entry)} has a character that cannot be printed")
    if word == "label" and (not key.strip() or key != key.strip()):
        raise ClaimError(f"label {_shown(entry)} names no label; write KEY, KEY=VALUE or KEY=GLOB")
    if _GLOB.search(key):
        raise ClaimError(f"label {_shown(entry)} has one of * ? [ in its key, where they match nothing; write the whole key")
    if word != "label" and not glob:
        raise ClaimError(f"an empty {word} matches nothing; leave it out")
    if equals and _GLOB.search(glob):
        _check_glob(word, entry, glob)


def _check_glob(word: str, entry: str, glob: str) -> None:
    start = glob.find("[")
    while start >= 0:
        first = start + 2 if glob.startswith("!", start + 1) else start + 1
        end = glob.find("]", first + 1)
        if end < 0:
            raise ClaimError(f"{word} {_shown(entry)} opens a bracket and does not close it; a literal one is written [[]")
        start = glob.find("[", end)
    if "(?!)" in fnmatch.translate(glob):
        raise ClaimError(f"{word} {_shown(entry)} can never match: its range runs backwards; write for example [a-z]")


def _check_untrusted(claim: Claim, claimable: Sequence[str]) -> None:
    if claim.selector.names or claim.selector.images or claim.projects:
        raise ClaimError("claims by name, image or project need a token; without one claim by labels", denied=True)
    labels: dict[str, str] = {}
    for entry in claim.selector.labels:
        key, equals, value = entry.partition("=")
        if not equals or not value:
            problem = f"label {_shown(key)} comes without its value; without a token it is claimed with its value"
            raise ClaimError(problem, denied=True)
        if _GLOB.search(value):
            problem = f"label {_shown(key)} has one of * ? [, and without a token a label is claimed without globs"
            raise ClaimError(problem, denied=True)
        if labels.setdefault(key, value) != value:
            raise ClaimError(f"label {_shown(key)} comes with two values, and nothing has both")
        if not (key == EVERYBODYS and value == "true") and not _matches(key, claimable):
            raise ClaimError(f"label {_shown(key)}: [leases] claimable does not have this key", denied=True)
    if not any(_is_specific(key, value) for key, value in labels.items()):
        raise ClaimError("it names no session: other sessions carry the same labels", denied=True)


def _is_specific(key: str, value: str) -> bool:
    if key in SHARED or value.lower() in ("true", "false"):
        return False
    return key not in SESSION_LABELS or bool(value.strip("0-"))  # zeros stand for no session


def _matches(key: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(key, glob) for glob in globs)


def _shown(text: str) -> str:
    """What a client sent, for a message: short, and nothing in it that a terminal would obey."""
    return ascii(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")

"""What ``--own`` says: the claims of a run on what carries no label of its lease."""

from collections.abc import Iterable

from reaper.claimcheck import ClaimError, check, check_all
from reaper.claims import Claim
from reaper.errors import ConfigError

_CURE = 'write for example "label=team=rl", "name=chess-*", "image=tb__*__client" or "project=chess", several with commas'
_FIELDS = {"label": "labels", "name": "names", "image": "images", "project": "projects"}


def claims(texts: Iterable[str]) -> tuple[Claim, ...]:
    """A claim for each text: "name=chess-*" or, ANDed, "label=team=rl,name=chess-*". Raises ConfigError."""
    found = tuple(_claim(text) for text in texts)
    try:
        check_all(found, None)
    except ClaimError as error:
        raise ConfigError(str(error), _CURE, "--own") from None
    return found


def _claim(text: str) -> Claim:
    fields: dict[str, list[str]] = {field: [] for field in _FIELDS.values()}
    for part in text.split(","):
        word, equals, value = part.strip().partition("=")
        if word not in _FIELDS or not equals or not value:
            raise ConfigError(f"{part.strip()!r} selects nothing", _CURE, "--own")
        fields[_FIELDS[word]].append(value)
    claim = Claim.of(fields)
    try:
        check(claim, None)
    except ClaimError as error:
        raise ConfigError(f"{text!r}: {error}", _CURE, "--own") from None
    return claim

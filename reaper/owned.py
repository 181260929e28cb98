"""What ``--own`` says: the claims of a run on what carries no label of its lease."""

from collections.abc import Iterable

from reaper.claims import Claim
from reaper.errors import ConfigError
from reaper.fields import check_glob, check_label
from reaper.scope import is_total

_CURE = 'write for example "label=team=rl", "name=chess-*", "image=tb__*__client" or "project=chess", several with commas'
_FIELDS = {"label": "labels", "name": "names", "image": "images", "project": "projects"}


def claims(texts: Iterable[str]) -> tuple[Claim, ...]:
    """A claim for each text: "name=chess-*" or, ANDed, "label=team=rl,name=chess-*". Raises ConfigError."""
    return tuple(_claim(text) for text in texts)


def _claim(text: str) -> Claim:
    fields: dict[str, list[str]] = {field: [] for field in _FIELDS.values()}
    for part in text.split(","):
        word, equals, value = part.strip().partition("=")
        if word not in _FIELDS or not equals or not value:
            raise ConfigError(f"{part.strip()!r} selects nothing", _CURE, "--own")
        try:
            fields[_FIELDS[word]].append(check_label(value) if word == "label" else check_glob(value))
        except ValueError as error:
            raise ConfigError(f"{part.strip()!r}: {error}", _CURE, "--own") from None
    globs = (glob for field in fields.values() for glob in field)
    if all(is_total(glob) for glob in globs):
        raise ConfigError(f"{text!r} would make everything the run's that appears while it runs", _CURE, "--own")
    return Claim.of(fields)

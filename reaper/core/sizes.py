"""Numbers of bytes as people write them ("10GiB", "500MB") and as people read them ("1.2 GiB"). Pure."""

import re

EXAMPLES = '"500MB", "10GiB"'
_UNITS = {"b": 1}
for _number, _letter in enumerate("kmgt", 1):
    _UNITS |= {f"{_letter}b": 1000**_number, f"{_letter}ib": 1024**_number}
_WHOLE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B|kB|B)", re.ASCII)


def parse(text: str) -> int:
    """The number of bytes that ``text`` names. Raises ValueError, with an example of what would be right."""
    found = _WHOLE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size; write for example {EXAMPLES}")
    return round(float(found[1]) * _UNITS[found[2].lower()])


def spell(size: int) -> str:
    """``size`` in the form that ``parse`` reads, exactly."""
    for letter, number in (("T", 4), ("G", 3), ("M", 2), ("K", 1)):
        for unit, factor in ((f"{letter}iB", 1024**number), (f"{letter}B", 1000**number)):
            if size and size % factor == 0:
                return f"{size // factor}{unit}"
    return f"{size}B"


def human(size: int) -> str:
    """``size`` for a sentence: "1.2 GiB", "14 MiB", "312 B"."""
    if size < 1024:
        return f"{size} B"
    value, unit = float(size), "B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):  # noqa: B007 - the last one is used
        value /= 1024
        if value < 1024:
            break
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"

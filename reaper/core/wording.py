"""How many of something there are, in words for people; and what others wrote, as much of it as a line has room for."""

LONGEST = 100  # characters


def clipped(text: str) -> str:
    """The text, or its beginning: an engine takes labels of a megabyte."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def plural(noun: str) -> str:
    """Such as "resources", "sandboxes"."""
    return f"{noun}es" if noun.endswith("x") else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """Such as "1 resource", "12,431 resources"."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def is_or_are(number: int) -> str:
    """The verb behind so many."""
    return "is" if number == 1 else "are"

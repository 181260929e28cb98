"""HTML in which text stays text: whatever is not ``Html`` is escaped, and rid of what would turn or hide its neighbours."""

from html import escape

LONGEST = 600  # characters of one text; what is longer was not written for people

_VOID = frozenset({"br", "link", "meta"})


class Html(str):
    """Markup that was made here; every other string is text that others may have written."""

    __slots__ = ()


def clean(text: str) -> str:
    """``text`` in one line and not too long, without control characters, bidirectional overrides and half characters."""
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def markup(child: str) -> str:
    """``child`` as it stands in a page."""
    return child if isinstance(child, Html) else escape(clean(child))


def el(tag: str, *children: str, **attributes: str | None) -> Html:
    """An element. ``class_`` is the attribute class, ``data_label`` data-label; those that are None are left out."""
    pairs = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{markup(value)}"' for name, value in attributes.items() if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{pairs}>")
    return Html(f"<{tag}{pairs}>{''.join(map(markup, children))}</{tag}>")


def together(*children: str, between: str = "") -> Html:
    """The children one after the other; empty ones are left out."""
    return Html(markup(between).join(markup(child) for child in children if child))

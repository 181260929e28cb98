"""HTML in which text stays text: whatever is not ``Html`` is escaped, and rid of what would turn or hide its neighbours.

And what the page is put together from: tables, badges, names, times.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape

from reaper.core.durations import human
from reaper.service.page.verdict import Level

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


NONE = el("span", "\N{EN DASH}", class_="none")


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Html]],
    *,
    numbers: Sequence[str] = (),
    class_: str | None = None,
) -> Html:
    """A table whose cells know their columns' names: on a narrow screen each row is a card."""

    def cell(tag: str, column: str) -> Callable[..., Html]:
        right = "number" if column in numbers else None
        return lambda child, **more: el(tag, child, class_=right, **more)

    head = el("tr", *(cell("th", column)(column, scope="col") for column in columns))
    body = []
    for row in rows:
        first, *others = zip(columns, row, strict=True)
        body.append(
            el(
                "tr",
                el("th", el("div", first[1]), scope="row", data_label=first[0]),
                *(cell("td", column)(el("div", child), data_label=column) for column, child in others),
            )
        )
    return el("table", el("caption", caption), el("thead", head), el("tbody", *body), class_=class_)


def badge(level: Level, text: str) -> Html:
    """A word with a colour: never the colour alone."""
    return el("span", text, class_=f"badge {level}")


def named(text: str) -> Html:
    """A name that others chose: isolated, so that its direction turns nothing around it."""
    return el("bdi", text, class_="name")


def empty(text: str) -> Html:
    """What stands where there is nothing to show."""
    return el("p", text, class_="empty")


def moment(at: datetime, text: str) -> Html:
    """A time shown as ``text``, with the exact one (UTC) behind it."""
    utc = at.astimezone(UTC).replace(microsecond=0)
    return el("time", text, datetime=utc.isoformat().replace("+00:00", "Z"), title=f"{utc:%Y-%m-%d %H:%M:%S} UTC")


def ago(at: datetime, now: datetime) -> Html:
    """How long ago something was."""
    if at > now:  # a clock was set back
        return moment(at, f"in {human(at - now)}")
    return moment(at, f"{human(now - at)} ago" if now - at >= timedelta(seconds=1) else "just now")


def due(at: datetime, now: datetime) -> Html:
    """When something is due."""
    if at > now:
        return moment(at, f"in {human(at - now)}")
    return moment(at, "now" if now - at < timedelta(minutes=1) else f"overdue by {human(now - at)}")


def by_state(counts: Mapping[str, int]) -> str:
    """Such as "12 running, 3 stopped", the largest first."""
    return ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items(), key=lambda item: -item[1]) if count)

"""What the page is put together from: tables, badges, names, times."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from reaper.core.durations import human
from reaper.service.page.markup import Html, el
from reaper.service.page.verdict import Level

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

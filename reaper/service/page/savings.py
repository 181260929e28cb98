"""The section of the page about what the deletions since the start were worth."""

from reaper.core import sizes
from reaper.core.savings import Total, money
from reaper.service.page.markup import Html, el, empty, named, table, together
from reaper.service.status import Status

_NUMBERS = ("Leaks", "Hours", "Freed", "Saved", "Failed", "Skipped", "Violations")
_COLUMNS = ("Endpoint", "Owner", "Policy", *_NUMBERS)
SHOWN = 50  # rows; an organisation may have many owners


def worth(status: Status) -> Html:
    """A row for each endpoint, owner and policy, and one for all of them."""
    if not status.worth:
        return empty("Nothing yet. What deletions avoid is added up here from the start of the service on.")
    whole = Total()
    for total in status.worth.values():
        whole += total
    found = sorted(status.worth.items(), key=lambda item: (-item[1].violations, -item[1].leaks, item[0]))
    rows = [[named(e), el("bdi", o), el("bdi", p), *_figures(total, status)] for (e, o, p), total in found[:SHOWN]]
    rows.append([el("strong", "all"), Html(""), Html(""), *_figures(whole, status)])
    note = (
        "Since the service was started. Hours: for how long containers and sandboxes would have gone on, until the next"
        " policy or for a day. Violations: what was touched although its last look on record forbade it."
        " reaper history --summary has it for any time."
    )
    more = f"and {len(found) - SHOWN:,} more rows, which the last one has in it" if len(found) > SHOWN else ""
    rest: str = el("p", more, class_="more") if more else ""
    return together(
        table("What the deletions were worth", _COLUMNS, rows, numbers=_NUMBERS), rest, el("p", note, class_="more")
    )


def _figures(total: Total, status: Status) -> list[Html]:
    freed = "?" if total.unmeasured and not total.freed else sizes.human(total.freed)
    return [
        el("span", f"{total.leaks:,}"),
        el("span", f"{total.hours:,.1f}"),
        el("span", freed),
        el("span", money(total.cost, status.prices)),
        el("span", f"{total.failures:,}", class_="bad" if total.failures else None),
        el("span", f"{total.skipped:,}"),
        el("span", f"{total.violations:,}", class_="bad" if total.violations else None),
    ]

"""The sections of the page: endpoints, what is reapable, policies, the last deletions and what they were worth."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from reaper.core import sizes
from reaper.core.durations import human
from reaper.core.model import Outcome
from reaper.core.savings import Total, money
from reaper.core.wording import counted
from reaper.providers.base import LARGEST_SKEW
from reaper.service.page.markup import NONE, Html, ago, badge, by_state, due, el, empty, moment, named, table, together
from reaper.service.page.verdict import Level, age
from reaper.service.status import SHOWN_REAPABLE, Deletion, EndpointStatus, OpenLease, PolicyStatus, Reapable, Status

FOLD = 20  # of more endpoints than this, those without trouble are folded away
OPEN = 15  # reapable resources beyond this are folded away
FEW = 6  # a policy's endpoints beyond this are folded away

_OUTCOMES = {
    Outcome.DELETED: Level.GOOD,
    Outcome.GONE: Level.GOOD,
    Outcome.STOPPED: Level.WARN,
    Outcome.ARCHIVED: Level.GOOD,
    Outcome.TIMER_SET: Level.GOOD,
    Outcome.SKIPPED: Level.QUIET,
    Outcome.FAILED: Level.BAD,
}


# -- endpoints ---------------------------------------------------------------------------------------------------------

_ENDPOINT_COLUMNS = ("Endpoint", "State", "Held", "Reapable", "Last listed", "Remarks")


def endpoints(status: Status, now: datetime) -> Html:
    """What is known of each endpoint, the worst first."""
    every = sorted(status.endpoints.values(), key=_worst_first)
    if not every:
        return empty("No endpoint is configured. Name one with [[docker]] or [[daytona]] in the configuration.")
    calm = [e for e in every if _calm(e)] if len(every) > FOLD else []
    shown = [e for e in every if not calm or not _calm(e)]
    cut = max(FOLD, sum(map(_troubled, shown)))
    shown, least = shown[:cut], shown[cut:]
    remarks = any(_remarks(endpoint, now) for endpoint in every)
    columns = _ENDPOINT_COLUMNS if remarks else _ENDPOINT_COLUMNS[:-1]

    def rows(some: Sequence[EndpointStatus], caption: str) -> Html:
        return table(
            caption,
            columns,
            [_endpoint(e, now, columns, dry_run=status.dry_run) for e in some],
            numbers=("Held", "Reapable"),
        )

    leak = counted(sum(e.reapable for e in least), "reapable resource")
    quiet = f"{counted(len(calm), 'endpoint')} up, with nothing reapable"
    folded = (least, f"{counted(len(least), 'more endpoint')}, with {leak} in all"), (calm, quiet)
    rest = [el("details", el("summary", text), rows(some, text)) for some, text in folded if some]
    return together(rows(shown, "Endpoints") if shown else "", *rest)


def _worst_first(endpoint: EndpointStatus) -> tuple[bool, bool, int, bool, str]:
    return endpoint.up is not False, not _troubled(endpoint), -endpoint.reapable, endpoint.up is not None, endpoint.name


def _troubled(endpoint: EndpointStatus) -> bool:
    return endpoint.up is False or bool(endpoint.cap or endpoint.breaker_open or endpoint.error or endpoint.pressed)


def _calm(endpoint: EndpointStatus) -> bool:
    quiet = not endpoint.reapable and not endpoint.clock_skew and endpoint.sweeping_since is None
    return endpoint.up is True and quiet and not _troubled(endpoint)


def _endpoint(endpoint: EndpointStatus, now: datetime, columns: Sequence[str], *, dry_run: bool) -> list[Html]:
    if endpoint.up is None:
        state = badge(Level.QUIET, "not listed yet")
    elif endpoint.up:
        state = badge(Level.GOOD, "up")
    else:
        state = badge(Level.BAD, "down")
        if endpoint.failing_since is not None:
            since = moment(endpoint.failing_since, age(endpoint.failing_since, now))
            state = together(state, el("span", "for ", since, class_="sub bad"))
    if endpoint.sweeping_since is not None:
        swept = together("sweeping for ", moment(endpoint.sweeping_since, age(endpoint.sweeping_since, now)))
        state = together(state, el("span", swept, class_="sub"))
    held = together(f"{endpoint.held:,}", el("span", by_state(endpoint.states), class_="sub"))
    reapable = el("strong", f"{endpoint.reapable:,}", class_="warn") if endpoint.reapable else el("span", "0", class_="none")
    cells = [
        together(named(endpoint.name), el("span", endpoint.provider, class_="sub")),
        state,
        held if endpoint.listed_at or endpoint.held else NONE,
        reapable if endpoint.listed_at or endpoint.reapable else NONE,
        ago(endpoint.listed_at, now) if endpoint.listed_at else el("span", "never", class_="none"),
    ]
    if len(columns) > len(cells):
        remarks = _remarks(endpoint, now, dry_run=dry_run)
        cells.append(el("ul", *(el("li", remark) for remark in remarks)) if remarks else NONE)
    return cells


def _remarks(endpoint: EndpointStatus, now: datetime, *, dry_run: bool = False) -> list[Html]:
    remarks = []
    if endpoint.error is not None:
        remarks.append(el("span", endpoint.error, class_="bad"))
    if endpoint.next_try_at is not None:
        remarks.append(together("Next try ", due(endpoint.next_try_at, now)))
    if endpoint.cap is not None:
        text = f"Deletion cap: {endpoint.cap}. None of that was deleted."
        remarks.append(el("span", text, class_="warn" if dry_run else "bad"))
    if endpoint.breaker_open:
        remarks.append(el("span", "Call after call failed: the last sweep stopped asking it.", class_="warn"))
    if endpoint.clock_skew:
        way = "ahead of" if endpoint.clock_skew > timedelta(0) else "behind"
        then = "ages are unknown" if abs(endpoint.clock_skew) > LARGEST_SKEW else "ages are corrected"
        text = f"Its clock is {human(abs(endpoint.clock_skew))} {way} this one; {then}."
        remarks.append(el("span", text, class_="warn"))
    if (disk := endpoint.disk) is not None and endpoint.in_the_way is not None:
        remarks.append(el("span", f"{endpoint.in_the_way[0].upper()}{endpoint.in_the_way[1:]}.", class_="bad"))
    elif disk is not None and disk.rooms:
        text = f"Disk ({disk.where}): {disk.words()} in use{'; that is too much' if endpoint.pressed else ''}."
        remarks.append(el("span", text, class_="warn" if endpoint.pressed else "muted"))
    elif disk is not None and disk.problem is not None:
        remarks.append(el("span", f"Its disk is not measured: {disk.problem}.", class_="warn"))
    if endpoint.events is not None:
        why = f": {endpoint.events_error}" if endpoint.events_error and endpoint.events_error != endpoint.error else ""
        text = "Events are followed." if endpoint.events else f"Events are not followed now{why}."
        remarks.append(el("span", text, class_="muted" if endpoint.events or not why else "warn"))
    return remarks


# -- leases ------------------------------------------------------------------------------------------------------------


def leases(status: Status, now: datetime) -> Html:
    """Who holds what, the oldest first."""
    if status.leases is None:
        return empty("No leases can be taken: [leases] is not enabled.")
    if not status.leases:
        return empty("No run holds one. What runs is judged by its age, and by its owner where a label names one.")
    columns = ("Lease", "Held by", "State", "Covers", "Since")
    rows = [_lease_row(lease, now) for lease in status.leases]
    more = status.leases_open - len(rows)
    rest: str = el("p", f"{counted(more, 'further lease')} not shown", class_="more") if more > 0 else ""
    return together(table("Open leases", columns, rows), rest)


def _lease_row(lease: OpenLease, now: datetime) -> list[Html]:
    about = [text for text in (lease.user, lease.command) if text]
    holder = together(named(lease.holder), *(el("span", el("bdi", text), class_="sub") for text in about))
    state = badge(Level.WARN, "not heard of") if lease.waiting else badge(Level.GOOD, "alive")
    covers = ("what carries its label", *lease.covers)
    return [named(lease.id), holder, state, el("ul", *(el("li", el("bdi", text)) for text in covers)), ago(lease.since, now)]


# -- what is reapable --------------------------------------------------------------------------------------------------


def reapable(status: Status, now: datetime) -> Html:
    """What the next sweeps would delete, the longest reapable first."""
    every = status.endpoints.values()
    total = sum(endpoint.reapable for endpoint in every)
    if not any(endpoint.up is not None for endpoint in every):
        return empty("No endpoint has been swept yet.")
    if not total:
        unseen = any(endpoint.up is not True for endpoint in every)
        return empty("Nothing, on the endpoints that could be listed." if unseen else "Nothing.")
    found = [(endpoint.name, resource) for endpoint in every for resource in endpoint.shown]
    found.sort(key=lambda pair: (pair[1].since is None, pair[1].since or now, pair[0], pair[1].name))
    shown = found[:SHOWN_REAPABLE]
    columns = ("Name", "Endpoint", "Policy", "Reapable for", "Why")
    rows = [_reapable_row(name, resource, now) for name, resource in shown]
    first = table("The longest reapable", columns, rows[:OPEN])
    rest: str = ""
    if len(rows) > OPEN:
        title = f"{len(rows) - OPEN} more"
        rest = el("details", el("summary", title), table(title, columns, rows[OPEN:]))
    left = total - len(shown)
    return together(first, rest, el("p", f"and {left:,} more: reaper list has them all", class_="more") if left else "")


def _reapable_row(endpoint: str, resource: Reapable, now: datetime) -> list[Html]:
    return [
        together(named(resource.name), " ", el("span", resource.kind, class_="kind")),
        el("bdi", endpoint),
        el("bdi", resource.policy) if resource.policy is not None else NONE,
        moment(resource.since, age(resource.since, now))
        if resource.since is not None
        else el("span", "unknown", class_="none"),
        el("bdi", resource.sentence),
    ]


# -- policies ----------------------------------------------------------------------------------------------------------


def policies(status: Status, now: datetime) -> Html:
    """A card for each policy."""
    if not status.policies:
        return empty("No policy is configured, so nothing is ever swept.")
    return el("div", *(_policy(policy, now) for policy in status.policies.values()), class_="cards")


def _policy(policy: PolicyStatus, now: datetime) -> Html:
    last = max(policy.last_at.values(), default=None)
    facts = el(
        "dl",
        el("div", el("dt", "Takes"), el("dd", el("bdi", policy.takes))),
        el("div", el("dt", "Schedule"), el("dd", policy.schedule)),
        el("div", el("dt", "Next due"), el("dd", due(policy.next_at, now) if policy.next_at else NONE)),
        el("div", el("dt", "Last sweep"), el("dd", ago(last, now) if last else el("span", "not yet", class_="none"))),
    )
    never = datetime.min.replace(tzinfo=UTC)
    names = sorted(policy.endpoints, key=lambda n: (policy.last_success_at.get(n, never), n))

    def rows(some: Sequence[str]) -> Html:
        columns = ("Endpoint", "Last sweep", "Last success")
        return table(
            f"Sweeps of {policy.name}", columns, [_policy_row(policy, name, now) for name in some], class_="compact"
        )

    if not names:
        rest: str = empty("None of the endpoints has what it is for.")
    elif len(names) <= FEW:
        rest = rows(names)
    else:
        more = el("summary", counted(len(names) - FEW + 1, "more endpoint"))
        rest = together(rows(names[: FEW - 1]), el("details", more, rows(names[FEW - 1 :])))
    return el("article", el("h3", el("bdi", policy.name)), facts, rest, class_="card")


def _policy_row(policy: PolicyStatus, name: str, now: datetime) -> list[Html]:
    last, success = policy.last_at.get(name), policy.last_success_at.get(name)
    if success is not None:
        behind = last is not None and last > success
        succeeded = el("span", ago(success, now), class_="warn" if behind else None)
    else:
        succeeded = el("span", "never", class_="bad") if last is not None else el("span", "not yet", class_="none")
    return [el("bdi", name), ago(last, now) if last is not None else el("span", "not yet", class_="none"), succeeded]


# -- deletions ---------------------------------------------------------------------------------------------------------


def deletions(status: Status, now: datetime) -> Html:
    """The results that are remembered."""
    if not status.deletions:
        return empty("None yet. Deletions are listed here, with the reason.")
    columns = ("When", "Outcome", "Name", "Endpoint", "Policy", "Why")
    return table("What the last sweeps did, the newest first", columns, [_deletion(d, now) for d in status.deletions])


def _deletion(deletion: Deletion, now: datetime) -> list[Html]:
    why = el("bdi", deletion.sentence)
    if deletion.detail:
        colour = Level.BAD if deletion.outcome is Outcome.FAILED else None
        why = together(el("bdi", deletion.detail, class_=colour), el("span", why, class_="sub"))
    if deletion.evidence_of is not None:
        command = el("code", f"reaper history --show {deletion.evidence_of}")
        why = together(why, el("span", "its evidence was saved: ", command, class_="sub"))
    return [
        ago(deletion.at, now),
        badge(_OUTCOMES.get(deletion.outcome, Level.QUIET), deletion.outcome.value.replace("_", " ")),
        together(named(deletion.name), " ", el("span", deletion.kind, class_="kind")),
        el("bdi", deletion.endpoint),
        el("bdi", deletion.policy) if deletion.policy is not None else NONE,
        why,
    ]


# -- what the deletions were worth ---------------------------------------------------------------------------------------

_WORTH_NUMBERS = ("Leaks", "Hours", "Freed", "Saved", "Failed", "Skipped", "Violations")
_WORTH_COLUMNS = ("Endpoint", "Owner", "Policy", *_WORTH_NUMBERS)
SHOWN_WORTH = 50  # rows; an organisation may have many owners


def worth(status: Status) -> Html:
    """A row for each endpoint, owner and policy, and one for all of them."""
    if not status.worth:
        return empty("Nothing yet. What deletions avoid is added up here from the start of the service on.")
    whole = Total()
    for total in status.worth.values():
        whole += total
    found = sorted(status.worth.items(), key=lambda item: (-item[1].violations, -item[1].leaks, item[0]))
    rows = [[named(e), el("bdi", o), el("bdi", p), *_figures(total, status)] for (e, o, p), total in found[:SHOWN_WORTH]]
    rows.append([el("strong", "all"), Html(""), Html(""), *_figures(whole, status)])
    note = (
        "Since the service was started. Hours: for how long containers and sandboxes would have gone on, until the next"
        " policy or for a day. Violations: what was touched although its last look on record forbade it."
        " reaper history --summary has it for any time."
    )
    more = f"and {len(found) - SHOWN_WORTH:,} more rows, which the last one has in it" if len(found) > SHOWN_WORTH else ""
    rest: str = el("p", more, class_="more") if more else ""
    return together(
        table("What the deletions were worth", _WORTH_COLUMNS, rows, numbers=_WORTH_NUMBERS),
        rest,
        el("p", note, class_="more"),
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

"""The status page: one document that needs nothing else. Pure: made of the service's status and a time."""

from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from urllib.parse import quote

from reaper.core.model import Outcome
from reaper.service.page import sections
from reaper.service.page.markup import NONE, Html, ago, by_state, due, el, moment, together
from reaper.service.page.verdict import Level, age, verdict
from reaper.service.status import EndpointStatus, Status

RELOAD = 30  # seconds

STYLE = files("reaper.service.page").joinpath("style.css").read_text(encoding="utf-8")
_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{_HASH}'",
        "img-src data:",  # the icon
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_ICON = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="{}"/></svg>'
_ICON_COLOURS = {Level.GOOD: "#2da44e", Level.QUIET: "#8b949e", Level.WARN: "#d29922", Level.BAD: "#cf222e"}


def render(status: Status, now: datetime, *, reload: bool = True) -> str:
    """The page as it is now.

    Args:
        status: must not change meanwhile.
        now: aware UTC.
        reload: whether the browser is to load it again by itself.
    """
    word = verdict(status, now)
    icon = "data:image/svg+xml," + quote(_ICON.format(_ICON_COLOURS[word.level]))
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("title", f"{word.short} · reaper"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", http_equiv="refresh", content=str(RELOAD)) if reload else "",
        el("link", rel="icon", href=Html(icon)),
        el("style", Html(STYLE)),
    )
    main = el(
        "main",
        el("div", el("h1", word.headline), el("p", word.line), class_=f"verdict {word.level}"),
        _banners(status, now),
        _figures(status, now),
        _section("endpoints", "Endpoints", len(status.endpoints), sections.endpoints(status, now)),
        _section(
            "reapable",
            "Would be deleted now" if status.dry_run else "Reapable now",
            sum(e.reapable for e in status.endpoints.values()),
            sections.reapable(status, now),
        ),
        _section("leases", "Leases", status.leases_open, sections.leases(status, now)),
        _section("policies", "Policies", len(status.policies), sections.policies(status, now)),
        _section("deletions", "Last deletions", len(status.deletions), sections.deletions(status, now)),
        _section("worth", "What it was worth", 0, sections.worth(status)),
    )
    body = el("body", _header(now, reload=reload), main, _footer(status, now))
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


# -- the frame ---------------------------------------------------------------------------------------------------------


def _header(now: datetime, *, reload: bool) -> Html:
    names = ("Endpoints", "Reapable", "Leases", "Policies", "Deletions", "Worth")
    control = el("a", "stop", href="/?refresh=off") if reload else el("a", "resume", href="/")
    return el(
        "header",
        el("p", "reaper", class_="brand"),
        el("nav", *(el("a", name, href=f"#{name.lower()}") for name in names), aria_label="Sections"),
        el(
            "p",
            "as of ",
            moment(now, f"{now.astimezone(UTC):%H:%M:%S} UTC"),
            f", reloads every {RELOAD} s · " if reload else ", auto-refresh off · ",
            control,
            class_="asof",
        ),
    )


def _banners(status: Status, now: datetime) -> Html:
    banners = []
    if status.dry_run:
        text = "[service] dry_run is true: each sweep looks, decides and says what it would delete, and deletes nothing."
        banners.append(_banner(Level.QUIET, "This is a dry run.", text))
    if status.draining:
        text = "No new sweep starts; what is being deleted is finished first."
        banners.append(_banner(Level.QUIET, "The service is shutting down.", text))
    if status.reload_error is not None:
        since = f", loaded {age(status.loaded_at, now)} ago," if status.loaded_at is not None else ""
        title = f"The last reload was refused; the configuration before it{since} stays in force."
        banners.append(_banner(Level.WARN, title, status.reload_error))
    if status.leases_error is not None:
        title = "The leases cannot be kept: none is granted, and while they cannot be read nothing is deleted."
        banners.append(_banner(Level.BAD, title, status.leases_error))
    if status.journal_error is not None:
        title = "The journal cannot be written: deletions go on, but the record of them has a gap."
        banners.append(_banner(Level.WARN, title, status.journal_error))
    return together(*banners)


def _banner(level: Level, title: str, text: str) -> Html:
    lines = together(*text.strip().splitlines(), between=el("br"))
    return el("div", el("strong", title), el("p", lines), class_=f"banner {level}", role="status")


def _figures(status: Status, now: datetime) -> Html:
    endpoints = status.endpoints.values()
    up, down, unseen = (sum(e.up is state for e in endpoints) for state in (True, False, None))
    seen = unseen < len(endpoints)
    reapable = sum(endpoint.reapable for endpoint in endpoints)
    oldest = min((e.oldest for e in endpoints if e.oldest is not None), default=None)
    dues = [(policy.next_at, policy.name) for policy in status.policies.values() if policy.next_at is not None]
    at, policy = min(dues, default=(None, None))
    failed = sum(deletion.outcome is Outcome.FAILED for deletion in status.deletions)
    last = next((d for d in status.deletions if d.outcome.removed), None)
    total = len(status.deletions)

    up_note = f"{down} down" if down else f"{unseen} not looked at yet" if unseen else "none is down"
    held = f"{sum(e.held for e in endpoints):,}" if seen else NONE
    reapable_note: str = "" if reapable else "nothing is waiting to go"
    if oldest is not None:
        reapable_note = together("oldest for ", moment(oldest, age(oldest, now)))
    last_note = (
        f"{failed} of the last {total} failed" if failed else f"of the last {total} none failed" if total else "none yet"
    )
    return el(
        "dl",
        _figure("Endpoints up", f"{up} of {len(endpoints)}", up_note, bad=bool(down)),
        _figure("Resources held", held, _states(endpoints) if seen else "not known yet"),
        _figure(
            "Would be deleted now" if status.dry_run else "Reapable now",
            f"{reapable:,}" if seen else NONE,
            reapable_note if seen else "not known yet",
            warn=bool(reapable) and not status.dry_run,
        ),
        _figure(
            "Next sweep", due(at, now) if at else NONE, el("bdi", policy) if policy is not None else "nothing is scheduled"
        ),
        _figure("Last deletion", ago(last.at, now) if last else NONE, last_note, bad=bool(failed)),
        class_="figures",
    )


def _figure(term: str, value: str, note: str, *, warn: bool = False, bad: bool = False) -> Html:
    level = Level.BAD if bad else Level.WARN if warn else None
    return el("div", el("dt", term), el("dd", value, class_="value"), el("dd", note, class_="note"), class_=level)


def _states(endpoints: Iterable[EndpointStatus]) -> str:
    counts: dict[str, int] = {}
    for endpoint in endpoints:
        for state, count in endpoint.states.items():
            counts[state] = counts.get(state, 0) + count
    return by_state(counts) or "nothing held"


def _section(name: str, title: str, count: int, content: Html) -> Html:
    heading = el("h2", title, el("span", f"{count:,}", class_="count") if count else "", id=f"{name}-title")
    return el("section", heading, content, id=name, aria_labelledby=f"{name}-title")


def _footer(status: Status, now: datetime) -> Html:
    loaded = together(", loaded ", ago(status.loaded_at, now)) if status.loaded_at is not None else ""
    file = el("code", status.config_file) if status.config_file is not None else "built-in defaults"
    return el(
        "footer",
        el("p", "reaper ", status.version, ", started ", ago(status.started_at, now)),
        el("p", "Configuration: ", file, loaded),
        el("p", *(together(el("a", path, href=path), " ") for path in ("/metrics", "/healthz", "/readyz"))),
    )

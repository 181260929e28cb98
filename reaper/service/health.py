"""Whether the service is alive and schedules, and whether it is ready: what ``/healthz``, ``/readyz`` and the watchdog ask.

Both are pure. Ages come from the wall clock, as ``Status`` has it: a clock that was turned back makes what fired appear to
lie ahead, and that counts as fresh; one that was turned forward makes it appear old until the next beat, seconds later.
"""

from datetime import datetime, timedelta
from typing import Any

from reaper.core.durations import human
from reaper.service.status import Status

STALE = timedelta(seconds=60)  # twelve heartbeats; also what the start may take until the first one


def health(status: Status, now: datetime) -> tuple[bool, dict[str, Any]]:
    """Whether the loop comes round and the scheduler fires, and the document that says so.

    A service that is on its way out is healthy: its scheduler has been stopped on purpose, and a restart of
    what is unhealthy would cut its last deletions short.
    """
    return _document(
        status,
        now,
        _fires("loop", "the event loop came round", status.loop_at, status, now),
        _fires("scheduler", "the scheduler fired", status.beat_at, status, now),
    )


def readiness(status: Status, now: datetime) -> tuple[bool, dict[str, Any]]:
    """Whether a configuration is loaded, an endpoint can be listed and the service stays; and the document that says so."""
    loaded = status.loaded_at is not None
    configuration = "loaded" if loaded else "not loaded yet"
    if loaded and status.reload_error is not None:
        configuration = f"loaded; the last reload was refused: {status.reload_error}"
    return _document(
        status,
        now,
        _check("configuration", ok=loaded, detail=configuration),
        _check("endpoints", ok=any(e.up for e in status.endpoints.values()), detail=_endpoints(status)),
        _check("not_draining", ok=not status.draining, detail="shutting down" if status.draining else "not shutting down"),
    )


def _endpoints(status: Status) -> str:
    endpoints = status.endpoints.values()
    if not endpoints:
        return "none is configured"
    text = f"{sum(e.up is True for e in endpoints)} of {len(endpoints)} could be listed"
    down = sorted(e.name for e in endpoints if e.up is False)
    return f"{text}; down: {', '.join(down)}" if down else text


def _fires(name: str, what: str, at: datetime | None, status: Status, now: datetime) -> dict[str, Any]:
    if status.draining:
        return _check(name, ok=True, detail="shutting down")
    age = max(now - (at or status.started_at), timedelta(0))
    detail = f"{what} {human(age)} ago" if at is not None else f"nothing yet, started {human(age)} ago"
    return _check(name, ok=age <= STALE, detail=detail)


def _check(name: str, *, ok: bool, detail: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail}


def _document(status: Status, now: datetime, *checks: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    ok = all(check["ok"] for check in checks)
    return ok, {
        "status": "ok" if ok else "failing",
        "checks": list(checks),
        "version": status.version,
        "started_at": status.started_at.isoformat(),
        "now": now.isoformat(),
    }

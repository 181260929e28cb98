"""What a service may know about itself, from nothing to far too much."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from reaper.core.model import Outcome
from reaper.core.savings import Total
from reaper.service.status import Deletion, EndpointStatus, OpenLease, Reapable, Status

NOW = datetime(2026, 11, 21, 12, 0, 5, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

POLICIES = {
    "stopped-containers": ("every 10m", 2),
    "old-containers": ("every 30m", 30),
    "stopped-sandboxes": ("every 10m", 3),
    "old-sandboxes": ("cron 15 * * * * (UTC)", 15),
}
NASTY = '<script src="//evil.example/x.js">alert(1)</script>\u202etxt.exe\x1b[31m "quoted" & \'single\'\x00'
ARABIC, EMOJI = "حاوية-الاختبار-واحد", "🧪🔬trial-👩‍💻"
LONG = "tb__swe-bench-verified__django__django-16379__attempt-3__" + "0123456789abcdef" * 8


def started(*endpoints: str, ago: timedelta = 5 * HOUR) -> Status:
    """A service that has looked at nothing yet; names that begin with "rl" are Daytona organisations."""
    status = Status("0.1.0", NOW - ago, config_file="/etc/reaper/reaper.toml", loaded_at=NOW - ago)
    status.beat_at, status.loop_at = NOW - 3 * SECOND, NOW - SECOND
    names = {name: "daytona" if name.startswith("rl") else "docker" for name in endpoints}
    of = {
        "containers": [n for n, p in names.items() if p == "docker"],
        "sandboxes": [n for n, p in names.items() if p != "docker"],
    }
    status.configure(names, {name: (schedule, of[name.split("-")[1]]) for name, (schedule, _) in POLICIES.items()})
    for policy in status.policies.values():
        policy.next_at = NOW + POLICIES[policy.name][1] * MINUTE
    return status


def fresh() -> Status:
    return started("local", "gpu-1", "rl-org", ago=2 * SECOND)


def unconfigured() -> Status:
    return started()


def healthy() -> Status:
    """All is well, and something has been deleted."""
    status = started("local", "gpu-1", "rl-org")
    for number, endpoint in enumerate(status.endpoints.values()):
        look(endpoint, running=12 + 290 * number, stopped=number, ago=(12 + 31 * number) * SECOND)
    leased(status, OpenLease("7f3a90c1d2e4b5a6", "pid 4711 on gpu-1", "ada", "harbor run", (), NOW - 26 * HOUR, False))
    swept(status)
    deleted(status, 9, Outcome.DELETED, Outcome.DELETED, Outcome.GONE, Outcome.SKIPPED)
    return status


def troubled() -> Status:
    """One endpoint is down, another holds leftovers, and the reload was refused."""
    status = healthy()
    status.reload_error = (
        'policy "old-containers": older_than: \'6\' is not a duration; write for example "90s", "10m"\n  the file says 6'
    )
    status.journal_error = "/var/lib/reaper/journal.sqlite: No space left on device"
    status.leases_error = "the leases in /var/lib/reaper/leases.db cannot be read: it is cut off"
    down = status.endpoints["gpu-1"]
    down.up, down.failing_since, down.next_try_at = False, NOW - 3 * HOUR - 20 * MINUTE, NOW + 40 * SECOND
    down.error = "tcp://10.20.0.7:2376 does not answer: connection refused (after 4 tries in 22 s)"
    down.listed_at, down.events = NOW - 3 * HOUR - 21 * MINUTE, False
    for policy in status.policies.values():
        if "gpu-1" in policy.last_at:
            policy.last_success_at["gpu-1"] = NOW - 3 * HOUR - 21 * MINUTE
    skewed = status.endpoints["rl-org"]
    skewed.clock_skew, skewed.breaker_open = -4 * MINUTE, True
    leak(status.endpoints["local"], 37)
    deleted(status, 40, Outcome.FAILED, Outcome.DELETED, Outcome.STOPPED, Outcome.GONE)
    return status


def leaking() -> Status:
    """Nothing is wrong but what is left over."""
    status = healthy()
    leak(status.endpoints["local"], 36)
    leak(status.endpoints["rl-org"], 1)
    status.endpoints["local"].sweeping_since = NOW - 12 * SECOND
    return status


def capped() -> Status:
    status = leaking()
    leak(status.endpoints["gpu-1"], 2431)
    status.endpoints["gpu-1"].cap = "2431 would have gone, max_deletions = 1000"
    status.draining = True
    return status


def full() -> Status:
    """A hundred endpoints, and names by people who mean no good."""
    status = started(*(f"gpu-{n:02}" for n in range(80)), *(f"rl-{n:02}" for n in range(19)), NASTY)
    status.config_file = f"/etc/{LONG}/{NASTY}"
    status.reload_error = status.journal_error = status.leases_error = NASTY * 5
    nasty = OpenLease(LONG, NASTY, NASTY, LONG, (NASTY, ARABIC, EMOJI), NOW - DAY, True)
    leased(status, *[nasty] * 50, more=1234)
    for number, endpoint in enumerate(status.endpoints.values()):
        look(endpoint, running=number * 37, stopped=number, ago=number * SECOND)
        if number % 11 == 0:
            leak(endpoint, number * 13 + 1)
        if number % 17 == 0:
            endpoint.up, endpoint.failing_since, endpoint.error = False, NOW - number * MINUTE, f"{NASTY} {LONG} {ARABIC}"
    swept(status)
    status.policies["stopped-containers"].name = NASTY
    deleted(status, 60, *Outcome)
    for number in range(70):
        status.worth[f"gpu-{number:02}", NASTY, LONG] = Total(
            leaks=number, hours=1e6, freed=2**50, cost=1e9, failures=number
        )
    return status


WORLDS: dict[str, Callable[[], Status]] = {
    make.__name__: make for make in (fresh, unconfigured, healthy, troubled, leaking, capped, full)
}


def leased(status: Status, *leases: OpenLease, more: int = 0) -> None:
    """These are held, and more than are shown."""
    status.leases, status.leases_open = leases, len(leases) + more


def look(endpoint: EndpointStatus, *, running: int, stopped: int, ago: timedelta) -> None:
    """It was listed so long ago, and held these."""
    endpoint.up, endpoint.listed_at, endpoint.held = True, NOW - ago, running + stopped
    endpoint.states = {"running": running, "stopped": stopped}
    endpoint.events = True if endpoint.provider == "docker" else None


def leak(endpoint: EndpointStatus, count: int) -> None:
    """So many of what it holds are reapable; the oldest for 3 h 20 min."""
    kind = "container" if endpoint.provider == "docker" else "sandbox"
    names = ["chess-best-move.1-of-1.2026-11-21__04-11-09-client-1", LONG, ARABIC, EMOJI, NASTY]
    endpoint.reapable, endpoint.oldest, endpoint.held = count, NOW - 3 * HOUR - 20 * MINUTE, endpoint.held + count
    endpoint.states = {**endpoint.states, "stopped": endpoint.states.get("stopped", 0) + count}
    endpoint.shown = tuple(
        Reapable(
            f"id-{n}",
            names[n % len(names)] if n % 7 == 0 else f"hb__fix-git-{n:04}__main-1",
            kind,
            ("stopped-containers" if kind == "container" else "stopped-sandboxes") if n % 3 else None,
            f"stopped for {9 + n} h {n % 60} min, longer than 6 h",
            None if n % 10 == 9 else NOW - 3 * HOUR - 20 * MINUTE + n * MINUTE,
        )
        for n in range(min(count, 100))
    )


def swept(status: Status) -> None:
    """Every policy was due a while ago, everywhere."""
    for number, policy in enumerate(status.policies.values()):
        for name in policy.endpoints:
            policy.last_at[name] = policy.last_success_at[name] = NOW - (number + 1) * 3 * MINUTE


def deleted(status: Status, count: int, *outcomes: Outcome) -> None:
    """So many results, the newest first, of these outcomes in turn."""
    details = {
        Outcome.FAILED: "the engine said 500: device or resource busy (after 4 tries)",
        Outcome.SKIPPED: "it was started meanwhile",
        Outcome.STOPPED: "the key may not delete sandboxes: stopped instead",
    }
    names = list(status.endpoints)
    for n in range(count):
        outcome = outcomes[n % len(outcomes)]
        status.deletions.append(
            Deletion(
                NOW - (n + 1) * 47 * SECOND,
                names[n % len(names)],
                "container",
                (LONG, ARABIC, NASTY)[n % 3] if n % 8 == 5 else f"tb__hello-world-{n:03}__client-1",
                "stopped-containers" if n % 5 else None,
                "stopped for 7 h 12 min, longer than 6 h",
                outcome,
                details.get(outcome, ""),
            )
        )

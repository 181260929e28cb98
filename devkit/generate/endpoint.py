"""One endpoint in depth: what it holds and why that stays, what goes from it, and how each policy does."""

from grafana_foundation_sdk.models import dashboard as model

from devkit.generate.overview import OPEN, TRIED, UP, quantile, worst
from devkit.generate.panels import (
    BAD,
    ENDPOINT,
    GOOD,
    ODD,
    OUTCOMES,
    OVERVIEW,
    RESULTS,
    STATES,
    Column,
    Layout,
    Query,
    board,
    course,
    datasource,
    labels_of,
    per_minute,
    rows,
    tile,
)

E = 'endpoint="$endpoint"'
EP = f'{E}, policy=~"$policy"'
FOLLOWED = {"0": ("lost", ODD), "1": ("followed", GOOD)}


def dashboard() -> model.Dashboard:
    """The dashboard of one endpoint."""
    made = board(
        "reaper / endpoint",
        ENDPOINT,
        "One Docker engine or Daytona organisation: what it holds, what goes, and why the rest stays.",
        ("Overview", OVERVIEW),
    )
    made = made.variables(
        [
            datasource(),
            labels_of("endpoint", "Endpoint", "label_values(reaper_endpoint_up, endpoint)", several=False),
            labels_of("policy", "Policy", f"label_values(reaper_reapable_resources{{{E}}}, policy)"),
            # Histograms are kept by provider only.
            labels_of(
                "provider", "Provider", f"label_values(reaper_endpoint_up{{{E}}}, provider)", several=False, hidden=True
            ),
        ]
    )
    layout = Layout(made)
    _now(layout)
    layout.section("What it holds")
    _held(layout)
    layout.section("What goes")
    _deletions(layout)
    layout.section("How it is asked")
    _sweeps(layout)
    layout.section("The reaper itself")
    _process(layout)
    return made.build()


def _now(layout: Layout) -> None:
    layout.line(
        4,
        (3, 3, 3, 3, 2, 2, 2, 3, 3),
        tile(
            "State",
            "Whether its last sweep could list it and confirm what it did.",
            Query(worst("reaper_endpoint_up", E, "endpoint")),
            mappings=UP,
            alerts=["ReaperEndpointDown"],
            empty="not looked at yet",
        ),
        tile(
            "Circuit breaker",
            "Open: the last sweep stopped asking, since call after call failed or the credentials were refused.",
            Query(worst("reaper_circuit_breaker_open", E, "endpoint")),
            mappings=OPEN,
            alerts=["ReaperCircuitOpen"],
        ),
        tile(
            "Events",
            "Whether its events are followed, so that what stops goes when its time is up and not at the next run.",
            Query(worst("reaper_events_connected", E, "endpoint")),
            mappings=FOLLOWED,
            alerts=["ReaperEventsLost"],
            empty="has none",
        ),
        tile(
            "Clock skew",
            "Its clock minus the reaper's; 0 where they differ by no more than a minute. Ages are corrected by it.",
            Query(worst("reaper_clock_skew_seconds", E, "endpoint")),
            unit="s",
            steps={None: BAD, -60: GOOD, 60.001: BAD},
            alerts=["ReaperClockSkew"],
        ),
        tile(
            "Leak now",
            "What is garbage and still there.",
            Query(f"sum({worst('reaper_reapable_resources', EP, 'policy')})"),
            steps={None: GOOD, 100: ODD, 1000: BAD},
            alerts=["ReaperLeakTooOld", "ReaperCapHit"],
        ),
        tile(
            "Stuck",
            "Sandboxes in transition for over an hour, which the platform's API cannot delete.",
            Query(worst("reaper_stuck_resources", E, "endpoint")),
            steps={None: GOOD, 1: BAD},
            alerts=["ReaperStuck"],
        ),
        tile(
            "Disk",
            "The part of its disk that is in use, of bytes or of inodes, whichever is more.",
            Query(f"max({worst('reaper_disk_used_ratio', E, 'endpoint', 'resource')})"),
            unit="percentunit",
            steps={None: GOOD, 0.75: ODD, 0.85: BAD},
            alerts=["ReaperDiskFull", "ReaperDiskPressure", "ReaperDiskUnknown"],
            empty="no policy asks",
        ),
        tile(
            "Last sweep",
            "How long ago the last sweep ended, however it ended.",
            Query(f"time() - ({worst('reaper_last_sweep_timestamp_seconds', E, 'endpoint')} > 0)"),
            unit="s",
            steps={None: GOOD, 3600: BAD},
            alerts=["ReaperSilent"],
            decimals=0,
            empty="none yet",
        ),
        tile(
            "It took",
            "How long the last sweep took. After sweep_timeout, 30 minutes by default, it is ended.",
            Query(worst("reaper_last_sweep_duration_seconds", E, "endpoint")),
            unit="s",
            steps={None: GOOD, 600: ODD, 1800: BAD},
            alerts=["ReaperSweepsFailing"],
        ),
    )


def _held(layout: Layout) -> None:
    layout.line(
        8,
        (8, 8, 8),
        course(
            "By state",
            "What it held when it was last listed, owned or not.",
            Query(f"sum by (state) ({worst('reaper_resources', E, 'kind', 'state')})", "{{state}}"),
            colors=STATES,
            stacked=True,
        ),
        course(
            "Kept, by reason",
            "Why the rest stays: reaper explain says it of each. unreadable, unknown_state and invalid_label stay for ever.",
            Query(f"{worst('reaper_kept_resources', E, 'reason')} > 0", "{{reason}}"),
            alerts=["ReaperUnreadable"],
            stacked=True,
        ),
        course(
            "Reapable, by policy",
            "The leak, by the policy that calls it one; (label) by its own label.",
            Query(worst("reaper_reapable_resources", EP, "policy"), "{{policy}}"),
            alerts=["ReaperLeakTooOld"],
            stacked=True,
        ),
    )
    layout.line(
        7,
        (14, 10),
        rows(
            "Policies",
            "How each policy does here. Overdue is the age of its last success in intervals: the alert fires above 3. The "
            "leak may be as old as two.",
            key="policy",
            queries=[
                Query(worst("reaper_policy_interval_seconds", EP, "policy"), name="Interval"),
                Query(f"time() - ({worst('reaper_last_success_timestamp_seconds', EP, 'policy')} > 0)", name="Last success"),
                Query(
                    f"(time() - ({worst('reaper_last_success_timestamp_seconds', EP, 'policy')} > 0))"
                    f" / {worst('reaper_policy_interval_seconds', EP, 'policy')}",
                    name="Overdue",
                ),
                Query(worst("reaper_reapable_resources", EP, "policy"), name="Leak"),
                Query(worst("reaper_oldest_reapable_seconds", EP, "policy"), name="Oldest"),
                Query(
                    f"{worst('reaper_oldest_reapable_seconds', EP, 'policy')}"
                    f" / {worst('reaper_policy_interval_seconds', EP, 'policy')}",
                    name="In intervals",
                ),
            ],
            columns=[
                Column("policy"),
                Column("Interval", unit="s"),
                Column("Last success", unit="s", decimals=0),
                Column("Overdue", steps={None: GOOD, 2: ODD, 3: BAD}, decimals=1),
                Column("Leak", steps={None: GOOD, 100: ODD, 1000: BAD}),
                Column("Oldest", unit="s", decimals=0),
                Column("In intervals", steps={None: GOOD, 1: ODD, 2: BAD}, decimals=1),
            ],
            alerts=["ReaperNoSuccess", "ReaperLeakTooOld"],
        ),
        course(
            "Oldest leak, by policy",
            "For how long the oldest should have been gone. It grows between two sweeps; a saw with even teeth is as it "
            "should be.",
            Query(worst("reaper_oldest_reapable_seconds", EP, "policy"), "{{policy}}"),
            unit="s",
            alerts=["ReaperLeakTooOld"],
        ),
    )


def _deletions(layout: Layout) -> None:
    done = f"60 * sum by ({{}}) (rate(reaper_deletions_total{{{{{EP}{{}}}}}}[$__rate_interval]))"
    layout.line(
        8,
        (8, 8, 8),
        per_minute(
            "By outcome",
            "Per minute. deleted is confirmed, gone means that another client was first; skipped was used again before its "
            "turn, abandoned was left when a sweep had to end. failed and stopped (denied) are failures.",
            Query(done.format("outcome", ""), "{{outcome}}"),
            colors=OUTCOMES,
            alerts=["ReaperDeletionsFailing", "ReaperDeletionsDenied"],
        ),
        per_minute(
            "Deleted, by policy",
            "Per minute: which policy made them garbage.",
            Query(done.format("policy, kind", ', outcome="deleted"'), "{{policy}} {{kind}}"),
        ),
        course(
            "Failure ratio",
            "The share of deletions that failed after all retries or were denied. The line is where the alert begins.",
            Query(
                f'sum(rate(reaper_deletions_total{{{EP}, outcome=~"failed|stopped"}}[$__rate_interval]))\n'
                f"  / sum(rate(reaper_deletions_total{{{EP}, {TRIED}}}[$__rate_interval]))",
                "failed or denied",
            ),
            unit="percentunit",
            colors={"failed or denied": BAD},
            alerts=["ReaperDeletionsFailing"],
            line=0.1,
        ),
    )
    layout.line(
        8,
        (8, 8, 8),
        per_minute(
            "Stopped and archived, by outcome",
            "Per minute, by policies with another action than delete.",
            Query(
                f"60 * sum by (action, outcome) (rate(reaper_actions_total{{{EP}}}[$__rate_interval]))",
                "{{action}} {{outcome}}",
            ),
        ),
        course(
            "Would go",
            "What the last sweep of a service that deletes nothing ([service] dry_run) would have deleted, by policy.",
            Query(f"sum by (policy) (reaper_would_delete_resources{{{EP}}} and on() (reaper_dry_run == 1))", "{{policy}}"),
            stacked=True,
        ),
        per_minute(
            "Evidence",
            "Per minute: what was saved ([evidence]) of what is deleted. failed hinders no deletion, and its reason is a "
            "warning of the sweep.",
            Query(f"60 * sum by (result) (rate(reaper_evidence_total{{{E}}}[$__rate_interval]))", "{{result}}"),
        ),
    )
    provider = 'provider="$provider"'
    layout.line(
        8,
        (12, 12),
        course(
            "Time to reap, all of the provider",
            "From when something became garbage to when it was confirmed to be gone, and from the end of a lease to the end "
            "of the last that it had left. Of all endpoints of the provider: a histogram for each would be many series.",
            Query(quantile(0.5, "reaper_reap_delay_seconds", provider), "{{provider}} median"),
            Query(quantile(0.95, "reaper_reap_delay_seconds", provider), "{{provider}} 95 %"),
            Query(quantile(0.95, "reaper_lease_cleanup_seconds", provider), "after a lease has ended, 95 %"),
            unit="s",
        ),
        course(
            "Duration of a deletion, all of the provider",
            "From the final re-check of a resource to the confirmation, stopping included.",
            Query(quantile(0.5, "reaper_deletion_duration_seconds", provider), "{{provider}} median"),
            Query(quantile(0.95, "reaper_deletion_duration_seconds", provider), "{{provider}} 95 %"),
            unit="s",
        ),
    )


def _sweeps(layout: Layout) -> None:
    layout.line(
        8,
        (8, 8, 8),
        per_minute(
            "Sweeps by result",
            "Per minute. failures: something was not deleted; capped: too much would have been; unlisted: the endpoint "
            "failed.",
            Query(f"60 * sum by (result) (rate(reaper_sweeps_total{{{E}}}[$__rate_interval]))", "{{result}}"),
            colors=RESULTS,
            alerts=["ReaperSweepsFailing", "ReaperNoSuccess", "ReaperBug"],
        ),
        course(
            "Duration of its sweeps",
            "How long each took; and 95 of 100 of all endpoints of the provider, to compare it with.",
            Query(worst("reaper_last_sweep_duration_seconds", E, "endpoint"), "{{endpoint}}"),
            Query(quantile(0.95, "reaper_sweep_duration_seconds", 'provider="$provider"'), "all {{provider}} 95 %"),
            unit="s",
            alerts=["ReaperSilent"],
        ),
        per_minute(
            "Retries, by error",
            "Attempts per minute that failed and were followed by another. rate_limited: the organisation is used up.",
            Query(f"60 * sum by (error) (rate(reaper_retries_total{{{E}}}[$__rate_interval]))", "{{error}}"),
            alerts=["ReaperCircuitOpen"],
        ),
    )
    layout.line(
        6,
        (8, 8, 8),
        course(
            "Circuit open, endpoint down",
            "When it was so.",
            Query(worst("reaper_circuit_breaker_open", E, "endpoint"), "circuit open"),
            Query(f"1 - {worst('reaper_endpoint_up', E, 'endpoint')}", "down"),
            unit="bool",
            colors={"circuit open": ODD, "down": BAD},
            alerts=["ReaperEndpointDown", "ReaperCircuitOpen"],
        ),
        course(
            "Events lost, cap hit",
            "How often in the time between two points: the stream of events ended; the deletion cap forbade a sweep.",
            Query(f"sum(increase(reaper_events_lost_total{{{E}}}[$__rate_interval]))", "events lost"),
            Query(f"sum(increase(reaper_cap_hits_total{{{E}}}[$__rate_interval]))", "cap hit"),
            colors={"events lost": ODD, "cap hit": BAD},
            alerts=["ReaperEventsLost", "ReaperCapHit"],
            bars=True,
        ),
        course(
            "Clock skew over time",
            "Its clock minus the reaper's; 0 where they differ by no more than a minute.",
            Query(worst("reaper_clock_skew_seconds", E, "endpoint"), "skew"),
            unit="s",
            alerts=["ReaperClockSkew"],
            floor=None,
        ),
    )


def _process(layout: Layout) -> None:
    """The processes that have a series for this endpoint."""
    here = f" and on (job, instance) reaper_endpoint_up{{{E}}}"
    layout.line(
        6,
        (5, 5, 5, 9),
        course(
            "Memory",
            "What the reapers that keep this endpoint take.",
            Query(f"process_resident_memory_bytes{here}", "{{instance}}"),
            unit="bytes",
            alerts=["ReaperRestarting"],
        ),
        course(
            "Processor",
            "Of one processor.",
            Query(f"rate(process_cpu_seconds_total[$__rate_interval]){here}", "{{instance}}"),
            unit="percentunit",
        ),
        course(
            "Journal errors",
            "Failed attempts to write the journal, per minute. What is deleted meanwhile is not on record.",
            Query(f"60 * rate(reaper_journal_errors_total[$__rate_interval]){here}", "{{instance}}"),
            unit="cpm",
            alerts=["ReaperJournalDegraded"],
            bars=True,
        ),
        rows(
            "Configuration",
            "Which version keeps it, whether its last reload was accepted, and how old the configuration in force is.",
            key="instance",
            queries=[
                Query(f"max by (instance, version) (reaper_build_info{here})"),
                Query(f"max by (instance) (reaper_config_last_reload_successful{here})", name="Reload"),
                Query(
                    f"time() - max by (instance) (reaper_config_last_reload_success_timestamp_seconds{here})",
                    name="Loaded",
                ),
                Query(f"time() - max by (instance) (process_start_time_seconds{here})", name="Started"),
            ],
            columns=[
                Column("instance"),
                Column("version"),
                Column("Reload", mappings={"0": ("refused", BAD), "1": ("accepted", GOOD)}),
                Column("Loaded", unit="s", decimals=0),
                Column("Started", unit="s", decimals=0),
            ],
            alerts=["ReaperReloadFailed"],
        ),
    )

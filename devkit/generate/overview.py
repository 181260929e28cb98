"""The overview for the wall: what leaks now, what goes, how fast, and what is wrong."""

from grafana_foundation_sdk.models import dashboard as model

from devkit.generate.panels import (
    BAD,
    ENDPOINT,
    GOOD,
    ODD,
    OUTCOMES,
    OVERVIEW,
    RED,
    RESULTS,
    Column,
    Layout,
    Query,
    bands,
    board,
    course,
    datasource,
    labels_of,
    per_minute,
    rows,
    tile,
)

E = 'endpoint=~"$endpoint"'
EP = f'{E}, policy=~"$policy"'
TRIED = 'outcome=~"deleted|gone|stopped|failed"'
# An alert about a whole reaper has no endpoint, and stands on every wall.
FIRING = 'ALERTS{alertname=~"Reaper.*", alertstate="firing", endpoint=~"$endpoint|"}'

UP = {"0": ("down", BAD), "1": ("up", GOOD)}
OPEN = {"0": ("closed", GOOD), "1": ("open", BAD)}
THERE = f"/d/{ENDPOINT}?var-endpoint=${{__value.text}}&var-datasource=${{datasource}}&${{__url_time_range}}"


def worst(metric: str, selector: str, *labels: str) -> str:
    """A gauge by these labels. Where two reapers keep one endpoint, or one has just been replaced, it is told twice."""
    return f"max by ({', '.join(labels)}) ({metric}{{{selector}}})"


def quantile(share: float, metric: str, selector: str = "") -> str:
    """Of a histogram, by provider."""
    return f"histogram_quantile({share}, sum by (provider, le) (rate({metric}_bucket{{{selector}}}[$__rate_interval])))"


def dashboard() -> model.Dashboard:
    """The overview."""
    made = board(
        "reaper / overview",
        OVERVIEW,
        "What benchmark runs have left behind, and what reaper makes of it. For the wall.",
        ("One endpoint", ENDPOINT),
    )
    made = made.variables(
        [
            datasource(),
            labels_of("endpoint", "Endpoint", "label_values(reaper_endpoint_up, endpoint)"),
            labels_of("policy", "Policy", f"label_values(reaper_reapable_resources{{{E}}}, policy)"),
        ]
    )
    layout = Layout(made)
    leak = worst("reaper_reapable_resources", EP, "endpoint", "policy")
    layout.line(
        5,
        (4, 4, 4, 4, 4, 4),
        tile(
            "Leak now",
            "What is garbage and still there, whether its policy is due now or in a while. More than 1000 on one endpoint "
            "in one sweep is what the deletion cap forbids by default.",
            Query(f"sum({leak})"),
            steps={None: GOOD, 100: ODD, 1000: BAD},
            alerts=["ReaperLeakTooOld", "ReaperCapHit"],
            graph=True,
        ),
        tile(
            "Oldest leak",
            "For how long the oldest of it should have been gone. A policy that runs every half an hour explains half an "
            "hour; the alert asks for two runs of the policy, and three quarters of an hour at least.",
            Query(f"max({worst('reaper_oldest_reapable_seconds', EP, 'endpoint', 'policy')})"),
            unit="s",
            steps={None: GOOD, 2700: ODD, 86400: BAD},
            alerts=["ReaperLeakTooOld"],
            graph=True,
        ),
        tile(
            "Deleted",
            "What was deleted in the time shown, and confirmed to be gone.",
            Query(f'sum(increase(reaper_deletions_total{{{EP}, outcome="deleted"}}[$__range]))', now=True),
            decimals=0,
        ),
        tile(
            "Failed deletions",
            "The share of all deletions in the time shown that failed after all retries, or were denied.",
            Query(
                f'sum(increase(reaper_deletions_total{{{EP}, outcome=~"failed|stopped"}}[$__range]))\n'
                f"  / sum(increase(reaper_deletions_total{{{EP}, {TRIED}}}[$__range]))",
                now=True,
            ),
            unit="percentunit",
            steps={None: GOOD, 0.01: ODD, 0.1: BAD},
            alerts=["ReaperDeletionsFailing", "ReaperDeletionsDenied"],
            decimals=1,
            empty="nothing to delete",
        ),
        tile(
            "Endpoints down",
            "Endpoints whose last sweep could not list them or confirm what it did, of how many. One that was not swept "
            "yet is neither up nor down.",
            Query(f"count({worst('reaper_endpoint_up', E, 'endpoint')} == 0) or vector(0)", "down"),
            Query(f"count({worst('reaper_endpoint_up', E, 'endpoint')})", "of"),
            steps={None: GOOD, 1: BAD},
            alerts=["ReaperEndpointDown"],
        ).override_by_name("of", [_plain()]),
        tile(
            "Alerts",
            "Alerts about reaper that fire now, if Prometheus has its rules.",
            Query(f"count({FIRING}) or vector(0)"),
            steps={None: GOOD, 1: BAD},
        ),
    )
    layout.line(
        8,
        (12, 12),
        course(
            "Leak by endpoint",
            "What is garbage and still there. It grows between two sweeps and falls with each; what only grows is a leak "
            "that no sweep removes.",
            Query(f"sum by (endpoint) ({leak})", "{{endpoint}}"),
            alerts=["ReaperLeakTooOld"],
            stacked=True,
        ),
        per_minute(
            "Deletions by outcome",
            "Per minute. deleted is confirmed, gone means that another client was first; skipped was used again before its "
            "turn, abandoned was left when a sweep had to end. failed and stopped (denied) are failures.",
            Query(f"60 * sum by (outcome) (rate(reaper_deletions_total{{{EP}}}[$__rate_interval]))", "{{outcome}}"),
            colors=OUTCOMES,
            alerts=["ReaperDeletionsFailing"],
        ),
    )
    layout.line(
        8,
        (6, 6, 6, 6),
        course(
            "Time to reap",
            "From when something became garbage to when it was confirmed to be gone: half of it, and 95 of 100, took no "
            "longer. Of all endpoints of a provider, whatever is chosen above.",
            Query(quantile(0.5, "reaper_reap_delay_seconds"), "{{provider}} median"),
            Query(quantile(0.95, "reaper_reap_delay_seconds"), "{{provider}} 95 %"),
            unit="s",
        ),
        course(
            "Sweep duration",
            "How long the last sweep of each endpoint took. After sweep_timeout, 30 minutes by default, it is ended.",
            Query(worst("reaper_last_sweep_duration_seconds", E, "endpoint"), "{{endpoint}}"),
            unit="s",
            alerts=["ReaperSweepsFailing", "ReaperSilent"],
        ),
        per_minute(
            "Sweeps by result",
            "Per minute. failures: something was not deleted; capped: too much would have been; unlisted: the endpoint "
            "failed.",
            Query(f"60 * sum by (result) (rate(reaper_sweeps_total{{{E}}}[$__rate_interval]))", "{{result}}"),
            colors=RESULTS,
            alerts=["ReaperSweepsFailing", "ReaperNoSuccess"],
        ),
        course(
            "Leases",
            "Claims of running benchmarks: live ones, those whose holder has not been heard of for a moment, and 1 for each "
            "reaper that cannot read or write them; how many days old the oldest is. Lines of Ryuk's clients "
            "that got no ACK, by interval.",
            Query('sum by (state) (reaper_leases{state=~"live|reconnecting"})', "{{state}}"),
            Query("sum(reaper_leases_unknown)", "not kept"),
            Query("max(reaper_oldest_lease_seconds) / 86400", "days of the oldest"),
            Query("sum(increase(reaper_ryuk_lines_refused_total[$__rate_interval]))", "refused lines"),
            alerts=["ReaperLeasesUnknown", "ReaperLeaseOld"],
        ),
    )
    layout.line(
        8,
        (14, 10),
        rows(
            "Endpoints",
            "Each endpoint as its last sweep left it. A click on its name shows it in depth.",
            key="endpoint",
            queries=[
                Query(worst("reaper_endpoint_up", E, "endpoint", "provider"), name="State"),
                Query(f"sum by (endpoint) ({worst('reaper_resources', E, 'endpoint', 'kind', 'state')})", name="Held"),
                Query(f"sum by (endpoint) ({leak})", name="Leak"),
                Query(worst("reaper_oldest_reapable_seconds", EP, "endpoint"), name="Oldest"),
                Query(f"time() - ({worst('reaper_last_sweep_timestamp_seconds', E, 'endpoint')} > 0)", name="Last sweep"),
                Query(f"time() - ({_longest_ago()})", name="Last success"),
                Query(worst("reaper_circuit_breaker_open", E, "endpoint"), name="Circuit"),
                Query(worst("reaper_stuck_resources", E, "endpoint"), name="Stuck"),
            ],
            columns=[
                Column("endpoint", link=("In depth", THERE)),
                Column("provider"),
                Column("State", mappings=UP),
                Column("Held"),
                Column("Leak", steps={None: GOOD, 100: ODD, 1000: BAD}),
                Column("Oldest", unit="s", steps={None: GOOD, 2700: ODD, 86400: BAD}, decimals=0),
                Column("Last sweep", unit="s", decimals=0),
                Column("Last success", unit="s", decimals=0),
                Column("Circuit", mappings=OPEN),
                Column("Stuck", steps={None: GOOD, 1: BAD}),
            ],
            alerts=["ReaperEndpointDown", "ReaperCircuitOpen", "ReaperStuck"],
        ),
        bands(
            "What fires",
            "The alerts about reaper over time, if Prometheus has its rules. The runbook has a section for each.",
            Query(f"max by (alertname, endpoint) ({FIRING})", "{{alertname}} {{endpoint}}"),
            texts={"1": ("fires", RED)},
            empty="nothing fires",
        ),
    )
    _worth(layout)
    return made.build()


def _worth(layout: Layout) -> None:
    """What the deletions in the time shown were worth, and that they kept the rules."""

    def since(metric: str) -> Query:
        return Query(f"sum(increase({metric}{{{EP}}}[$__range]))", now=True)

    layout.section("What it was worth, and quotas")
    layout.line(
        5,
        (6, 6, 6, 6),
        tile(
            "Time avoided",
            "For how long the containers and sandboxes that were deleted in the time shown would have gone on: each until "
            "the next of the other policies would have taken it, and a day at the most.",
            since("reaper_avoided_seconds_total"),
            unit="s",
            decimals=1,
        ),
        tile(
            "Cost avoided",
            "What that time would have cost, by [prices] and in its currency; 0 where there are no prices.",
            since("reaper_avoided_cost_total"),
            decimals=2,
        ),
        tile(
            "Bytes reclaimed",
            "What the deletions gave back, where that is known; what containers had written is never measured.",
            since("reaper_reclaimed_bytes_total"),
            unit="bytes",
            decimals=1,
        ),
        tile(
            "Against the rules",
            "What was deleted or stopped although its last look on record, its owner or its labels forbade it. Anything but "
            "0 is a bug of reaper: reaper history --summary names it.",
            since("reaper_violations_total"),
            steps={None: GOOD, 1: BAD},
            alerts=["ReaperRuleBroken"],
            decimals=0,
        ),
    )
    layout.line(
        7,
        (12, 12),
        course(
            "Time avoided by policy",
            "In the time between two points.",
            Query(f"sum by (policy) (increase(reaper_avoided_seconds_total{{{EP}}}[$__rate_interval]))", "{{policy}}"),
            unit="s",
            stacked=True,
            bars=True,
        ),
        course(
            "Quotas",
            "How full each quota is; of one by label the fullest value. Above 100 % more goes than else would.",
            Query(
                f"max by (endpoint, quota, resource) (reaper_quota_used_ratio{{{E}}})", "{{endpoint}} {{quota}} {{resource}}"
            ),
            unit="percentunit",
            line=1,
        ),
    )


def _longest_ago() -> str:
    """When the policy that has waited for the longest time succeeded last, by endpoint; not those that never did."""
    one = worst("reaper_last_success_timestamp_seconds", EP, "endpoint", "policy")
    return f"min by (endpoint) ({one} > 0)"


def _plain() -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": GOOD})

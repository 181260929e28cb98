"""Reports as one JSON document. ``reaper/schemas/report.schema.json`` is its schema; a test holds the two together."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from reaper import __version__
from reaper.core.disk import BYTES, INODES, DiskUsage
from reaper.core.finding import Finding
from reaper.core.model import Action, Decision, EndpointReport, Outcome, Report, Resource, Result
from reaper.core.quota import Quota, usages_of
from reaper.providers.registry import kinds_of

FORMAT = 1


def _time(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat().replace("+00:00", "Z")


def resource(value: Resource) -> dict[str, Any]:
    """A resource as it was seen."""
    return {
        "kind": value.kind.value,
        "id": value.id,
        "name": value.name,
        "state": value.state.value,
        "raw_state": value.raw_state,
        "created_at": _time(value.created_at),
        "started_at": _time(value.started_at),
        "stopped_at": _time(value.stopped_at),
        "last_activity_at": _time(value.last_activity_at),
        "labels": None if value.labels is None else dict(value.labels),
        "image": value.image,
        "group": value.group,
    }


def _decided(decision: Decision, result: Result | None) -> dict[str, Any]:
    acted = result.decision if result else decision
    return {
        **resource(decision.resource),
        "owner": decision.owner,
        "lease": decision.lease,
        "verdict": decision.verdict.value,
        "action": acted.action.value if acted.reap or acted.action is Action.SET_TIMER else None,
        "reason": decision.reason.value,
        "sentence": decision.sentence,
        "policy": acted.policy,
        "preset": decision.preset,
        "outcome": result.outcome.value if result else None,
        "detail": result.detail if result else "",
        "attempts": result.attempts if result else 0,
        "seconds": round(result.seconds, 3) if result else 0.0,
        "error": result.error if result else None,
    }


def _counts(report: Report | EndpointReport) -> dict[str, int]:
    return {outcome.value: report.count(outcome) for outcome in Outcome}


def _disk(disk: DiskUsage) -> dict[str, Any]:
    rooms = {sort: {"used": room.used, "available": room.available} for sort, room in disk.rooms.items()}
    return {"where": disk.where, "bytes": rooms.get(BYTES), "inodes": rooms.get(INODES)}


def _quotas(quotas: Iterable[Quota], report: EndpointReport) -> list[dict[str, Any]]:
    return [
        {
            "quota": usage.quota.name,
            "label": usage.quota.label,
            "value": usage.value if usage.quota.label is not None else None,
            "resource": usage.measure,
            "used": usage.used,
            "limit": usage.limit,
        }
        for usage in usages_of(quotas, report, kinds_of(report.provider))
    ]


def _endpoint(report: EndpointReport, quotas: Iterable[Quota]) -> dict[str, Any]:
    results = {result.decision.resource.id: result for result in report.results}
    decided = {decision.resource.id for decision in report.decisions}
    # What an earlier look could not delete, and a later one has not seen any more, stands at the end.
    decisions = [*report.decisions, *(each.decision for id_, each in results.items() if id_ not in decided)]
    failure, cap = report.failure, report.cap
    return {
        "endpoint": report.endpoint,
        "provider": report.provider,
        "held": report.held,
        "undecided": report.undecided,
        "seconds": round(report.seconds, 3),
        "clock_skew_seconds": round(report.clock_skew.total_seconds(), 3),
        "failure": None if failure is None else {"error": failure.label, "message": failure.message},
        "cap": None if cap is None else {"wanted": cap.wanted, "allowed": cap.allowed, "held": cap.held, "limit": cap.limit},
        "warnings": list(report.warnings),
        "disk": None if report.disk is None or not report.disk.rooms else _disk(report.disk),
        "quotas": _quotas(quotas, report),
        "counts": _counts(report),
        "resources": [_decided(decision, results.get(decision.resource.id)) for decision in decisions],
    }


def report_document(report: Report, command: str, exit_code: int, quotas: Sequence[Quota] = ()) -> str:
    """The whole report of a sweep, a listing or a check, and how full these quotas are."""
    return json.dumps(
        {
            "format": FORMAT,
            "version": __version__,
            "command": command,
            "exit_code": exit_code,
            "started_at": _time(report.started_at),
            "seconds": round(report.seconds, 3),
            "dry_run": report.dry_run,
            "interrupted": report.interrupted,
            "hints": list(report.hints),
            "counts": _counts(report),
            "endpoints": [_endpoint(endpoint, quotas) for endpoint in report.endpoints],
        },
    )


def explanation_document(decision: Decision, findings: Iterable[Finding]) -> str:
    """What every rule says of one resource."""
    return json.dumps(
        {
            "format": FORMAT,
            "version": __version__,
            "command": "explain",
            "endpoint": decision.resource.endpoint,
            "resource": _decided(decision, None),
            "rules": [
                {
                    "rule": finding.rule,
                    "verdict": finding.verdict.value if finding.verdict else None,
                    "reason": finding.reason.value if finding.reason else None,
                    "sentence": finding.sentence,
                }
                for finding in findings
            ],
        },
    )

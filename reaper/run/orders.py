"""What the guard of a lease has to know, as versioned JSON: it is read by the version of the program that cleans up.

A run may last for days, and the package may be upgraded meanwhile.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from reaper.config.settings import EvidenceTable, JournalTable
from reaper.core.rules import Rules
from reaper.core.scope import Protect, Scope, Selector
from reaper.leases.database import as_row, from_row
from reaper.leases.record import LeaseRecord
from reaper.providers import registry
from reaper.providers.registration import EndpointSpec
from reaper.retry.retrier import RetryPolicy
from reaper.sweep.plan import Plan
from reaper.sweep.sweep import Options

VERSION = 3


class OrdersError(ValueError):
    """The orders cannot be read, and why."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What the guard of a lease has to know.

    Args:
        plan: where to look. Of the rules only what keeps something counts: the lease alone says what goes.
        record: the lease.
        scratch: a temporary folder of the holder's, to be removed; None where it has none.
    """

    plan: Plan
    record: LeaseRecord
    scratch: Path | None

    def dump(self) -> bytes:
        """Return them as JSON. The API keys are in it."""
        plan = self.plan
        document = {
            "version": VERSION,
            "state": str(plan.state),
            "scratch": None if self.scratch is None else str(self.scratch),
            "journal": plan.journal.model_dump(),
            "evidence": plan.evidence.model_dump(),
            "endpoints": [
                {"provider": endpoint.provider, "table": endpoint.table.model_dump(), "secret": endpoint.secret}
                for endpoint in plan.endpoints
            ],
            "protect": asdict(plan.rules.protect),
            "rules": {name: getattr(plan.rules, name) for name in _TIMES_OF_RULES},
            "max_lease_deletions": plan.options.max_lease_deletions,
            "retry": asdict(plan.retry),
            "timeout": plan.timeout,
            "lease": as_row(self.record),
        }
        return json.dumps(document, default=_seconds).encode()

    @classmethod
    def load(cls, text: bytes) -> "Orders":
        """Return the orders that ``dump`` wrote. Raises OrdersError, with no secret in it."""
        try:
            document = json.loads(text, object_hook=_with_times)
            version = document["version"]
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            raise OrdersError("they are no JSON object with a version") from None
        if version != VERSION:
            raise OrdersError(f"they have version {version!r}, and this program reads version {VERSION}")
        try:
            scratch = document["scratch"]
            return cls(_plan(document), from_row(document["lease"]), None if scratch is None else Path(scratch))
        except KeyError as error:
            raise OrdersError(f"{error} is missing") from None
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise OrdersError(f"a value cannot be read ({type(error).__name__})") from None  # its text could hold a key


_TIMES_OF_RULES = ("created_grace", "max_lease", "stop_timeout")


def _seconds(value: object) -> dict[str, float]:
    if not isinstance(value, timedelta):
        raise TypeError(f"{type(value).__name__} is no value of orders")
    return {"seconds": value.total_seconds()}


def _with_times(values: dict[str, Any]) -> dict[str, Any] | timedelta:
    return timedelta(**values) if values.keys() == {"seconds"} else values


def _plan(document: Mapping[str, Any]) -> Plan:
    protect = document["protect"]
    of = {name: tuple(protect["selector"][name]) for name in ("labels", "names", "images")}
    return Plan(
        endpoints=tuple(map(_endpoint, document["endpoints"])),
        rules=Rules(
            Scope(presets=()),
            Protect(Selector(**of), tuple(protect["restart_policies"])),
            **{name: document["rules"][name] for name in _TIMES_OF_RULES},
        ),
        options=Options(max_lease_deletions=document["max_lease_deletions"]),
        retry=RetryPolicy(**document["retry"]),
        state=Path(document["state"]),
        journal=JournalTable.model_validate(document["journal"]),
        evidence=EvidenceTable.model_validate(document.get("evidence", {})),  # orders of an earlier version have none
        timeout=document["timeout"],
    )


def _endpoint(fields: Mapping[str, Any]) -> EndpointSpec:
    provider = registry.get(fields["provider"])
    return EndpointSpec(provider, provider.table.model_validate(fields["table"]), fields["secret"])

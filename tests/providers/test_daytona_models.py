"""The models that Daytona's generated client ships, held against what is read of its rows.

Its models are loaded when they are first used, and then take up to a second: in no signature, and in no import.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import daytona_api_client_async as generated
import pytest
from pydantic import BaseModel

from reaper.core.model import Resource, State
from reaper.providers.daytona.sandboxes import sandbox
from reaper.simulator.daytona.model import STATES

pytestmark = pytest.mark.xdist_group("the packages of Daytona")

CREATED = "2026-11-21T07:08:13.919Z"
ACTIVE = "2026-11-21T09:00:00.000Z"
WHOLE: dict[str, Any] = {
    "id": "1fad5820-7c1d-4d0f-9d0a-1f1a3ed3a2b1",
    "organizationId": "org",
    "name": "chess",
    "target": "us",
    "runnerId": "runner-7",
    "state": "stopped",
    "desiredState": "stopped",
    "snapshot": "daytonaio/sandbox:0.5.0-slim",
    "user": "daytona",
    "env": {},
    "labels": {"harbor.session_id": "chess__1"},
    "public": False,
    "networkBlockAll": False,
    "kvm": False,
    "cpu": 1,
    "gpu": 0,
    "memory": 1,
    "disk": 3,
    "createdAt": CREATED,
    "updatedAt": ACTIVE,
    "lastActivityAt": ACTIVE,
    "toolboxProxyUrl": "http://127.0.0.1/toolbox",
    "warmPoolId": "pool-1",
    "linkedSandboxId": "owner",
}


class Watched(dict[str, Any]):
    """A row that remembers what was asked of it."""

    def __init__(self, row: dict[str, Any]) -> None:
        super().__init__(row)
        self.read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)


def fields_read() -> set[str]:
    row = Watched(WHOLE)
    sandbox(row, "rl-org")
    return row.read


def aliases(model: type[BaseModel]) -> set[str]:
    """What the model calls its fields in JSON."""
    return {field.serialization_alias or name for name, field in model.model_fields.items()}


def test_every_field_that_is_read_exists_in_a_whole_sandbox() -> None:
    read = fields_read()
    assert read >= {"id", "state", "desiredState", "labels", "createdAt", "lastActivityAt", "linkedSandboxId"}
    assert read <= aliases(generated.Sandbox)


def test_every_field_that_is_read_but_the_link_exists_in_an_item_of_the_list() -> None:
    assert fields_read() - aliases(generated.SandboxListItem) == {"linkedSandboxId"}


def test_the_states_are_those_of_the_model() -> None:
    assert {state.value for state in generated.SandboxState} - {"unknown_default_open_api"} == STATES


def serialised(model: type[generated.Sandbox | generated.SandboxListItem], row: dict[str, Any]) -> Resource:
    """The row after its way through the model, as JSON."""
    made = model.from_dict(row)
    assert made is not None
    return sandbox(json.loads(made.to_json()), "rl-org")


@pytest.mark.parametrize("whole", [True, False])
def test_a_row_that_a_model_wrote_is_read_as_the_servers(whole: bool) -> None:
    model = generated.Sandbox if whole else generated.SandboxListItem
    row = WHOLE if whole else {key: value for key, value in WHOLE.items() if key != "linkedSandboxId"}
    found = serialised(model, row)
    assert found == sandbox(row, "rl-org")
    assert (found.name, found.state, found.group, found.host) == ("chess", State.STOPPED, "chess__1", "runner-7")
    assert found.created_at == datetime(2026, 11, 21, 7, 8, 13, 919000, tzinfo=UTC)
    assert found.stopped_at == datetime(2026, 11, 21, 9, tzinfo=UTC)
    assert found.system_container is not None
    assert found.uses == (frozenset({"owner"}) if whole else frozenset())


@pytest.mark.parametrize("state", sorted(STATES))
def test_every_state_survives_the_model(state: str) -> None:
    found = serialised(generated.Sandbox, {**WHOLE, "state": state, "desiredState": "started"})
    assert found.raw_state.startswith(state)
    assert found.unreadable is None

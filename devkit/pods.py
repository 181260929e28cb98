"""Pods of a private Podman, by its own calls: Docker has none."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta

from devkit.ages import rfc3339
from devkit.client import DEFAULT_IMAGE, EngineClient
from devkit.engine import PrivateEngine

_LIBPOD = "/v5.0.0/libpod"


def create_pod(engine: EngineClient, name: str, labels: Mapping[str, str] | None = None, *, infra: bool = True) -> str:
    """Make a pod, empty but for its infra container, and return its id.

    Args:
        engine: a Podman.
        name: of the pod.
        labels: of the pod; Podman gives them to the infra container as well.
        infra: False leaves the infra container out, as podman-compose does.
    """
    # No control group of its own: a cell has no place for one.
    body = {"name": name, "labels": dict(labels or {}), "no_infra": not infra, "share_parent": False}
    return str(engine.api.must("POST", f"{_LIBPOD}/pods/create", body)["Id"])


def create_in_pod(
    engine: EngineClient, pod: str, name: str, cmd: Sequence[str], labels: Mapping[str, str], *, start: bool = True
) -> str:
    """Make a container in a pod, start it and the infra container with it, and return its id."""
    body = {"name": name, "image": DEFAULT_IMAGE, "pod": pod, "command": list(cmd), "labels": dict(labels)}
    ident = str(engine.api.must("POST", f"{_LIBPOD}/containers/create", body)["Id"])
    if start:
        engine.start_container(ident)
    return ident


def pods(engine: EngineClient) -> dict[str, list[str]]:
    """Names of the containers of each pod, its infra container aside, by the names of the pods."""
    return {
        pod["Name"]: sorted(one["Names"] for one in pod["Containers"] if one["Id"] != pod["InfraId"])
        for pod in engine.api.must("GET", f"{_LIBPOD}/pods/json") or ()
    }


def infra_of(engine: EngineClient, pod: str) -> str:
    """The id of a pod's infra container."""
    return str(engine.api.must("GET", f"{_LIBPOD}/pods/{pod}/json")["InfraContainerID"])


def backdate_pod(engine: PrivateEngine, pod: str, age: timedelta) -> None:
    """Make a pod as old as that; its containers stay as they are."""
    with closing(sqlite3.connect(engine.data / "db.sql", timeout=30)) as connection, connection:
        (content,) = connection.execute("SELECT JSON FROM PodConfig WHERE ID = ?", (pod,)).fetchone()
        text = json.dumps({**json.loads(content), "created": rfc3339(datetime.now(UTC) - age)})
        connection.execute(
            "UPDATE PodConfig SET JSON = ? WHERE ID = ?", (text.encode() if isinstance(content, bytes) else text, pod)
        )

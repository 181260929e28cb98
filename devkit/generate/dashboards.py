"""Grafana's dashboards, as the files that it imports."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from devkit.generate import endpoint, overview


def _text(make: Callable[[], model.Dashboard]) -> str:
    return str(JSONEncoder(sort_keys=True, indent=2).encode(make())) + "\n"


FILES: Mapping[Path, Callable[[], str]] = {
    Path("deploy/grafana/reaper.json"): partial(_text, overview.dashboard),
    Path("deploy/grafana/reaper-endpoint.json"): partial(_text, endpoint.dashboard),
}

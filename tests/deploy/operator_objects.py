"""The Prometheus Operator's two objects, as far as they are used here: Kubernetes' own schemas do not have them.

Fields, types, required ones, enumerations and the pattern of durations are those of its resource definitions
(monitoring.coreos.com/v1). What is not used here is not known here: a new field fails until it is looked up.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

_UNITS = "".join(f"([0-9]+{unit})?" for unit in ("y", "w", "d", "h", "m", "s", "ms"))
Duration = Annotated[str, StringConstraints(pattern=f"^(0|{_UNITS})$", min_length=1)]
LabelName = Annotated[str, StringConstraints(pattern="^[a-zA-Z_][a-zA-Z0-9_]*$")]


class Strict(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)


class Metadata(Strict):
    name: Annotated[str, StringConstraints(pattern="^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
    namespace: str
    labels: dict[str, str]


class Rule(Strict):
    alert: Annotated[str, StringConstraints(min_length=1)]
    expr: str | int
    for_: Annotated[Duration | None, Field(alias="for")] = None
    keep_firing_for: Annotated[Duration | None, Field(alias="keep_firing_for")] = None
    labels: dict[LabelName, str] = {}
    annotations: dict[LabelName, str] = {}


class Group(Strict):
    name: Annotated[str, StringConstraints(min_length=1)]
    interval: Duration | None = None
    rules: list[Rule]


class Groups(Strict):
    groups: list[Group]


class PrometheusRule(Strict):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PrometheusRule"]
    metadata: Metadata
    spec: Groups


class Relabeling(Strict):
    action: Literal["labeldrop", "LabelDrop"]
    regex: str


class Endpoint(Strict):
    port: str
    path: str
    interval: Duration
    scrape_timeout: Duration
    relabelings: list[Relabeling]


class Selector(Strict):
    match_labels: dict[str, str]


class Monitor(Strict):
    selector: Selector
    endpoints: Annotated[list[Endpoint], Field(min_length=1)]


class ServiceMonitor(Strict):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["ServiceMonitor"]
    metadata: Metadata
    spec: Monitor


KINDS: dict[str, type[Strict]] = {"PrometheusRule": PrometheusRule, "ServiceMonitor": ServiceMonitor}

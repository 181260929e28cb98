"""The table of docs/metrics.md, from the instruments; the prose around it is written by hand."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from devkit.generate.reference import table_rows
from reaper.observers.instruments import Instruments

DOCUMENT = Path("docs/metrics.md")
ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- generated from reaper/observers/instruments.py -->", "<!-- end of what is generated -->"


def _rows() -> Iterator[tuple[str, ...]]:
    registry = CollectorRegistry()
    Instruments(registry)
    for collector in registry._collector_to_names:  # noqa: SLF001 - the families themselves do not have the names of labels
        assert isinstance(collector, MetricWrapperBase)
        (family,) = collector.describe()
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = ("version", "python") if family.type == "info" else collector._labelnames  # noqa: SLF001 - as above
        unit = family.unit or ("0 or 1" if family.documentation.startswith("1 ") else "count")
        yield f"`{name}`", family.type, "" if family.type == "info" else unit, ", ".join(labels), family.documentation


def metrics() -> str:
    """docs/metrics.md."""
    before, _, rest = (ROOT / DOCUMENT).read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    _, _, after = rest.partition(END)
    table = "\n".join(table_rows(("name", "type", "unit", "labels", "meaning"), _rows()))
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


FILES: Mapping[Path, Callable[[], str]] = {DOCUMENT: metrics}

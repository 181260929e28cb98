"""The alert rules as the object that the Prometheus Operator reads: the lines of the rule file, moved to their place."""

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALERTS = "deploy/prometheus/alerts.yml"
OBJECT = "deploy/kubernetes/components/monitoring/prometheusrule.yaml"

_HEAD = f"""\
# Made of {ALERTS} by `python -m devkit.generate`: change the rules there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: reaper
  labels:
    app.kubernetes.io/name: reaper
spec:
"""


def prometheus_rule(alerts: str) -> str:
    """The object for the rules of a rule file.

    Args:
        alerts: the text of the file: its lines are kept, comments among them, since a rule reads the same one level deeper.

    Raises:
        ValueError: the file has more than groups, or none.
    """
    keys = [line.partition(":")[0] for line in alerts.splitlines() if line[:1] not in ("", " ", "#", "-")]
    if keys != ["groups"]:
        raise ValueError(f"a rule file has groups, and nothing else; there is {keys or 'nothing'}")
    return _HEAD + textwrap.indent(alerts, "  ")


def _rule() -> str:
    return prometheus_rule((ROOT / ALERTS).read_text(encoding="utf-8"))


FILES: Mapping[Path, Callable[[], str]] = {Path(OBJECT): _rule}

"""What the benchmarks write down; what they measure is no test's business."""

from benchmarks.measure import Run, Series
from benchmarks.report import Measured, document
from benchmarks.rows import GROUPS


def test_every_group_can_be_written_down() -> None:
    """A measurement of half an hour is lost when its section cannot be written."""
    series = Series([Run(seconds=1.0, cpu=1.0, peak_mib=1.0, figure=1.0)] * 2)
    for group, rows in GROUPS.items():
        written = document(group, [Measured(row, series, series) for row in rows], "engine", (0.0, 0.0))
        assert all(row.work in written for row in rows)
        assert "CPython" in written.rpartition("### Where and when")[2]

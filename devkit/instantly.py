"""A pytest plugin that names each failing test as it fails: a run that is cut off later has told of it by then."""

from __future__ import annotations

import pytest


class _Names:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed:
            return
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return
        crash = getattr(report.longrepr, "reprcrash", None)
        lines = str(getattr(crash, "message", report.longrepr)).splitlines()
        when = "FAILED" if report.when == "call" else "ERROR"
        terminal.write("\n")  # the letter of the progress stands there
        terminal.write_line(f"{when} {report.nodeid}: {lines[0] if lines else ''}", flush=True)


def pytest_configure(config: pytest.Config) -> None:
    """Let the process that writes to the terminal tell, and none of xdist's workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Names(config), "instantly")

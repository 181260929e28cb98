"""Presets of one's own in a file, and what nothing owns: by the real command line."""

from pathlib import Path

import pytest

from tests.program.fakeengine import FakeEngine
from tests.run import Program

ACME = """
[[preset]]
name = "acme"
labels = ["acme.run"]
names = ["acme-run-*"]
images = ["acme/agent*"]
projects = ["acme-trial-*"]
config_files = ["/acme/runner/compose.yaml"]
"""
IN_FORCE = f'[scope]\npresets = ["terminal-bench", "acme"]\n{ACME}'
FILES = "com.docker.compose.project.config_files"


@pytest.fixture(autouse=True)
def _world(fake: FakeEngine) -> None:
    fake.add_network("acme-trial-7_default", "acme-trial-7")
    fake.add("labelled", owned=False, labels={"acme.run": "1"})
    fake.add("acme-run-1", owned=False)
    fake.add("agent", owned=False, image="acme/agent:2", project="x")
    fake.add("beside", owned=False, project="x")
    fake.add("trial", owned=False, project="acme-trial-7")
    fake.add("started", owned=False, project="y", labels={FILES: "/tmp/a.yaml,/opt/acme/runner/compose.yaml"})
    fake.add("by hand", owned=False, project="z", labels={FILES: "/opt/runner/compose.yaml"})
    fake.add("acme", owned=False, labels={"acme": "run"}, image="library/acme")
    fake.add("minisweagent-0a1b2c3d", owned=False)


OTHERS = {"by hand", "acme", "minisweagent-0a1b2c3d"}


def _file(tmp_path: Path, text: str) -> tuple[str, str]:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return "--config", str(file)


def test_what_it_says_goes_and_nothing_else(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    ended = run("--once", *_file(tmp_path, IN_FORCE))
    assert ended.code == 0, ended.out
    assert fake.names() == OTHERS
    assert not fake.networks


def test_it_owns_nothing_before_scope_names_it(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    config = _file(tmp_path, ACME)
    ended = run("--once", *config)
    assert (ended.code, fake.changes()) == (0, [])
    assert "7 resources that are not owned have the signs of preset acme; to own them: presets = [" in ended.err
    assert "warning: [[preset]] 'acme' owns nothing: [scope] presets does not name it" in run("config", "check", *config).out
    assert run("--once", *config, env={"REAPER_SCOPE__PRESETS": "acme"}).code == 0
    assert fake.names() == OTHERS


def test_check_show_and_explain_say_what_it_is(run: Program, tmp_path: Path) -> None:
    config = _file(tmp_path, IN_FORCE)
    checked = run("config", "check", *config).out
    assert (
        "owned: preset acme: label acme.run, or name acme-run-*, or image acme/agent* (with its whole project), or"
        " project acme-trial-*, or config file */acme/runner/compose.yaml\n"
    ) in checked
    assert "preset.acme.labels" in run("config", "show", *config).out
    assert "owned: preset acme, project acme-trial-*" in run("explain", "trial", *config).out
    assert "preset acme, image acme/agent* in its project" in run("explain", "beside", *config).out
    shown = run("config", "show", *config, env={"REAPER_PRESET__ACME__NAMES": "acme-job-*"}).out
    assert "REAPER_PRESET__ACME__NAMES" in shown


def test_unowned_lists_what_nothing_owns_with_the_preset_that_would(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    fake.add("owned")
    ended = run("list", "--unowned", *_file(tmp_path, ACME))
    assert ended.code == 0
    rows = [line.split("\t") for line in ended.out.splitlines() if "\t" in line]
    assert {row[2]: row[7] for row in rows} == {
        **dict.fromkeys(("labelled", "acme-run-1", "agent", "beside", "trial", "started", "acme-trial-7_default"), "acme"),
        **dict.fromkeys(("by hand", "acme"), "-"),
        "minisweagent-0a1b2c3d": "mini-swe-agent",
    }
    hints = [line for line in ended.err.splitlines() if line.startswith("hint: ")]
    assert len(hints) == 3, "one for each preset, and one for what has the signs of none"
    assert hints[0].startswith("hint: 7 resources that are not owned have the signs of preset acme;")
    assert hints[1].startswith("hint: 1 resource that is not owned has the signs of preset mini-swe-agent;")
    assert hints[2].startswith("hint: 2 resources that are not owned have the signs of no preset;")
    assert fake.changes() == []


def test_unowned_takes_the_usual_filters_and_columns(run: Program, fake: FakeEngine) -> None:
    fake.add("up", "running", owned=False)
    ended = run("list", "--unowned", "--state", "running", "--columns", "name,preset")
    assert [line for line in ended.out.splitlines() if "\t" in line] == ["up\t-"]
    document = run("list", "--unowned", "--json").document
    named = {r["name"]: r["preset"] for endpoint in document["endpoints"] for r in endpoint["resources"]}
    assert named["minisweagent-0a1b2c3d"] == "mini-swe-agent"
    assert named["acme"] is None
    assert "hint: preset mini-swe-agent would own it" in run("explain", "minisweagent-0a1b2c3d").out


def test_nothing_is_unowned_where_all_is_owned(run: Program, fake: FakeEngine) -> None:
    fake.containers.clear()
    fake.networks.clear()
    fake.add("owned")
    ended = run("list", "--unowned")
    assert (ended.code, [line for line in (ended.out + ended.err).splitlines() if "\t" in line or "hint" in line]) == (0, [])

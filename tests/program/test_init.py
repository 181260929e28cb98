"""``reaper init``: a configuration for what is found, which deletes nothing and holds no secret."""

import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from reaper.core.presets import PRESETS
from reaper.simulator.server import Simulator
from tests.program.fakeengine import FakeEngine
from tests.program.terminal import at_terminal
from tests.run import Program

KEY = "dtn_0123456789abcdef"


def leftovers(fake: FakeEngine) -> None:
    """What three runners have left, one of which no default preset knows, and something of a neighbour."""
    fake.add("chess-1")
    fake.add("chess-2", "running", ago="1h")
    fake.add("sweb.eval.astropy__astropy-12907.run-1", owned=False)
    fake.add("minisweagent-0a1b2c3d", "running", owned=False)
    fake.add("billing-db", "running", ago="90d", owned=False)


def test_the_file_has_the_endpoint_and_the_presets_that_were_seen_and_deletes_nothing(
    run: Program, fake: FakeEngine
) -> None:
    leftovers(fake)
    ended = run("init")
    assert ended.code == 0, ended.err
    assert fake.changes() == []
    file = run.folder / "reaper.toml"
    found = tomllib.loads(file.read_text())
    assert found == {
        "scope": {"presets": ["terminal-bench", "mini-swe-agent", "swe-bench"]},
        "docker": [{"name": "local", "host": fake.host}],
    }
    assert stat.S_IMODE(file.stat().st_mode) & 0o022 == 0
    assert ended.out.startswith("reaper.toml is written for local (5 resources); nothing was deleted\n")
    checked = run("config", "check")
    assert (checked.code, [line for line in checked.out.splitlines() if line.startswith("warning")]) == (0, [])
    assert checked.out.startswith("reaper.toml: OK")


def test_every_line_of_the_file_is_explained(run: Program, fake: FakeEngine) -> None:
    leftovers(fake)
    lines = run("init", "--output", "-").out.splitlines()
    assert len(lines) <= 20
    assert [line for line in lines if line and line != "]" and "# " not in line] == []
    assert any('"swe-bench",' in line and "# 1 resource" in line for line in lines)
    assert max(map(len, lines)) <= 80 or fake.host in max(lines, key=len)
    assert any("1 not owned: `reaper list --unowned`" in line for line in lines)
    known = {name for name in PRESETS if any(name in line for line in lines)}
    assert known == set(PRESETS), "what else it could own is named"


def test_nothing_of_a_runner_leaves_the_defaults_and_says_so(run: Program, fake: FakeEngine) -> None:
    fake.add("billing-db", owned=False)
    ended = run("init", "--output", "-")
    assert ended.code == 0
    assert tomllib.loads(ended.out)["scope"] == {"presets": ["terminal-bench", "harbor"]}
    assert "# Nothing has the signs of a runner, so these are the defaults:" in ended.out
    assert not (run.folder / "reaper.toml").exists()


@pytest.mark.parametrize("there", ["file", "folder", "dangling link"])
def test_what_exists_is_not_overwritten_and_no_engine_is_asked(run: Program, fake: FakeEngine, there: str) -> None:
    target = run.folder / "mine.toml"
    if there == "file":
        target.write_text("[journal]\n")
    elif there == "folder":
        target.mkdir()
    else:
        target.symlink_to(run.folder / "elsewhere.toml")
    ended = run("init", "--output", "mine.toml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "reaper: mine.toml: it exists, and is not overwritten\n  name another file with --output, or - for stdout\n"
    )
    assert fake.calls == []
    assert there != "file" or target.read_text() == "[journal]\n"
    assert not (run.folder / "elsewhere.toml").exists()


def test_a_file_that_cannot_be_written_is_an_error(run: Program, fake: FakeEngine) -> None:
    ended = run("init", "--output", "no/such/folder.toml")
    assert (ended.code, ended.out) == (2, "")
    assert "no/such/folder.toml: it cannot be written: No such file or directory" in ended.err


def test_what_it_suggests_takes_the_file_that_was_written(run: Program, fake: FakeEngine) -> None:
    ended = run("init", "--output", "gpu.toml")
    assert "reaper --config gpu.toml --once --dry-run" in ended.out
    assert run("--config", "gpu.toml", "--once", "--dry-run").code == 0


@pytest.fixture
def daytona() -> Iterator[dict[str, str]]:
    """The environment that names an organisation of the simulator."""
    with Simulator(seed=7, sandboxes=20) as simulator:
        yield {name: text for name, text in simulator.environment().items() if name.startswith("DAYTONA_")}


def test_an_organisation_is_named_by_the_variable_of_its_key(
    run: Program, fake: FakeEngine, daytona: dict[str, str]
) -> None:
    ended = run("init", "--output", "-", env=daytona)
    assert ended.code == 0, ended.err
    (found,) = tomllib.loads(ended.out)["daytona"]
    wanted = {"name": "default", "api_url": daytona["DAYTONA_API_URL"], "api_key_env": "DAYTONA_API_KEY"}
    assert {key: found[key] for key in wanted} == wanted
    assert [line for line in ended.out.splitlines() if line and line != "]" and "# " not in line] == []
    assert daytona["DAYTONA_API_KEY"] not in ended.out + ended.err


def test_an_endpoint_that_does_not_answer_is_left_out_with_the_reason(run: Program, fake: FakeEngine) -> None:
    env = {"DAYTONA_API_KEY": KEY, "DAYTONA_API_URL": "http://127.0.0.1:9/api", "REAPER_RETRY__ATTEMPTS": "1"}
    ended = run("init", env=env)
    assert ended.code == 5
    text = (run.folder / "reaper.toml").read_text()
    assert "daytona" not in tomllib.loads(text)
    assert "# Left out, since it could not be listed: " in text
    assert '# api_key_env = "DAYTONA_API_KEY"' in text
    assert KEY not in text + ended.out + ended.err
    again = text.replace("# [[", "[[").replace("# name", "name").replace("# api", "api")
    assert tomllib.loads(again)["daytona"] == [
        {"name": "default", "api_url": "http://127.0.0.1:9/api", "api_key_env": "DAYTONA_API_KEY"}
    ]


def test_nothing_is_written_where_nothing_answers(run: Program, tmp_path: Path) -> None:
    ended = run("init", env={"DOCKER_HOST": f"unix://{tmp_path}/no.sock"})
    assert (ended.code, ended.out) == (5, "")
    assert "reaper: no endpoint answers, so there is nothing to write a configuration for" in ended.err
    assert f"no engine at unix://{tmp_path}/no.sock" in ended.err
    assert not (run.folder / "reaper.toml").exists()


def test_at_a_terminal_it_fits(run: Program, fake: FakeEngine) -> None:
    leftovers(fake)
    seen = at_terminal(run, "init", where="both")
    assert seen.code == 0
    assert max(map(len, seen.lines)) <= 80
    assert seen.lines[-1].endswith("reaper --once --dry-run")


@pytest.mark.parametrize("option", ["--config=x", "--json", "--all", "--policy=x"])
def test_what_means_nothing_to_it_is_refused(run: Program, fake: FakeEngine, option: str) -> None:
    ended = run(option, "init")
    assert ended.code == 2
    assert f"{option.partition('=')[0]} does not go with init" in ended.err
    assert fake.calls == []


def test_an_existing_configuration_of_the_machine_is_not_what_is_asked(
    run: Program, fake: FakeEngine, tmp_path: Path
) -> None:
    (tmp_path / "other.toml").write_text('[[docker]]\nname = "other"\nhost = "unix:///no.sock"\n')
    ended = run("init", env={"REAPER_CONFIG": str(tmp_path / "other.toml")})
    assert ended.code == 0
    assert "reaper --config reaper.toml config check" in ended.out, "REAPER_CONFIG would win without"

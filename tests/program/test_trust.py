"""A configuration, and a secret, that another user may write."""

import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from reaper.config import load, secrets, trust
from reaper.core.model import Decision, Reason, Verdict
from reaper.errors import ConfigError, LeasesUnknownError
from reaper.leases.database import create
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from reaper.providers.daytona.registration import REGISTRATION
from reaper.providers.daytona.settings import DaytonaTable
from reaper.providers.registration import EndpointSpec
from reaper.sweep.ownership import Memory
from tests.core.make import NOW, STOPPED
from tests.program.fakeengine import FakeEngine
from tests.run import Program

OTHER = 54321
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
EVERYTHING = "[scope]\neverything = true\n"


def refused(ended: object, fake: FakeEngine) -> None:
    assert getattr(ended, "code") == 2, ended  # noqa: B009
    assert fake.calls == []


@AS_ROOT
@pytest.mark.parametrize(
    "command", [("--once", "--all"), ("list",), ("check",), ("config", "check"), ("config", "show"), ()]
)
def test_a_file_of_another_user_is_refused(run: Program, fake: FakeEngine, command: tuple[str, ...]) -> None:
    fake.add("stranger", ago="30h", owned=False)
    file = run.folder / "reaper.toml"
    file.write_text(EVERYTHING)
    os.chown(file, OTHER, OTHER)
    ended = run(*command)
    refused(ended, fake)
    assert f"it belongs to user {OTHER}" in ended.err
    assert "chown root" in ended.err
    assert fake.names() == {"stranger"}


@pytest.mark.parametrize("named", [True, False])
def test_a_file_that_everybody_may_write_is_refused(run: Program, fake: FakeEngine, *, named: bool) -> None:
    file = run.folder / ("mine.toml" if named else "reaper.toml")
    file.write_text(EVERYTHING)
    file.chmod(0o666)
    ended = run("--once", *(("--config", str(file)) if named else ()))
    refused(ended, fake)
    assert "it can be written by every user" in ended.err
    file.chmod(0o644)
    assert run("--once", *(("--config", str(file)) if named else ())).code == 0


@AS_ROOT
def test_a_file_that_a_group_of_others_may_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(EVERYTHING)
    file.chmod(0o664)
    assert load.load(str(file), {}).settings.scope.everything  # root's own group has root alone
    monkeypatch.setattr(trust, "_members", lambda _: frozenset({0, OTHER}))
    with pytest.raises(ConfigError, match=f"written by its group, and with that by user {OTHER}"):
        load.load(str(file), {})


@AS_ROOT
def test_a_link_of_another_user_to_a_file_of_root_is_refused(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text(EVERYTHING)
    link = run.folder / "reaper.toml"
    link.symlink_to(real)
    os.chown(link, OTHER, OTHER, follow_symlinks=False)
    ended = run("--once")
    refused(ended, fake)
    assert f"symbolic link that belongs to user {OTHER}" in ended.err


@AS_ROOT
def test_a_file_of_root_is_good_for_every_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(EVERYTHING)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    assert load.load(str(file), {}).settings.scope.everything


def test_a_pipe_is_as_good_as_a_file(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, EVERYTHING.encode())
    os.close(writing)
    try:
        assert load.load(f"/dev/fd/{reading}", {}).settings.scope.everything
    finally:
        os.close(reading)


@AS_ROOT
def test_a_file_that_is_mounted_by_itself_may_have_any_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(EVERYTHING)
    os.chown(file, OTHER, OTHER)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 98:0 /mnt1 {file.resolve()} rw,noatime master:1 - ext3 /dev/root rw\n")
    monkeypatch.setattr(trust, "_MOUNTS", mounts)
    assert load.load(str(file), {}).settings.scope.everything


@AS_ROOT
def test_a_secret_of_another_user_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("dtn_secret")
    endpoint = EndpointSpec(REGISTRATION, DaytonaTable(name="rl", api_key_file=str(file)))
    assert secrets.with_secret(endpoint, {}).secret == "dtn_secret"
    os.chown(file, OTHER, OTHER)
    with pytest.raises(ConfigError, match=f"belongs to user {OTHER}") as refused:
        secrets.with_secret(endpoint, {})
    assert "dtn_secret" not in str(refused.value)


def test_the_first_line_of_a_sweep_names_the_file_in_force(run: Program, fake: FakeEngine) -> None:
    fake.add("leftover", ago="30h")
    (run.folder / "reaper.toml").write_text("# the defaults\n")
    first = json.loads(run("--once").err.splitlines()[0])
    assert (first["event"], first["config"]) == ("sweep_started", str((run.folder / "reaper.toml").resolve()))
    (run.folder / "reaper.toml").unlink()
    assert json.loads(run("--once").err.splitlines()[0])["config"] == "the defaults"


def test_files_of_the_state_directory_are_for_their_owner_alone(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    """Labels, names and leases stand in them, and what they say is believed."""
    fake.add("chess-1", project="chess")
    fake.add("chess-2", project="chess", ago="1m")
    code = run.finish(run.start("run", "--", "true", umask=0)).code
    assert code == 0
    written = [file for file in tmp_path.iterdir() if file.is_file()]
    assert {"leases.db", "journal.db"} <= {file.name for file in written}
    assert any(file.name.startswith("owned-") for file in written)
    assert [file.name for file in written if file.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("change", ["every user may write it", "it is another user's"])
def test_a_state_that_another_user_could_have_written_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    leases, memory = LeaseFile(tmp_path / NAME), Memory(tmp_path, "local")
    create(leases.file)
    thing = replace(STOPPED, group="p")
    memory.learn([Decision(thing, Verdict.KEEP, Reason.TOO_YOUNG, "", owner="label run=x")], NOW, timedelta(0))
    assert memory.recall([thing])[0].remembered is not None
    for file in (leases.file, memory.file):
        if change == "every user may write it":
            file.chmod(0o666)
        elif os.geteuid() == 0:
            os.chown(file, OTHER, OTHER)
        else:
            pytest.skip("only root can give files away")
    if change != "every user may write it":
        monkeypatch.setattr(os, "geteuid", lambda: OTHER + 1)
    assert memory.recall([thing])[0].remembered is None
    with pytest.raises(LeasesUnknownError, match=r"every user can write it|it belongs to user"):
        leases.records()

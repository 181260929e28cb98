"""The folder of evidence: who can read it, how large it gets, and a disk that is full."""

import json
import math
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from reaper.config.settings import EvidenceTable
from reaper.observers import evidence
from reaper.observers.evidence import FOLDER, EvidenceFiles, ids, read
from reaper.providers.abilities import Evidence
from tests import needs
from tests.journal.lab import NOW, resource

FOUND = Evidence({"State": {"Status": "exited", "ExitCode": 3}}, "one\r\ntwo\nthree")


def files(state: Path, **table: Any) -> EvidenceFiles:
    return EvidenceFiles(state, EvidenceTable(**{"logs": 200, "inspect": True, **table}), lambda: NOW)


def save(store: EvidenceFiles, *names: str, found: Evidence = FOUND, **fields: Any) -> list[str | None]:
    async def main() -> list[str | None]:
        return [await store.save(resource(name, **fields), found) for name in names]

    return anyio.run(main)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def age(state: Path, id_: str, days: float) -> None:
    """Make a file as old as that."""
    at = (NOW - timedelta(days=days)).timestamp()
    os.utime(state / FOLDER / f"{id_}.json", (at, at))


def test_it_is_read_as_it_was_saved_and_by_its_owner_alone(tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    before = os.umask(0)
    try:
        assert save(files(state), "a") == [None]
    finally:
        os.umask(before)
    found = read(state, "id-a")
    assert found["log"] == ["one", "two", "three"]
    assert found["inspection"] == FOUND.inspection
    assert (found["name"], found["kind"], found["saved_at"]) == ("a", "container", NOW.isoformat())
    assert ids(state) == {"id-a"}
    assert stat.S_IMODE((state / FOLDER / "id-a.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((state / FOLDER).stat().st_mode) == 0o700
    assert names(state / FOLDER) == ["id-a.json"]


def test_what_is_not_wanted_is_not_in_it(tmp_path: Path) -> None:
    save(files(tmp_path, logs=0), "a", found=replace(FOUND, log=None))
    found = read(tmp_path, "id-a")
    assert (found["log"], found["note"]) == (None, "logs are not saved: [evidence] logs = 0")
    save(files(tmp_path, inspect=False), "b")
    assert read(tmp_path, "id-b")["inspection"] is None


@pytest.mark.parametrize("id_", ["", ".", "..", "../x", "a/b", "a.json", "-rf", "x" * 129, "a\n", "a\0", "sha256:ab", "ä"])
def test_an_id_that_is_no_name_of_a_file_makes_none(tmp_path: Path, id_: str) -> None:
    assert save(files(tmp_path), "a", id=id_) == ["its id cannot be the name of a file"]
    assert list(tmp_path.rglob("*")) == []


def test_names_of_containers_make_no_name_of_a_file(tmp_path: Path) -> None:
    assert save(files(tmp_path), "../../etc/passwd", id="abc") == [None]
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")] == ["evidence", "evidence/abc.json"]


def test_what_is_older_than_is_kept_goes_and_nothing_younger(tmp_path: Path) -> None:
    store = files(tmp_path, keep_for="14d")
    save(store, "old", "young")
    age(tmp_path, "id-old", 14.1)
    age(tmp_path, "id-young", 13.9)
    (tmp_path / FOLDER / "id-x.json.4711.partial").write_text("half of a file of a process that was killed")
    os.utime(tmp_path / FOLDER / "id-x.json.4711.partial", (0, 0))
    anyio.run(store.tidy)
    assert names(tmp_path / FOLDER) == ["id-young.json"]


def test_the_oldest_go_when_it_is_too_much(tmp_path: Path) -> None:
    store = files(tmp_path, max_size="10MB")
    large = replace(FOUND, log="x" * 250_000)
    for number in range(60):
        assert save(store, f"{number:02}", found=large) == [None]
        age(tmp_path, f"id-{number:02}", 1 - number / 100)
        assert sum(file.stat().st_size for file in (tmp_path / FOLDER).iterdir()) <= 10_000_000
    left = sorted(ids(tmp_path))
    assert left[-1] == "id-59"
    assert left == [f"id-{number:02}" for number in range(60 - len(left), 60)]
    assert len(left) > 30


def test_there_are_never_more_than_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MOST_FILES", 20)
    store = files(tmp_path)
    for number in range(70):
        save(store if number % 2 else files(tmp_path), f"{number:02}")  # another process saves, too
        age(tmp_path, f"id-{number:02}", 1 - number / 100)
        assert len(ids(tmp_path)) <= 21
    assert "id-69" in ids(tmp_path)


def test_it_is_trimmed_where_nothing_is_saved_any_more(tmp_path: Path) -> None:
    save(files(tmp_path), "old")
    age(tmp_path, "id-old", 30)
    anyio.run(files(tmp_path, logs=0, inspect=False).tidy)
    assert ids(tmp_path) == frozenset()
    anyio.run(files(tmp_path / "none").tidy)
    assert not (tmp_path / "none").exists()


def test_a_host_without_a_thread_to_spare_costs_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    save(files(tmp_path), "old")
    monkeypatch.setattr(anyio.to_thread, "run_sync", no_thread)
    anyio.run(files(tmp_path).tidy)
    assert ids(tmp_path) == {"id-old"}


def test_a_full_disk_gets_nothing_and_half_of_no_file(tmp_path: Path) -> None:
    with needs.small_disk(tmp_path / "small", "48m") as disk:
        store = files(disk)
        assert save(store, "a") == [None]
        (disk / "filler").write_bytes(b"x" * (20 << 20))
        (problem,) = save(store, "b")
        assert problem is not None
        assert f"would be left on the disk of {disk / FOLDER}" in problem
        assert ids(disk) == {"id-a"}


def test_a_disk_that_is_full_before_it_is_said_to_be_keeps_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "LEAST_FREE", -math.inf)
    with needs.small_disk(tmp_path / "small", "256k") as disk:
        store = files(disk)
        assert save(store, "a") == [None]
        used = os.statvfs(disk).f_bfree
        (problem,) = save(store, "b", found=replace(FOUND, log="x" * 400_000))
        assert problem is not None
        assert names(disk / FOLDER) == ["id-a.json"]
        assert os.statvfs(disk).f_bfree == used


def test_a_folder_that_cannot_be_made_is_a_problem_that_names_it(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file")
    (problem,) = save(files(tmp_path), "a")
    assert problem == f"{tmp_path / FOLDER}: File exists"
    anyio.run(files(tmp_path).tidy)


def test_a_state_directory_that_cannot_even_be_looked_for_is_a_problem_and_raises_nothing(tmp_path: Path) -> None:
    store = files(tmp_path / ("x" * 300))
    anyio.run(store.tidy)
    (problem,) = save(store, "a")
    assert problem is not None
    assert problem.endswith("File name too long")


@pytest.mark.parametrize(
    "found",
    [
        replace(FOUND, log="\0" * 262_144),
        replace(FOUND, log="\N{PILE OF POO}" * 262_144),
        replace(FOUND, log="\\xff" * 65_536),
        replace(FOUND, inspection={"a": "\ud800", "b": [None, 1.5, True]}),
    ],
)
def test_whatever_a_container_wrote_is_saved_within_the_bound(tmp_path: Path, found: Evidence) -> None:
    assert save(files(tmp_path), "a", found=found) == [None]
    assert (tmp_path / FOLDER / "id-a.json").stat().st_size <= evidence.LARGEST
    assert read(tmp_path, "id-a")["log"] == (found.log or "").replace("\r\n", "\n").split("\n")


@pytest.mark.parametrize("inspection", [{"a": "x" * 5_000_000}, {"a": object()}], ids=["too large", "no JSON"])
def test_what_cannot_be_saved_is_a_problem(tmp_path: Path, inspection: dict[str, object]) -> None:
    (problem,) = save(files(tmp_path), "a", found=replace(FOUND, inspection=inspection))
    assert problem is not None
    assert ids(tmp_path) == frozenset()


DAMAGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": lambda found: {**found, "format": 2},
    "another id": lambda found: {**found, "id": "id-b"},
    "a log that is no list": lambda found: {**found, "log": "one"},
    "a log of numbers": lambda found: {**found, "log": [1]},
    "a list": lambda _: [],
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_an_error(tmp_path: Path, damage: str) -> None:
    save(files(tmp_path), "a")
    file = tmp_path / FOLDER / "id-a.json"
    file.write_text(json.dumps(DAMAGED[damage](json.loads(file.read_text()))))
    with pytest.raises(ValueError, match=r"it is no evidence|its log is no list"):
        read(tmp_path, "id-a")


def test_a_pipe_in_the_place_of_a_file_is_an_error_and_no_wait(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    os.mkfifo(tmp_path / FOLDER / "id-a.json")
    with pytest.raises(OSError, match="no regular file"):
        read(tmp_path, "id-a")
    assert ids(tmp_path) == frozenset()

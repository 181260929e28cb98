"""Which labels of a container are its own is remembered while it is there, for the time when its image is gone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reaper.core.model import Resource
from reaper.providers.docker.own_labels import OwnLabels
from tests.core.make import FOREIGN

ID = "ef" * 32
LABELS = {"team": "rl", "run": "x"}
RUN = frozenset({"run"})
BOX = replace(FOREIGN, id=ID, labels=LABELS, inherited=RUN)
FORGOTTEN = replace(BOX, inherited=None)


def memory(folder: Path, engine: str | None = "engine-1", identity: str = "unix:///a", *, learns: bool = True) -> OwnLabels:
    found = OwnLabels(folder, identity, learns=learns)
    found.recall(engine)
    return found


def learnt(folder: Path, *containers: Resource) -> OwnLabels:
    found = memory(folder)
    found.learn(containers, {container.id for container in containers})
    return found


def test_what_was_proven_is_remembered_by_the_next_process(tmp_path: Path) -> None:
    assert memory(tmp_path).inherited(FORGOTTEN) is None
    first = learnt(tmp_path, BOX)
    for one in (first, memory(tmp_path), memory(tmp_path, learns=False)):
        assert one.inherited(FORGOTTEN) == RUN


def test_what_was_not_proven_is_not_remembered(tmp_path: Path) -> None:
    found = memory(tmp_path)
    found.learn([BOX], ())
    found.learn([FORGOTTEN], {ID})
    found.learn([replace(BOX, labels={})], {ID})
    assert not list(tmp_path.iterdir())


def test_it_lasts_while_the_container_is_listed_and_no_longer(tmp_path: Path) -> None:
    found = learnt(tmp_path, BOX)
    found.learn([replace(FORGOTTEN, inherited=frozenset({"run", "team"}))], ())
    assert memory(tmp_path).inherited(FORGOTTEN) == RUN, "a guess does not replace what was proven"
    other = replace(BOX, id="ab" * 32)
    found.learn([other], {other.id})
    assert memory(tmp_path).inherited(FORGOTTEN) is None


def test_what_another_process_has_learnt_is_not_lost(tmp_path: Path) -> None:
    found, other = learnt(tmp_path, BOX), replace(BOX, id="ab" * 32)
    learnt(tmp_path, BOX, other)
    found.recall("engine-1")
    found.learn([BOX, replace(other, inherited=None)], {ID})
    assert memory(tmp_path).inherited(replace(other, inherited=None)) == RUN


def test_a_reader_writes_nothing_and_a_steady_engine_costs_no_write(tmp_path: Path) -> None:
    memory(tmp_path, learns=False).learn([BOX], {ID})
    memory(tmp_path, None).learn([BOX], {ID})
    assert not list(tmp_path.iterdir())
    found = learnt(tmp_path, BOX)
    (path,) = tmp_path.iterdir()
    before = path.stat()
    found.recall("engine-1")
    found.learn([BOX], {ID})
    assert path.stat() == before


OTHERS: dict[str, st.SearchStrategy[object]] = {
    "engine": st.sampled_from(["engine-2", None]),
    "identity": st.just("unix:///b"),
    "id": st.sampled_from(["ab" * 32, ID[:12]]),
    "labels": st.sampled_from([{**LABELS, "team": "go"}, {"team": "rl"}, {**LABELS, "more": ""}, {}, None]),
}
"""By what something may differ from what was remembered."""


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_anything_else_nothing_is_remembered(tmp_path: Path, data: st.DataObject) -> None:
    learnt(tmp_path, BOX)
    differs = data.draw(st.sets(st.sampled_from(sorted(OTHERS))))
    drawn = {what: data.draw(others) for what, others in OTHERS.items() if what in differs}
    found = memory(tmp_path, drawn.get("engine", "engine-1"), str(drawn.get("identity", "unix:///a")))  # type: ignore[arg-type]
    box = replace(FORGOTTEN, id=str(drawn.get("id", ID)), labels=drawn.get("labels", LABELS))  # type: ignore[arg-type]
    assert found.inherited(box) == (None if differs else RUN)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', "nonsense"])
def test_a_damaged_file_is_no_memory(tmp_path: Path, text: str) -> None:
    learnt(tmp_path, BOX)
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    assert memory(tmp_path).inherited(FORGOTTEN) is None


def test_entries_of_another_form_and_files_of_others_are_no_memory(tmp_path: Path) -> None:
    learnt(tmp_path, BOX)
    (path,) = tmp_path.iterdir()
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "containers": {ID: ["x"]}}))
    assert memory(tmp_path).inherited(FORGOTTEN) is None
    path.write_text(json.dumps(content))
    assert memory(tmp_path).inherited(FORGOTTEN) == RUN
    path.chmod(0o666)
    assert memory(tmp_path).inherited(FORGOTTEN) is None

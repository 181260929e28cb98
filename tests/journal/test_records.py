"""What is written: every sweep and every act, with all that people ask for, in a file that is theirs alone."""

import json
import stat
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from reaper.core.accounts import Footprint, LastLook, Saving
from reaper.core.model import CapHit, EndpointFailure, Outcome
from reaper.observers.journal import Journal
from tests.journal.lab import NOW, Lab, decision, report, result, sweep


def test_an_act_has_everything_that_people_ask_for(lab: Lab) -> None:
    async def main(journal: Journal) -> None:
        journal.about("local", frozenset({"stopped-containers"}))
        look = LastLook(NOW + timedelta(seconds=2), "exited", acted=True)
        decided = replace(
            decision("chess", footprint=Footprint(2.0, 4096, 8192)), saving=Saving(timedelta(hours=4), timedelta(days=1))
        )
        failed = result(
            decided, Outcome.FAILED, detail="500 from the engine", attempts=4, error="server", freed=None, look=look
        )
        done = report(failed)
        journal.listed("local", 1)
        journal.decided("local", done.decisions)
        await journal.begin("local", "docker", [failed.decision])
        lab.clock.now += timedelta(seconds=7)
        journal.settled("local", failed)
        lab.clock.now += timedelta(seconds=7)
        journal.finished(done)

    lab.run(main)
    (row,) = lab.rows()
    assert json.loads(row.pop("labels")) == {"harbor.managed": "true"}
    assert row == {
        "id": 1,
        "sweep": 1,
        "endpoint": "local",
        "provider": "docker",
        "kind": "container",
        "resource": "id-chess",
        "name": "chess",
        "labels_cut": 0,
        "image": "hb__task",
        "group": "trial",
        "state": "stopped",
        "raw_state": "exited",
        "created_at": "2026-11-19T12:00:00.000000Z",
        "owner": "preset harbor",
        "policy": "stopped-containers",
        "action": "delete",
        "reason": "stopped_for",
        "sentence": "stopped 2 d ago, policy stopped-containers allows 6 h",
        "since": "2026-11-20T12:00:00.000000Z",
        "decided_at": "2026-11-21T12:00:00.000000Z",
        "outcome": "failed",
        "detail": "500 from the engine",
        "error": "server",
        "attempts": 4,
        "seconds": 0.5,
        "ended_at": "2026-11-21T12:00:07.000000Z",
        "freed": None,
        "cpu": 2.0,
        "memory": 4096,
        "disk": 8192,
        "avoided": 14400.0,
        "waited": 86400.0,
        "acted": 1,
        "looked_at": "2026-11-21T12:00:02.000000Z",
        "looked_state": "exited",
        "looked_differs": None,
        "evidence": 0,
    }
    (whole,) = lab.rows("SELECT * FROM sweep")
    assert (whole["at"], whole["ended_at"]) == ("2026-11-21T12:00:00.000000Z", "2026-11-21T12:00:14.000000Z")
    assert (whole["due"], whole["counts"], whole["held"]) == ('["stopped-containers"]', '{"failed": 1}', 1)
    assert lab.told == []


def test_a_sweep_that_deletes_nothing_is_recorded(lab: Lab) -> None:
    lab.sweep(kept=[decision("young", reap=False)])
    (row,) = lab.rows("SELECT * FROM sweep")
    assert (row["held"], row["reapable"], row["counts"], row["due"]) == (1, 0, "{}", None)
    assert lab.rows() == []


def test_a_listing_that_failed_is_recorded(lab: Lab) -> None:
    async def main(journal: Journal) -> None:
        journal.finished(report(failure=EndpointFailure("unreachable", "no engine at unix:///x")))

    lab.run(main)
    (row,) = lab.rows("SELECT * FROM sweep")
    assert (row["failure"], row["message"]) == ("unreachable", "no engine at unix:///x")


def test_the_cap_is_one_fact_and_not_thousands(lab: Lab) -> None:
    async def main(journal: Journal) -> None:
        cap = CapHit(wanted=1, allowed=0, held=1, limit="max_deletions = 0")
        await sweep(journal, report(result(decision("a"), Outcome.ABANDONED), cap=cap))

    lab.run(main)
    assert lab.rows() == []
    assert lab.rows("SELECT cap FROM sweep") == [{"cap": "1 would have gone, max_deletions = 0"}]


def test_what_is_about_to_go_is_on_record_before_it_goes(lab: Lab) -> None:
    async def main(journal: Journal) -> None:
        await journal.begin("local", "docker", [decision("a"), decision("b")])
        assert lab.outcomes() == {"a": "pending", "b": "pending"}

    lab.run(main)


def test_file_and_folder_are_for_their_owner_only(lab: Lab) -> None:
    async def main(journal: Journal) -> None:
        await journal.begin("local", "docker", [decision("a")])
        files = list(lab.file.parent.iterdir())
        assert {file.name for file in files} == {"journal.db", "journal.db-wal", "journal.db-shm", "journal.lock"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE(lab.file.parent.stat().st_mode) == 0o700

    lab.run(main)
    assert {file.name for file in lab.file.parent.iterdir()} == {"journal.db", "journal.lock"}


def test_labels_are_bounded_and_stay_json(lab: Lab) -> None:
    labels = {"small": "1", **{f"key-{i}": "x" * 1000 for i in range(100)}, "k" * 40_000: "v"}
    lab.sweep(result(decision("a", labels=labels)), result(decision("b", labels=None)))
    first, second = lab.rows()
    kept = json.loads(first["labels"])
    assert len(first["labels"]) <= 16_384
    assert kept["small"] == "1"
    assert kept["key-0"] == "x" * 256
    assert first["labels_cut"] == 101
    assert second["labels"] is None


def test_texts_of_others_are_stored_whatever_is_in_them(lab: Lab) -> None:
    lab.sweep(result(decision("half \ud800 and \x1b[31m and \0 end"), detail="y" * 10_000))
    (row,) = lab.rows()
    assert row["name"] == "half \\ud800 and \x1b[31m and \0 end"
    assert len(row["detail"]) == 4096
    assert row["outcome"] == "deleted"


def test_all_work_is_done_in_the_journal_s_own_thread(lab: Lab) -> None:
    threads: list[str] = []

    async def main(journal: Journal) -> None:
        write = journal._writer._write

        def watched(job: object) -> None:
            threads.append(threading.current_thread().name)
            write(job)  # type: ignore[arg-type]

        journal._writer._write = watched  # type: ignore[method-assign]
        await sweep(journal, report(result(decision("a"))))

    lab.run(main)
    assert set(threads) == {"journal"}
    assert len(threads) >= 3


ENDS = [outcome for outcome in Outcome if outcome is not Outcome.WOULD_DELETE]
SWEEPS = st.lists(
    st.tuples(
        st.sampled_from(["local", "gpu-1"]),
        st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(st.sampled_from(ENDS), st.text(max_size=8)), max_size=5),
        st.booleans(),
        st.booleans(),
    ),
    max_size=5,
)


@settings(max_examples=60)
@given(sweeps=SWEEPS)
def test_whatever_happens_the_journal_says_what_the_reports_say(
    sweeps: list[tuple[str, dict[str, tuple[Outcome, str]], bool, bool]],
) -> None:
    """Begun or not, and whether or not the process is another one each time."""
    with TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        expected = []
        for number, (endpoint, ends, begun, another) in enumerate(sweeps):
            results = [
                result(decision(name, endpoint=endpoint), outcome, detail=detail) for name, (outcome, detail) in ends.items()
            ]
            done = report(*results, endpoint=endpoint, held=number)

            async def main(journal: Journal, done: object = done, begun: bool = begun) -> None:
                assert isinstance(done, type(report()))
                if begun:
                    await sweep(journal, done)
                else:
                    journal.finished(done)

            lab.run(main)
            if another:
                lab.run(lambda journal: journal.close())
            expected += [(endpoint, number, f"id-{n}".encode("utf-8", "backslashreplace"), *end) for n, end in ends.items()]
        found = lab.rows("SELECT act.*, sweep.held FROM act JOIN sweep ON sweep.id = act.sweep") if sweeps else []
        told = [(r["endpoint"], r["held"], r["resource"].encode(), r["outcome"], r["detail"]) for r in found]
        clean = [(*row[:4], row[4].encode("utf-8", "backslashreplace").decode()) for row in expected]
        assert sorted(told) == sorted(clean)
        assert len(lab.rows("SELECT id FROM sweep") if sweeps else []) == len(sweeps)
        assert lab.told == []


def test_the_clock_is_read_on_the_loop_only(lab: Lab) -> None:
    readers: set[str] = set()

    def clock() -> object:
        readers.add(threading.current_thread().name)
        return NOW

    lab.sweep(result(decision("a")), clock=clock)
    assert readers == {"MainThread"}

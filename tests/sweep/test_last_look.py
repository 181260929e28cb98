"""Every result has on record what the last look before it showed; what that forbade and was done all the same is found."""

from typing import Any

import pytest

from reaper.core.model import Outcome
from reaper.providers.memory import Rule
from reaper.sweep import recheck, unit
from tests.sweep.lab import HOUR, NOW, Lab, network, outcomes, result, running, stopped

pytestmark = pytest.mark.anyio


async def test_what_was_deleted_has_its_last_look_on_record() -> None:
    lab = Lab(stopped("a"), running("b"), network("n", "p"), stopped("c", group="p"))
    report = await lab.sweep()
    for name, state in (("a", "exited"), ("b", "exited"), ("n", "unattached"), ("c", "exited")):
        look = result(report, name).look
        assert look is not None, name
        assert (look.raw_state, look.differs, look.acted) == (state, None, True), name
        assert look.at >= NOW


async def test_what_is_restarted_before_its_turn_is_skipped_with_what_was_seen_of_it() -> None:
    lab = Lab(stopped("it"), stopped("other"))
    lab.world.rules.append(Rule("inspect", "it", calls={1}, after=lambda: lab.world.start("it")))
    report = await lab.sweep()
    look = result(report, "it").look
    assert outcomes(report) == {"it": "skipped", "other": "deleted"}
    assert look is not None
    assert (look.raw_state, look.differs, look.acted) == ("running", "was exited and is running now", False)


async def test_a_program_that_takes_no_notice_of_what_it_sees_is_convicted_by_its_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def overlook(*_: Any, **__: Any) -> None:
        return None

    monkeypatch.setattr(recheck, "what_changed", overlook)
    monkeypatch.setattr(unit, "what_changed", overlook)
    lab = Lab(stopped("it"))
    lab.world.rules.append(Rule("inspect", "it", calls={1}, after=lambda: lab.relabel("it", {"note": "mine"})))
    with pytest.raises(AssertionError, match="has other labels now"):
        await lab.sweep()  # the lab holds every sweep against its record


async def test_a_program_that_does_not_look_at_all_is_convicted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def trust(self: Any) -> list[Any]:
        return [decision.resource for decision in self.decisions]

    monkeypatch.setattr(recheck.Members, "_look_again", trust)
    monkeypatch.setattr(recheck.Members, "_last_look", lambda *_: None)
    lab = Lab(stopped("it"))
    with pytest.raises(AssertionError, match="no look at it is on record"):
        await lab.sweep()


async def test_a_deletion_is_worth_what_another_policy_would_have_left_of_it() -> None:
    lab = Lab(stopped("it", hours=8), running("old"))
    report = await lab.sweep()
    (saved, old) = (result(report, name).decision.saving for name in ("it", "old"))
    assert saved is not None
    assert old is not None
    assert [round(time / HOUR, 3) for time in (saved.avoided, saved.waited or HOUR)] == [15, 7]
    assert [round(time / HOUR, 3) for time in (old.avoided, old.waited or HOUR)] == [24, 24]
    assert {r.outcome for r in report.results} == {Outcome.DELETED}

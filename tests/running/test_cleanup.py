"""What a run does about what it has left, while not all of it goes at once."""

from reaper.core.model import CapHit, Outcome, Report
from reaper.run.cleanup import Patience, _again
from tests.journal.lab import NOW, decision, report, result


def test_an_endpoint_is_looked_at_again_beside_one_that_is_over_its_cap() -> None:
    cap = CapHit(wanted=2, allowed=1, held=2, limit="max_lease_deletions = 1", of_leases=True)
    over = report(result(decision("a"), Outcome.ABANDONED), endpoint="gpu-1", cap=cap)
    done = report(result(decision("b")), endpoint="local")

    def again(*endpoints: object) -> bool:
        whole = Report(started_at=NOW, seconds=1.0, dry_run=False, endpoints=endpoints)  # type: ignore[arg-type]
        return _again(whole, "7f3a", Patience())

    assert again(over, done)
    assert not again(over)

"""A dependent keeps a resource: known from the listing, from an inspection only, or come since."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from reaper.core.model import Outcome, Reason, Resource, State
from reaper.errors import DeniedError, ServerError
from reaper.providers.memory import Held, MemoryWorld, Rule
from tests.sweep.lab import FOREIGN, Lab, network, outcomes, result, running, stopped

pytestmark = pytest.mark.anyio


def guest(of: str, name: str = "guest", **fields: object) -> Held:
    """A stranger that lives in the PID namespace of the one with this name."""
    made = running(name, hours=0.1, image=FOREIGN)
    return Held(replace(made, **fields), links=frozenset({f"id-{of}"}))  # type: ignore[arg-type]


def being_removed(resource: Resource) -> Resource:
    return replace(resource, state=State.CHANGING, raw_state="removing")


def reasons(lab_report: object) -> dict[str, Reason]:
    (endpoint,) = lab_report.endpoints  # type: ignore[attr-defined]
    return {d.resource.name: d.reason for d in endpoint.decisions}


@pytest.mark.parametrize("options", [{}, {"act": False}, {"act": False, "inspect_everything": True}])
async def test_what_only_an_inspection_tells_keeps_it_in_every_command(options: dict[str, bool]) -> None:
    lab = Lab(running("host"), guest("host"), stopped("other"))
    report = await lab.sweep(**options)
    assert reasons(report)["host"] is Reason.IN_USE
    assert set(outcomes(report)) == {"other"}
    assert "host" in lab.left()


async def test_it_keeps_the_whole_project() -> None:
    lab = Lab(running("a", group="p"), running("b", group="p"), network("net", "p"), guest("a"))
    assert outcomes(await lab.sweep()) == {}


@pytest.mark.parametrize("method", ["inspect", "members", "dependents"])
async def test_what_joins_after_the_listing_keeps_it(method: str) -> None:
    lab = Lab(running("host", group="p"), running("side", group="p"))
    last = 4 if method == "inspect" else 1
    lab.world.rules.append(Rule(method, calls={last}, before=lambda: lab.world.add(guest("host"))))
    report = await lab.sweep()
    assert outcomes(report) == {"host": "skipped", "side": "skipped"}
    assert "guest, which is kept, uses" in result(report, "host").detail
    assert not lab.world.made("stop")


@pytest.mark.parametrize("method", ["members", "inspect", "dependents"])
async def test_what_joins_the_project_before_the_last_listing_keeps_it(method: str) -> None:
    lab = Lab(running("host", group="p"), running("side", group="p"))
    late = running("late", hours=0.1, group="p")
    lab.world.rules.append(Rule(method, calls={1}, before=lambda: lab.world.add(late)))
    report = await lab.sweep()
    assert outcomes(report) == {"host": "skipped", "side": "skipped"}
    assert "late joined its project p" in result(report, "host").detail
    assert not lab.world.made("stop")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda world: world.change("side", being_removed), "is removing now"),
        (lambda world: world.start("side"), "is running now"),
        (lambda world: world.remove("side"), "has lost a member"),
    ],
)
@pytest.mark.parametrize("hosts", [stopped, running])
async def test_what_becomes_of_a_member_before_the_last_listing_keeps_the_others(
    change: Callable[[MemoryWorld], None], said: str, hosts: Callable[..., Resource]
) -> None:
    lab = Lab(hosts("host", group="p"), stopped("side", group="p"))
    lab.world.rules.append(Rule("dependents", calls={1}, before=lambda: change(lab.world)))
    report = await lab.sweep()
    assert outcomes(report)["host"] == "skipped"
    assert said in result(report, "host").detail
    assert not lab.world.made("stop") + lab.world.made("delete")


async def test_what_joins_the_project_as_its_network_is_to_go_keeps_that() -> None:
    lab = Lab(stopped("host", group="p"), network("net", "p"))
    late = running("late", hours=0.1, group="p")
    lab.world.rules.append(Rule("inspect", "net", after=lambda: lab.world.add(late)))
    report = await lab.sweep()
    assert outcomes(report) == {"host": "deleted", "net": "skipped"}
    assert result(report, "net").detail == "late joined its project"


async def test_what_joins_during_a_stop_keeps_what_has_stopped() -> None:
    lab = Lab(Held(running("host"), stop_seconds=5))
    lab.world.rules.append(Rule("stop", "host", after=lambda: lab.world.add(guest("host"))))
    report = await lab.sweep()
    assert outcomes(report) == {"host": "skipped"}
    assert not lab.world.made("delete")


async def test_what_joins_while_a_deletion_waits_keeps_it() -> None:
    lab = Lab(stopped("host"))
    joins = lambda: lab.world.add(guest("host"))  # noqa: E731
    lab.world.rules.append(Rule("delete", "host", calls={1}, error=ServerError("500"), before=joins))
    report = await lab.sweep()
    assert outcomes(report) == {"host": "skipped"}
    assert lab.left() == {"host", "guest"}


async def test_a_dependent_that_goes_in_the_same_sweep_goes_first() -> None:
    lab = Lab(stopped("host"), Held(stopped("rider"), links=frozenset({"id-host"}), removal_seconds=3))
    assert await lab.outcomes() == {"host": "deleted", "rider": "deleted"}
    assert [r.name for r, _ in lab.world.removals] == ["rider", "host"]


async def test_a_dependent_that_was_to_go_and_stays_keeps_it() -> None:
    lab = Lab(stopped("host"), Held(stopped("rider"), links=frozenset({"id-host"})))
    lab.world.rules.append(Rule("inspect", "rider", calls={1}, after=lambda: lab.world.start("rider")))
    report = await lab.sweep()
    assert outcomes(report) == {"host": "skipped", "rider": "skipped"}
    assert lab.left() == {"host", "rider"}


async def test_within_a_project_the_dependent_goes_first_and_keeps_the_other_when_it_fails() -> None:
    rider = Held(stopped("rider", group="p"), links=frozenset({"id-host"}))
    lab = Lab(stopped("host", group="p"), rider)
    lab.world.rules.append(Rule("delete", "rider", error=DeniedError("403")))
    report = await lab.sweep()
    assert outcomes(report) == {"host": "skipped", "rider": "failed"}
    assert lab.left() == {"host", "rider"}


async def test_two_that_depend_on_each_other_go_together() -> None:
    a, b = (Held(stopped(x), links=frozenset({f"id-{y}"})) for x, y in ("ab", "ba"))
    lab = Lab(a, b)
    assert set((await lab.outcomes()).values()) == {"deleted"}


async def test_a_network_that_a_never_started_container_is_to_join_is_kept() -> None:
    """The engine itself would delete it, and the container could never start."""
    lab = Lab(stopped("a", group="p"), network("net", "p"))
    never: dict[str, Any] = {"raw_state": "created", "started_at": None, "stopped_at": None, "image": FOREIGN}
    waits = stopped("waits", uses=frozenset({"id-net"}), **never)
    lab.world.rules.append(Rule("delete", "a", after=lambda: lab.world.add(waits)))
    report = await lab.sweep()
    assert outcomes(report) == {"a": "deleted", "net": "skipped"}
    assert "waits, which is kept, uses it" in result(report, "net").detail


async def test_what_is_connected_to_another_network_meanwhile_is_left() -> None:
    lab = Lab(running("it"))

    def connect() -> None:
        lab.world.change("it", lambda r: replace(r, uses=r.uses | {"id-new"}))

    lab.world.rules.append(Rule("inspect", "it", calls={1}, after=connect))
    report = await lab.sweep()
    assert outcomes(report) == {"it": "skipped"}
    assert "connected to something else" in result(report, "it").detail


BROKEN: dict[str, tuple[Resource, set[str]]] = {
    "ended": (stopped("odd", image=FOREIGN), set()),
    "alive": (running("odd", hours=1, image=FOREIGN), {"runs"}),
    "about to start": (stopped("odd", raw_state="created", started_at=None, stopped_at=None, image=FOREIGN), {"runs"}),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_one_that_cannot_be_inspected_keeps_only_what_it_may_live_in(what: str) -> None:
    odd, kept = BROKEN[what]
    lab = Lab(stopped("ended"), running("runs"), odd)
    lab.world.rules.append(Rule("inspect", "odd", error=DeniedError("403")))
    report = await lab.sweep()
    assert set(outcomes(report)) == {"ended", "runs"} - kept
    assert lab.left() == {"odd", *kept}
    assert bool(kept) == any("odd could not be inspected" in warning for warning in report.endpoints[0].warnings)


@pytest.mark.parametrize("going", [1, 60])
async def test_the_number_of_requests_does_not_grow_with_what_lives_for_each_deletion(going: int) -> None:
    neighbours = [running(f"n{i}", hours=1, image=FOREIGN) for i in range(200)]
    lab = Lab(*neighbours, *(stopped(f"s{i}") for i in range(going)))
    report = await lab.sweep()
    assert report.count(Outcome.DELETED) == going
    assert len(lab.world.made("inspect")) == 200 + 2 * going  # each neighbour once in the sweep
    assert len(lab.world.made("dependents")) <= 2 + going // 10

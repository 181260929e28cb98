"""What an owner label proves, by what this host says of the process: a table of outcomes."""

from datetime import timedelta

import pytest

from reaper.core.owner_process import Fate, OwnerLabel, OwnerRule
from reaper.sweep.processes import Presence, Seen, began, judged, labelled
from tests.owners.machine import ABSENT, ELSEWHERE, HERE, INSIDE, LAST_BOOT, FakeMachine, label

ALIVE = Seen(Presence.HERE, 1000)
ZOMBIE = Seen(Presence.HERE, 1000, ended=True)
REUSED = Seen(Presence.HERE, 90_000)
HIDDEN = Seen(Presence.HIDDEN, why="/proc hides it (hidepid)")

OUTCOMES = {
    "alive": (label(), ALIVE, Fate.ALIVE, "runs"),
    "dead": (label(), ABSENT, Fate.DEAD, "no such process"),
    "a zombie": (label(), ZOMBIE, Fate.DEAD, "zombie"),
    "its id used by another process": (label(), REUSED, Fate.DEAD, "another process"),
    "hidden": (label(), HIDDEN, Fate.UNPROVEN, "hidepid"),
    "this host was restarted": (label(boot=LAST_BOOT), ALIVE, Fate.DEAD, "restarted"),
    "another host": (label(host=ELSEWHERE, boot=LAST_BOOT), ABSENT, Fate.UNPROVEN, "another host"),
    "another namespace of this boot": (label(host=ELSEWHERE), ABSENT, Fate.UNPROVEN, "another PID namespace"),
    "alive in a container": (label(host=INSIDE, pid=7), ABSENT, Fate.ALIVE, "runs"),
    "dead in a container": (label(host=INSIDE, pid=8), ABSENT, Fate.DEAD, "no such process"),
    "a container of the last boot": (label(host=INSIDE, pid=7, boot=LAST_BOOT), ABSENT, Fate.UNPROVEN, "another host"),
}


def machine_with(seen: Seen) -> FakeMachine:
    return FakeMachine({} if seen is ABSENT else {4711: seen}, {INSIDE: {7: ALIVE}})


@pytest.mark.parametrize(("text", "seen", "fate", "why"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_an_owner_is_dead_only_where_this_host_proves_it(text: str, seen: Seen, fate: Fate, why: str) -> None:
    owner = judged(text, machine_with(seen), knows_boot=True)
    assert owner.fate is fate, str(owner)
    assert why in str(owner)


MALFORMED = (
    "",
    "4711",
    label() + "/",
    label().replace(HERE, ""),
    label().replace(HERE, HERE.upper()),
    label(pid=0),
    label(pid=-4711),
    label().replace("4711", "04711"),
    label().replace("4711", "\u0664\u0667\u0661\u0661"),
    label().replace("1000", "10.5"),
    label().replace("1000", ""),
    f" {label()}",
    f"{label()}\n",
    label().replace("/", "\\"),
)


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_malformed_proves_nothing(text: str) -> None:
    owner = judged(text, FakeMachine(), knows_boot=True)
    assert owner.fate is Fate.UNPROVEN
    assert "malformed" in str(owner)


def test_the_label_is_read_as_it_is_written() -> None:
    assert OwnerLabel.parse(label()) == OwnerLabel(HERE, FakeMachine().boot, 4711, 1000)
    assert str(OwnerLabel.parse(label())) == label()


def test_a_host_without_an_id_proves_nothing() -> None:
    for machine in (FakeMachine(id=""), FakeMachine(boot="")):
        assert judged(label(), machine, knows_boot=True).fate is Fate.UNPROVEN


def test_from_inside_of_a_container_the_processes_of_its_host_are_not_seen() -> None:
    inside = FakeMachine({4711: REUSED}, id=INSIDE, whole_id=HERE)
    assert judged(label(), inside, knows_boot=True).fate is Fate.UNPROVEN


def test_a_boot_that_is_not_known_here_may_be_that_of_a_clone() -> None:
    owner = judged(label(boot=LAST_BOOT), FakeMachine(), knows_boot=False)
    assert owner.fate is Fate.UNPROVEN
    assert "cloned" in str(owner)


def test_the_proof_shows_since_when_the_owner_is_dead_at_the_latest() -> None:
    machine = machine_with(REUSED)
    assert judged(label(), machine, knows_boot=True).since == began(machine, 90_000)
    assert began(machine, 90_000) == machine.booted_at() + timedelta(seconds=900)
    assert judged(label(boot=LAST_BOOT), machine, knows_boot=True).since == machine.booted_at()
    assert judged(label(), FakeMachine(), knows_boot=True).since is None


RULE = OwnerRule(name="acme", pid_label="acme.pid", host_label="acme.host", start_label="acme.start")
LABELLED = {
    "alive": (RULE, ("4711", "gpu-1", "1000"), Fate.ALIVE, "runs"),
    "used again": (RULE, ("4711", "gpu-1", "999"), Fate.DEAD, "another process"),
    "gone": (RULE, ("4712", "gpu-1", "1000"), Fate.DEAD, "no such process"),
    "by the machine's id": (RULE, ("4712", HERE, "1000"), Fate.DEAD, "no such process"),
    "another host": (RULE, ("4712", "gpu-2", "1000"), Fate.UNPROVEN, "another host"),
    "no host": (RULE, ("4712", "?", "1000"), Fate.UNPROVEN, "another host"),
    "no start": (RULE, ("4711", "gpu-1", "?"), Fate.UNPROVEN, "may be another one"),
    "a start in seconds since 1970": (RULE, ("4711", "gpu-1", "1764389000"), Fate.UNPROVEN, "may be another one"),
    "a start as text": (RULE, ("4711", "gpu-1", "2026-11-21T06:00:00Z"), Fate.UNPROVEN, "may be another one"),
    "gone, no start": (RULE, ("4712", "gpu-1", "?"), Fate.DEAD, "no such process"),
    "no number": (RULE, ("abc", "gpu-1", "1000"), Fate.UNPROVEN, "malformed"),
    "no process": (RULE, ("0", "gpu-1", "1000"), Fate.UNPROVEN, "malformed"),
}


@pytest.mark.parametrize(("rule", "values", "fate", "why"), LABELLED.values(), ids=LABELLED.keys())
def test_the_labels_of_a_runner_prove_the_same(rule: OwnerRule, values: tuple[str, ...], fate: Fate, why: str) -> None:
    owner = labelled(rule, ("acme", *values), machine_with(ALIVE), None)
    assert owner.fate is fate, str(owner)
    assert why in str(owner)


def test_labels_without_a_host_prove_nothing_of_an_engine_that_others_use() -> None:
    owner = labelled(RULE, ("acme", "4712", "gpu-1", "1000"), FakeMachine(), "processes of other hosts may use it")
    assert owner.fate is Fate.UNPROVEN

"""The property is no ornament: with a rule of the core switched off, one at a time, it finds a world that shows it."""

import os
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path

import pytest

import reaper
from tests.promise.mutants import IN_TIME, MUTANTS, OF_PAIRS, OF_THE_HOST, RARE, Mutant

ROOT = Path(__file__).parents[2]
_IGNORED = frozenset({"simulator", "demo"})
# All of them take minutes: in every run a few that one of the first fifty worlds shows, all with ``make mutants``.
SOON = frozenset(
    {
        "what the scope does not match is not owned",
        "what is in use stays",
        "a label override that cannot be read keeps",
        "older_than is waited for",
        "a living lease keeps",
        "a group is one unit",
    }
)
# Of owners, which the worlds of processes of one host show; others need runners, a disk or time.
OWNERS = frozenset(
    {
        "an owner that lives is not dead",
        "all owners of a group must be dead",
        "an owner that the image names is none",
        "orphaned_for is waited for",
        "what was just started is no orphan",
        "a process of another host is not proven to be dead",
    }
)
# None of 4,000 worlds of all sorts shows these, and one of the first hundred or two of those whose policies stop.
STOPS = frozenset(
    {
        "what a stop destroys is not stopped",
        "no action is stronger than each member of the group allows",
        "a project that is only stopped keeps what belongs to it",
        "what is only stopped keeps what it uses",
    }
)
# These show in time only, or by features of which the worlds have one at a time: tests of the very case notice them.
BY_TESTS = {
    "what has changed since it was listed stays": "tests/sweep/test_outcomes.py",
    "what is to be kept by now stays": "tests/sweep/test_changes.py",
    "a listing that is none ends the sweep": "tests/providers/test_leased_rows.py",
    "a heartbeat keeps a lease alive": "tests/leases/test_leasebook.py",
    "a deletion that may pass is tried again": "tests/sweep/test_outcomes.py",
    "a runner that may have made it keeps it": "tests/sweep/test_owners.py",
    "a runner keeps what an earlier one has made and it may have taken over": "tests/owners/test_orphans.py",
    "a quota does no more than its own time lets it": "tests/core/test_quota.py",
    "what a cap holds back is asked for what it is linked to": "tests/daytona/test_groups.py",
    "an order to recover what has failed makes it younger": "tests/daytona/test_rules.py",
    "a 404 alone is not the end of what was deleted": "tests/daytona/test_deletion.py",
    "what a cap holds back keeps what it uses": "tests/sweep/test_limits.py",
    "of a living project only a policy for one-off containers takes one": "tests/core/test_kinds.py",
    "the label of two projects of one name claims neither": "tests/core/test_identity.py",
    "what came back is no leftover by a sweep that did not list it": "tests/sweep/test_kinds.py",
    "the network of what a lease has left counts for leases": "tests/sweep/test_limits.py",
    "a quota takes along what goes with the project": "tests/sweep/test_kinds.py",
    "what goes with its project is looked at again by the policy that takes it along": "tests/sweep/test_kinds.py",
    "what a sweep does not list is looked at for its use all the same": "tests/sweep/test_kinds.py",
    "what stays of a project that was to go is no leftover when a person removes it": "tests/sweep/test_kinds.py",
    "an image that is used by its digest is used": "tests/sweep/test_kinds.py",
    "only the endpoint that was recorded has the container of a lease": "tests/core/test_made.py",
    "the record of another container proves nothing": "tests/core/test_made.py",
    "labels are remembered of the engine that had the container alone": "tests/providers/test_own_labels.py",
    "labels are remembered of a container with these labels alone": "tests/providers/test_own_labels.py",
    "a guess at whose labels they are is not remembered": "tests/providers/test_own_labels.py",
    "a mounted image may have lost its tag": "tests/providers/test_mounted_images.py",
    "a part of a manifest list stays": "tests/providers/test_podman_images.py",
    "an answer about another container is no record": "tests/providers/test_docker_made.py",
    "an image that is pulled again is young": "tests/sweep/test_kinds.py",
    "an image that was built again since is not its project's": "tests/sweep/test_kinds.py",
    "an image that a cache gave once more since its project's containers ended stays": "tests/sweep/test_kinds.py",
    "an image that was built again when its project had gone is no leftover": "tests/sweep/test_kinds.py",
    "what was renamed is owned by its old name no more": "tests/sweep/test_memory.py",
    "nothing goes for a disk that cannot be measured any more": "tests/sweep/test_pressure.py",
    "a link at a network means whatever has the name now": "tests/providers/test_docker_dependents.py",
    "a link may come with a new connection to the same network": "tests/providers/test_docker_dependents.py",
    "what a lease has left is kept by a volume without a label that lies on it": "tests/providers/test_leased_rows.py",
    "a network is looked at once more before its deletion is tried again": "tests/sweep/test_kinds.py",
    "a use of what lies on something is a use of that": "tests/sweep/test_kinds.py",
    "a volume waits for the one that lies on it": "tests/sweep/test_kinds.py",
    "a volume of no project keeps what it lies on": "tests/sweep/test_kinds.py",
    "what goes with its project is no leftover before that is gone": "tests/sweep/test_kinds.py",
    "the cap of leases keeps no policy's sweep from learning": "tests/sweep/test_kinds.py",
    "a lease that another process watches has not ended": "tests/leases/test_leaseapi.py",
    "of two processes that hold a lease by its name the last one gives it back": "tests/leases/test_local_socket.py",
    "of two blocks that hold a lease by its name the last one gives it back": "tests/library/test_holding.py",
    "a label that is no session's own is claimed from the line on": "tests/ryuk/test_server.py",
    "a claim of a run ends with its command": "tests/running/test_orders.py",
    "a lease that was ended takes nothing that was made later": "tests/leases/test_ending.py",
    "a state directory that is emptied ends no living lease": "tests/leases/test_leasebook.py",
    "what another host has seen of its processes proves nothing here": "tests/sweep/test_owners.py",
    "a holder that is stopped is waited for": "tests/leases/test_leasebook.py",
    "a bug of the watch ends no lease that a connection holds": "tests/service/test_leasing.py",
    "what another client changes is no deletion under way": "tests/daytona/test_deletion.py",
    "what has failed and is written to stays": "tests/daytona/test_changes.py",
    "what was stopped again since it was listed stays": "tests/daytona/test_changes.py",
    "an empty page is no end of the listing": "tests/providers/test_daytona_errors.py",
    "an image that a container has mounted is used": "tests/providers/test_mounted_images.py",
    "an engine with live-restore may have been started since": "tests/providers/test_docker_use_record.py",
    "a label of an anonymous volume may keep its container": "tests/providers/test_docker_rows.py",
    "a link at a network is one": "tests/providers/test_docker_rows.py",
    "the end of a run before is no stop of this one": "tests/core/test_time.py",
    "what is in a container's control group keeps it": "tests/providers/test_docker_rows.py",
    "an overlay over a volume's folder is a use of that": "tests/providers/test_docker_rows.py",
    "a mounted folder of an anonymous volume keeps who has the volume": "tests/providers/test_docker_rows.py",
    "a volume that is mounted from another one's folder is a use of that": "tests/providers/test_docker_dependents.py",
    "volumes that are new to a later listing are asked for": "tests/providers/test_docker_dependents.py",
    "any anonymous volume may be in use while it is not known which volumes lie on others": (
        "tests/providers/test_docker_dependents.py"
    ),
    "a label of an image to which nothing was added is that one's": "tests/core/test_kinds.py",
    "a stack's volume is a Swarm's": "tests/providers/test_leased_rows.py",
    "a member that changes before the last listing keeps the others": "tests/sweep/test_dependents.py",
    "a stream whose engine may have dropped events has a gap": "tests/providers/test_docker_use_record.py",
    "a stream that was interrupted for too long has a gap": "tests/providers/test_docker_use_record.py",
    "a stream whose engine's clock is set back has a gap": "tests/providers/test_docker_use_record.py",
    "a stream that has told nothing lately is not believed": "tests/providers/test_docker_use_record.py",
    "what was used before the record began is not known": "tests/providers/test_docker_use_record.py",
    "pressure takes no more than its turn, whatever a cap of leases holds back": "tests/sweep/test_pressure.py",
    "what runs although it was asked to stop is judged as it is now": "tests/sweep/test_actions.py",
    "what was made while a sweep waits is another run's": "tests/core/test_narrowing.py",
    "by a clock that was set back a lease claims nothing that is made after its end": "tests/leases/test_leasedb.py",
    "what another container has used is no leftover": "tests/sweep/test_kinds.py",
    "the last look is at the owners of the whole session": "tests/sweep/test_owners.py",
    "what has living forks gets no timer that would destroy it": "tests/daytona/test_safety_net.py",
    "a one-off container is one of its project when it is inspected": "tests/sweep/test_kinds.py",
    "no age counts the time in which its host slept": "tests/sweep/test_host_clock.py",
    "a project whose deletion was not answered has not gone": "tests/sweep/test_kinds.py",
    "what the index lacks keeps what it is linked to and its session": "tests/daytona/test_index.py",
    "what is new and the index lacks keeps what it is linked to": "tests/daytona/test_index.py",
    "what may have more forks than are listed stays": "tests/daytona/test_credentials.py",
    "what is being deleted keeps its session for an hour": "tests/daytona/test_groups.py",
    "what has living forks is not archived": "tests/daytona/test_actions.py",
}
OF_OWNERS = [mutant for mutant in OF_THE_HOST if mutant.rule in OWNERS]
TRIED = (
    (*MUTANTS, *RARE, *OF_OWNERS) if os.environ.get("REAPER_MUTANTS") == "all" else [m for m in MUTANTS if m.rule in SOON]
)
OF_TESTS = [mutant for mutant in (*IN_TIME, *OF_THE_HOST, *OF_PAIRS) if mutant.rule in BY_TESTS]
TRIED_BY_TESTS = OF_TESTS if os.environ.get("REAPER_MUTANTS") == "all" else OF_TESTS[1:2]


def mutate(mutant: Mutant, folder: Path) -> None:
    """Make a copy of the program in which the rule is off. The text that says it must be there, and once."""
    package = folder / "reaper"
    shutil.copytree(Path(reaper.__file__).parent, package, ignore=shutil.ignore_patterns("demo", "*.pyc.*"))
    files = (file for file in package.rglob("*.py") if not _IGNORED & set(file.parts))
    found = [file for file in files if mutant.text in file.read_text()]
    places = sum(file.read_text().count(mutant.text) for file in found)
    assert places == 1, f"{mutant.text!r} stands in {places} places, so that {mutant.rule!r} is not tried: mend the mutant"
    found[0].write_text(found[0].read_text().replace(mutant.text, mutant.instead))
    # The byte code of all the others stays: to compile them takes longer than to find the world.
    Path(cache_from_source(found[0])).unlink(missing_ok=True)


def _worlds(mutant: Mutant) -> list[str]:
    return ["owners"] if mutant in OF_OWNERS else ["stops"] if mutant.rule in STOPS else []


@pytest.mark.parametrize("mutant", TRIED, ids=lambda mutant: mutant.rule)
def test_a_rule_that_is_off_is_noticed(mutant: Mutant, tmp_path: Path) -> None:
    mutate(mutant, tmp_path)
    command = [sys.executable, "-m", "tests.promise.mutated", str(tmp_path), *_worlds(mutant)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("caught by world "), done.stdout + done.stderr


@pytest.mark.parametrize("mutant", TRIED_BY_TESTS, ids=lambda mutant: mutant.rule)
def test_a_test_notices_a_rule_that_is_off(mutant: Mutant, tmp_path: Path) -> None:
    mutate(mutant, tmp_path)
    module = BY_TESTS[mutant.rule]
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import reaper, pytest\n"
        f"sys.exit(pytest.main(['-qx', '-n0', '-pno:cacheprovider', {module!r}]))"
    )
    real, off = (
        subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        for text in (code.replace(str(tmp_path), str(ROOT)), code)
    )
    assert (real.returncode, off.returncode) == (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), real.stdout + off.stdout


@pytest.mark.parametrize("mutant", [*MUTANTS, *RARE, *IN_TIME, *OF_THE_HOST, *OF_PAIRS], ids=lambda mutant: mutant.rule)
def test_the_text_of_a_rule_is_where_its_mutant_changes_it(mutant: Mutant) -> None:
    assert program_text().count(mutant.text) == 1, f"mend the mutant: {mutant.text!r}"


@cache
def program_text() -> str:
    files = sorted(Path(reaper.__file__).parent.rglob("*.py"))
    return "\0".join(file.read_text() for file in files if not _IGNORED & set(file.parts))


def test_there_are_twenty_and_more() -> None:
    assert len({mutant.rule for mutant in MUTANTS}) == len(MUTANTS) >= 20
    assert {mutant.rule for mutant in TRIED} >= SOON
    assert len(OF_OWNERS) == len(OWNERS)
    assert len(OF_TESTS) == len(BY_TESTS)
    assert {mutant.rule for mutant in RARE} >= STOPS

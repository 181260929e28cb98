"""A project's name is not its identity: two of one name from different folders are two."""

from dataclasses import replace

import pytest

from reaper.core.decide import decide, explain
from reaper.core.identity import Groups, place, runner_sign, same_group
from reaper.core.lease import Claim, Ending, Lease
from reaper.core.model import Decision, Kind, Reason, Resource
from reaper.core.scope import Scope, Selector
from tests.core import make
from tests.core.make import EVERYTHING, FOREIGN, HARBOR_FILE, NOW, OLD_24H, SANDBOX, ago, rules

OLD_SANDBOXES = replace(OLD_24H, name="old-sandboxes", kinds=frozenset({Kind.SANDBOX}))
DIR, FILES = "com.docker.compose.project.working_dir", "com.docker.compose.project.config_files"


def member(id_: str, folder: str | None, image: str = "postgres:16", hours: float = 30, **fields: object) -> Resource:
    labels = {} if folder is None else {DIR: folder}
    made = replace(FOREIGN, id=id_, name=f"chess-{id_}", created_at=ago(hours=hours), started_at=ago(hours=hours))
    return replace(made, labels=labels, image=image, group="chess", **fields)  # type: ignore[arg-type]


CLIENT = member("client", "/trials/a/chess", "tb__chess__client")
SIDECAR = member("side", "/trials/a/chess")
STRANGER = member("db", "/home/web/chess", hours=288, restart_policy="always")
NETWORK = replace(make.NETWORK, id="net", created_at=ago(hours=30))


def judged(*resources: Resource, leases: tuple[Lease, ...] = (), scope: Scope | None = None) -> dict[str, Decision]:
    by = replace(rules(OLD_24H, OLD_SANDBOXES), scope=scope or Scope())
    return {d.resource.id: d for d in decide(resources, by, leases, NOW)}


def test_a_sign_on_one_project_owns_nothing_of_another_of_its_name() -> None:
    found = judged(CLIENT, SIDECAR, STRANGER)
    assert (found["client"].reap, found["side"].reap) == (True, True)
    assert found["db"].reason is Reason.NOT_OWNED
    assert "another project of the name chess is owned" in found["db"].sentence


def test_it_does_without_the_folder_s_label_too() -> None:
    assert judged(CLIENT, member("db", None))["db"].reason is Reason.NOT_OWNED
    assert judged(member("client", None, "tb__chess__client"), member("side", None))["side"].reap


def test_one_that_does_not_say_its_folder_keeps_each_project_of_its_name_and_joins_it() -> None:
    other = member("other", None, "tb__chess__client")
    for found in (judged(CLIENT, SIDECAR, member("db", None)), judged(CLIENT, SIDECAR, other)):
        assert {found["client"].reason, found["side"].reason} == {Reason.GROUP_KEPT}
        assert "does not say in which folder its project chess is" in found["side"].sentence
    assert same_group(CLIENT, other)
    assert same_group(other, CLIENT)
    assert not same_group(CLIENT, STRANGER)


def test_a_network_that_does_not_say_whose_it_is_is_kept() -> None:
    found = judged(CLIENT, STRANGER, NETWORK)
    assert found["client"].reap
    remembered = replace(NETWORK, remembered=None)
    assert found["net"].reason in (Reason.GROUP_UNCLEAR, Reason.NOT_OWNED)
    everything = judged(CLIENT, replace(STRANGER, restart_policy="no"), remembered, scope=Scope(everything=True))
    assert everything["net"].reason is Reason.GROUP_UNCLEAR
    assert "(/home/web/chess and /trials/a/chess)" in everything["net"].sentence
    by = replace(rules(OLD_24H), scope=Scope(everything=True))
    findings = explain(NETWORK, [CLIENT, STRANGER, NETWORK], by, [], NOW)
    assert any(f.reason is Reason.GROUP_UNCLEAR for f in findings)


def test_a_network_goes_with_the_only_project_of_its_name() -> None:
    found = judged(CLIENT, SIDECAR, NETWORK)
    assert all(decision.reap for decision in found.values())


def test_a_network_that_is_protected_keeps_each_project_that_it_may_be_of() -> None:
    keep = replace(NETWORK, labels={"reaper.keep": ""})
    found = judged(CLIENT, replace(STRANGER, restart_policy="no"), keep, scope=Scope(everything=True))
    assert {d.reason for d in found.values()} == {Reason.PROTECTED, Reason.GROUP_KEPT}


def test_an_owned_project_whose_folder_has_moved_is_not_torn_apart() -> None:
    """Compose takes what runs for its own by the name, and leaves what has not changed under the old folder."""
    scope = Scope(selector=Selector(labels=("team",)))
    old = member("db", "/old/chess", hours=30)
    young = member("web", "/new/chess", hours=1)
    mine = [replace(r, labels={**(r.labels or {}), "team": "rl"}) for r in (old, young)]
    found = judged(*mine, scope=scope)
    assert found["web"].reason is Reason.TOO_YOUNG
    assert found["db"].reason is Reason.GROUP_KEPT
    assert "in another folder, which may be the same project" in found["db"].sentence


def test_a_runner_s_configuration_files_tell_its_project_from_another_in_the_same_folder() -> None:
    harbor = replace(CLIENT, id="main", image="chess-main", labels={DIR: "/t/chess", FILES: HARBOR_FILE})
    other = replace(STRANGER, labels={DIR: "/t/chess", FILES: "/t/chess/compose.yaml"})
    found = judged(harbor, other)
    assert found["main"].reap
    assert found["db"].reason is Reason.NOT_OWNED


@pytest.mark.parametrize(
    "files",
    [
        r"C:\Users\ci\venv\Lib\site-packages\harbor\environments\docker\docker-compose-build.yaml",
        r"C:\tmp\resources.json,C:\venv\harbor\environments\docker\docker-compose-prebuilt.yaml,C:\task\compose.yaml",
        HARBOR_FILE,
        f"/tmp/x.json, {HARBOR_FILE}",
    ],
)
def test_harbor_is_recognised_on_every_system(files: str) -> None:
    assert runner_sign(files) is not None
    found = judged(replace(STRANGER, labels={DIR: "C:\\task", FILES: files}, restart_policy="no"))
    assert found["db"].reap
    assert found["db"].owner is not None
    assert found["db"].owner.startswith("preset harbor, config file *")


@pytest.mark.parametrize(
    "files", ["", "docker-compose-build.yaml", r"C:\harbor\docker-compose-build.yaml", f"{HARBOR_FILE}.bak"]
)
def test_what_is_no_file_of_harbor_s(files: str) -> None:
    assert runner_sign(files) is None


# Leases


def lease(**fields: object) -> Lease:
    ended = Lease("7f3a", "pid 1", claims=(Claim(projects=("chess",)),), since=ago(hours=400), ending=Ending(NOW, "killed"))
    return replace(ended, **fields)  # type: ignore[arg-type]


BY_NAME = {"project": Claim(projects=("chess",)), "label": Claim(Selector(labels=("com.docker.compose.project=chess",)))}


@pytest.mark.parametrize("claim", BY_NAME.values(), ids=BY_NAME)
def test_the_name_of_two_projects_claims_neither(claim: Claim) -> None:
    named = {"com.docker.compose.project": "chess"}
    made = (replace(STRANGER, restart_policy="no"), replace(SIDECAR, image="redis:7"), NETWORK)
    young, other, network = (replace(one, labels={**(one.labels or {}), **named}) for one in made)
    claiming = lease(claims=(claim,))
    assert judged(young, leases=(claiming,))["db"].reason is Reason.LEASE_ENDED
    found = judged(young, other, network, leases=(claiming,))
    assert {d.reason for d in found.values()} == {Reason.NOT_OWNED}
    alive = judged(young, other, leases=(replace(claiming, ending=None),))
    assert {d.reason for d in alive.values()} == {Reason.LEASED}


def test_what_carries_the_lease_s_own_label_is_its_own_whatever_its_name() -> None:
    mine = replace(SIDECAR, labels={**(SIDECAR.labels or {}), "reaper.lease": "7f3a"})
    found = judged(mine, STRANGER, leases=(lease(claims=()),))
    assert found["side"].reason is Reason.LEASE_ENDED
    assert found["db"].reason is Reason.NOT_OWNED


# Sessions


def sandbox(id_: str, instance: str | None, hours: float) -> Resource:
    labels = {"harbor.managed": "true", **({"harbor.instance_id": instance} if instance else {})}
    made = ago(hours=hours)
    return replace(SANDBOX, id=id_, name=id_, labels=labels, group="s1", created_at=made, last_activity_at=made)


@pytest.mark.parametrize("instances", [("i-1",), ("i-1", "i-2")])
def test_a_sandbox_that_does_not_say_its_instance_keeps_each_session_of_its_id(instances: tuple[str, ...]) -> None:
    others = [sandbox(instance, instance, 30) for instance in instances]
    silent = sandbox("silent", None, 30)
    assert all(decision.reap for decision in judged(*others).values())
    assert all(decision.reap for decision in judged(silent, sandbox("another", None, 30)).values())
    for one in (silent, replace(silent, labels={}), sandbox("young", None, 1)):  # owned or not
        found = judged(*others, one)
        assert {found[instance].reason for instance in instances} == {Reason.GROUP_KEPT}
        assert not found[one.id].reap
        assert f"{one.name} does not say in which instance its session s1 is" in found["i-1"].sentence


def test_two_sessions_of_one_id_are_distinguished_by_their_instance() -> None:
    one, other = sandbox("a", "i-1", 30), sandbox("b", "i-2", 30)
    assert (place(one), place(other)) == ("i-1", "i-2")
    assert not same_group(one, other)
    assert same_group(one, sandbox("c", "i-1", 1))
    silent = sandbox("d", None, 30)
    assert same_group(one, silent)
    assert same_group(silent, one)
    one, other = (replace(box, labels={**(box.labels or {}), "harbor.session_id": "s1"}) for box in (one, other))
    for claim in (Claim(projects=("s1",)), Claim(Selector(labels=("harbor.session_id=s1",)))):
        claiming = lease(claims=(claim,))
        assert not any(d.reason is Reason.LEASE_ENDED for d in judged(one, other, leases=(claiming,)).values())
        assert judged(one, leases=(claiming,))["a"].reason is Reason.LEASE_ENDED


# Keys


def test_what_says_nothing_of_its_folder_is_of_the_only_group_there_is() -> None:
    groups = Groups([CLIENT, SIDECAR, NETWORK])
    assert groups.key(CLIENT) == groups.key(SIDECAR) == groups.key(NETWORK)
    two = Groups([CLIENT, STRANGER, NETWORK])
    assert len({two.key(r) for r in (CLIENT, STRANGER, NETWORK)}) == 3
    assert two.unclear(NETWORK)
    assert not two.unclear(CLIENT)
    assert Groups([NETWORK]).key(NETWORK) is not None
    assert Groups([]).key(replace(CLIENT, group=None)) is None


def test_everything_of_two_projects_that_is_garbage_goes() -> None:
    by = replace(rules(EVERYTHING), scope=Scope(everything=True))
    found = {d.resource.id: d for d in decide([CLIENT, replace(STRANGER, restart_policy="no"), NETWORK], by, (), NOW)}
    assert (found["client"].reap, found["db"].reap) == (True, True)
    assert found["net"].reason is Reason.GROUP_UNCLEAR

"""What the engine's JSON is read as, odd rows included."""

from datetime import UTC, datetime
from typing import Any

import pytest

from reaper.core.model import Kind, State
from reaper.providers.base import Inventory
from reaper.providers.docker.containers import inspected_container, listed_container, moment, network
from reaper.providers.docker.links import Directory, configured_links
from reaper.providers.docker.volumes_images import image

ID = "0123456789abcdef" * 4
LISTED: dict[str, Any] = {
    "Id": ID,
    "Names": ["/other/alias", "/chess-1"],
    "Image": "tb__chess__client",
    "Created": 1795252002,
    "Labels": {"com.docker.compose.project": "chess", "com.docker.compose.container-number": "1"},
    "State": "exited",
    "NetworkSettings": {"Networks": {"chess_default": {"NetworkID": "net1"}}},
    "HostConfig": {"NetworkMode": "container:db"},
}
INSPECTED: dict[str, Any] = {
    "Id": ID,
    "Name": "/chess-1",
    "Created": "2026-11-21T07:13:26.362136404Z",
    "State": {"Status": "exited", "StartedAt": "2026-11-21T07:13:27.1Z", "FinishedAt": "2026-11-21T08:00:00.000000001Z"},
    "Config": {"Image": "tb__chess__client", "Labels": {}},
    "HostConfig": {"RestartPolicy": {"Name": "", "MaximumRetryCount": 0}, "NetworkMode": "default"},
}


def listed(**changes: Any) -> Any:
    return listed_container({**LISTED, **changes}, "local")


def inspected(**changes: Any) -> Any:
    return inspected_container({**INSPECTED, **changes}, "local")


def test_a_listed_container() -> None:
    found = listed()
    assert (found.id, found.name, found.group, found.image) == (ID, "chess-1", "chess", "tb__chess__client")
    assert (found.state, found.inspected, found.image_unresolved) == (State.STOPPED, False, False)
    assert found.created_at == datetime(2026, 11, 21, 9, 6, 42, tzinfo=UTC)
    assert found.uses == {"net1", "db"}


def test_a_container_uses_its_volumes_and_its_image() -> None:
    mounts = [{"Type": "volume", "Name": "data"}, {"Type": "bind", "Name": "x"}, {"Type": "volume"}, "odd"]
    image = "sha256:" + "ab" * 32
    assert listed(Mounts=mounts, ImageID=image).uses == {"net1", "db", "data", image}
    assert listed(Mounts={"odd": 1}, ImageID=5).uses == {"net1", "db"}
    assert inspected(Mounts=mounts, Image=image).uses == {"data", image}


def test_a_container_uses_a_volume_whose_own_folder_it_has_mounted() -> None:
    """As backups do: the engine would delete the volume all the same, with what the container reads and writes."""
    sources = (
        "/var/lib/docker/volumes/data/_data",
        "/srv/docker/volumes/other/_data/sub",
        "/srv/docker/volumes/whole",
        "/home/me/volumes/mine/data",
        "/var/lib/docker/volumes",
        "/data",
    )
    mounts = [{"Type": "bind", "Source": source, "Destination": "/d"} for source in sources]
    uses = listed_container({**LISTED, "Mounts": mounts}, "local").uses
    assert uses - listed_container({**LISTED, "Mounts": []}, "local").uses == {"data", "other", "whole"}


def test_a_link_at_a_network_is_one() -> None:
    row = {"NetworkSettings": {"Networks": {"shared": {"NetworkID": "n1", "Links": ["/db:redis", "cache"]}, "other": None}}}
    assert configured_links(row).containers == {"db", "cache"}


def test_the_folder_of_an_anonymous_volume_is_a_use_of_the_container_that_has_it() -> None:
    """The engine deletes them together."""
    anonymous = "5" * 64
    rows = [
        {**LISTED, "Id": "a" * 64, "Mounts": [{"Type": "volume", "Name": anonymous, "Source": ""}]},
        {**LISTED, "Id": "b" * 64, "Mounts": [{"Type": "volume", "Name": "named", "Source": ""}]},
        *(
            {**LISTED, "Id": id_ * 64, "Mounts": [{"Type": "bind", "Source": f"/var/lib/docker/volumes/{name}/_data"}]}
            for id_, name in (("c", anonymous), ("d", "named"))
        ),
    ]
    *_, of_anonymous, of_named = (listed_container(row, "local", Directory(rows)) for row in rows)
    assert "a" * 64 in of_anonymous.uses
    assert "b" * 64 not in of_named.uses


@pytest.mark.parametrize(
    "folder", ["/docker/{}", "/docker/{}/nested", "/libpod_parent/libpod-{}", "machine.slice/docker-{}.scope"]
)
def test_one_in_the_control_group_of_another_depends_on_it(folder: str) -> None:
    assert configured_links({"HostConfig": {"CgroupParent": folder.format("a" * 64)}}).containers == {"a" * 64}
    assert configured_links({"HostConfig": {"CgroupParent": "/docker"}}).containers == frozenset()


def test_what_lies_below_an_overlay_of_podman_is_used() -> None:
    """`-v FOLDER:/path:O`: the mount itself has another source, and a listing does not have the option at all."""
    volume, folder = "5" * 64, "/var/lib/containers/storage/volumes"
    holder = {**LISTED, "Id": "a" * 64, "Mounts": [{"Type": "volume", "Name": volume, "Source": ""}]}
    option = f"/merge:/x:lowerdir={folder}/{volume}/_data/in,upperdir=/u,private"
    host = {**INSPECTED["HostConfig"], "Binds": [option, "/merge:/y:lowerdir=/home/me/src,upperdir=/v", "db:/z"]}
    found = inspected_container({**INSPECTED, "HostConfig": host}, "local", Directory([holder]))
    assert found.uses - inspected_container(INSPECTED, "local").uses == {volume, "a" * 64}


def test_a_container_that_is_named_is_used_by_its_id_and_a_volume_of_that_name_by_its_name() -> None:
    joined = {**LISTED, "Id": "a" * 64, "Mounts": [{"Type": "volume", "Name": "db"}]}
    database = {**LISTED, "Id": "d" * 64, "Names": ["/db"], "HostConfig": {}, "Mounts": joined["Mounts"]}
    rows = [LISTED, joined, database]
    found = [listed_container(row, "local", Directory(rows)) for row in rows]
    assert [one.uses for one in found] == [{"net1", "d" * 64}, {"net1", "d" * 64, "db"}, {"net1", "db"}]
    assert listed_container(LISTED, "local", Directory(rows[:1])).uses == {"net1", "db"}


@pytest.mark.parametrize("image", ["sha256:" + "a" * 64, "a" * 64, "865c469b7151", None])
def test_an_image_that_has_lost_its_name_is_unresolved(image: str | None) -> None:
    assert listed(Image=image).image_unresolved


@pytest.mark.parametrize("labels", [None, ["a"], {"a": 1}])
def test_odd_labels_are_missing_labels(labels: object) -> None:
    assert listed(Labels=labels).labels is None


@pytest.mark.parametrize("created", [None, 0])
def test_no_creation_time_is_a_missing_one(created: object) -> None:
    assert listed(Created=created).created_at is None
    assert listed(Created=created).unreadable is None


@pytest.mark.parametrize("created", [10**20, -(10**20), 10**11 * 9, "yesterday", True, 5.5, [1], {}])
def test_an_odd_creation_time_is_unreadable(created: object) -> None:
    assert listed(Created=created).created_at is None
    assert "is no time" in listed(Created=created).unreadable


@pytest.mark.parametrize("id_", [None, "", 7, ["x"], "\ud800"])
def test_a_row_without_id_is_unreadable_and_still_tells_its_project(id_: object) -> None:
    found = listed(Id=id_)
    assert (found.id, found.group, found.inspected) == ("", "chess", True)
    assert found.unreadable == "its row has no Id"
    assert not found.links_known
    assert not Inventory((listed(), found)).is_complete
    assert Inventory((listed(),)).is_complete
    assert not Inventory((listed(),), unreadable=1).is_complete


def test_half_of_a_pair_of_surrogates_is_no_text() -> None:
    assert listed(Labels={"a": "\ud800"}).labels is None
    assert listed(Names=["/\ud800"]).name == ID[:12]


UUID = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"Labels": {"com.docker.swarm.service.id": "x"}}, "a Swarm task"),
        ({"Labels": {"io.kubernetes.pod.name": "x"}}, "a Kubernetes pod's"),
        ({"Labels": {"io.x-k8s.kind.cluster": "kind"}}, "a Kubernetes node"),
        ({"Labels": {"created_by.minikube.sigs.k8s.io": "true"}}, "a Kubernetes node"),
        ({"Labels": {"app": "k3d", "k3d.cluster": "ci"}}, "a Kubernetes node"),
        ({"Labels": {"talos.owned": "true"}}, "a Kubernetes node"),
        ({"Labels": {"com.hashicorp.nomad.alloc_id": "x"}}, "a Nomad task"),
        ({"Labels": {"com.amazonaws.ecs.task-arn": "x"}}, "a task of Amazon ECS"),
        ({"Image": "amazon/amazon-ecs-agent:latest"}, "the agent of Amazon ECS"),
        ({"Labels": {"io.rancher.container.name": "x"}}, "a Rancher container"),
        ({"Labels": {"io.balena.supervised": "true"}}, "a service of balena"),
        ({"Labels": {"io.resin.supervised": "true"}}, "a service of balena"),
        ({"Labels": {"net.azure-devices.edge.owner": "x"}}, "a module of Azure IoT Edge"),
        ({"Labels": {"com.gitlab.gitlab-runner.managed": "true"}}, "a job of GitLab Runner"),
        ({"Labels": {"PODMAN_SYSTEMD_UNIT": "db.service"}}, "a container of the systemd unit db.service"),
        ({"Labels": {"PODMAN_SYSTEMD_UNIT": "podman-compose@chess.service"}}, None),
        ({"Names": [f"/mesos-{UUID}"]}, "a Mesos task"),
        ({"Names": [f"/mesos-{UUID}-S12.{UUID}"]}, "a Mesos task"),
        ({"Names": [f"/mesos-20150101-123456-16842879-5050-1234-S0.{UUID}.executor"]}, "a Mesos task"),
        ({"Names": ["/mesos-cluster-1-of-1-2026-11-21__06-30-00"]}, None),
        ({"Names": [f"/k8s_POD_kube-proxy-x7_kube-system_{UUID}_0"]}, "a Kubernetes pod's"),
        ({"Names": [f"/k8s_etcd_etcd-node_kube-system_{UUID.replace('-', '')}_12_5d1f0a3c"]}, "a Kubernetes pod's"),
        ({"Names": ["/k8s__a1b2c3d-main-1"]}, None),
        ({"Names": ["/k8s_deploy__a1b2c3d__env-main-1"]}, None),
        ({"Names": ["/k8s_deploy-1-of-1-2026-11-21__06-30-00"]}, None),
        ({"Image": "docker.io/moby/buildkit:v0.12"}, "a BuildKit builder"),
        ({"Labels": {"com.docker.desktop.extension": "true"}}, "a part of Docker Desktop"),
        ({"Labels": {"org.testcontainers.ryuk": "true"}}, "the reaper of Testcontainers"),
        ({"Names": ["/buildx_buildkit_default0"]}, "a BuildKit builder"),
        ({"Names": ["/194472dc1128-service"], "Image": "", "Labels": {}}, "the service container of podman kube play"),
        ({"Names": ["/chess-service"]}, None),
        ({"Image": "moby/buildkit:v0.12"}, "a BuildKit builder"),
        ({"Image": "earthly/buildkitd:v0.8.15"}, "a BuildKit builder"),
        ({"Image": "registry.dagger.io/engine:v0.19.8"}, "a BuildKit builder"),
        ({"Labels": {"desktop.docker.io/binds/0/Source": "/x"}}, None),  # on anybody's container under Docker Desktop
    ],
)
def test_system_containers(changes: dict[str, Any], what: str | None) -> None:
    assert listed(**changes).system_container == what


def test_an_inspected_container() -> None:
    found = inspected()
    assert found.restart_policy == "no"
    assert found.stopped_at == datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
    assert found.unreadable is None


def test_a_running_container_has_no_stop() -> None:
    state = {**INSPECTED["State"], "Status": "running"}
    assert inspected(State=state).stopped_at is None


@pytest.mark.parametrize(
    "changes",
    [
        {"Created": "soon"},
        {"Created": "2026-11-21T07:13:26"},
        {"HostConfig": {}},
        {"State": {"Status": "running", "StartedAt": "0001-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z"}},
        {"State": {**INSPECTED["State"], "FinishedAt": 5}},
    ],
)
def test_what_is_missing_or_odd_makes_it_unreadable(changes: dict[str, Any]) -> None:
    assert inspected(**changes).unreadable


def test_year_one_means_never() -> None:
    assert moment("0001-01-01T00:00:00Z") is None
    assert moment("2026-11-21T09:00:00+02:00") == datetime(2026, 11, 21, 7, 0, tzinfo=UTC)


def test_a_network_belongs_to_its_compose_project() -> None:
    row = {
        "Id": "n",
        "Name": "chess_default",
        "Created": "2026-11-21T07:13:26Z",
        "Labels": LISTED["Labels"],
        "Containers": {},
    }
    found = network(row, "local")
    assert found is not None
    assert (found.kind, found.group, found.state, found.system_container) == (Kind.NETWORK, "chess", State.STOPPED, None)
    attached = network({**row, "Containers": {"x": {}}}, "local")
    assert attached is not None
    assert attached.state is State.RUNNING
    swarm = network({**row, "Scope": "swarm"}, "local")
    assert swarm is not None
    assert swarm.system_container == "a Swarm network"
    assert network({**row, "Labels": {}}, "local") is None


def test_the_network_of_a_swarm_says_nothing_of_labels_and_is_readable() -> None:
    row = {"Id": "n", "Name": "ingress", "Created": "2026-11-21T07:13:26Z", "Labels": None}
    found = network({**row, "Scope": "swarm", "Ingress": True}, "local", every=True)
    assert found is not None
    assert (found.labels, found.system_container) == ({}, "a Swarm network")
    other = network({**row, "Scope": "local"}, "local", every=True)
    assert other is not None
    assert other.labels is None


@pytest.mark.parametrize(
    "label", ["com.docker.stack.namespace", "io.x-k8s.kind.cluster", "created_by.minikube.sigs.k8s.io", "k3d.cluster"]
)
def test_the_network_of_a_system_is_no_policys(label: str) -> None:
    """Also while none of its containers is there."""
    row = {"Id": "n", "Name": "st_back", "Created": "2026-11-21T07:13:26Z", "Labels": {label: "st"}, "Scope": "local"}
    found = network(row, "local", every=True)
    assert found is not None
    assert found.system_container is not None


def test_a_network_that_a_lease_may_claim_is_listed_by_its_label() -> None:
    row = {"Id": "n", "Name": "net", "Created": "2026-11-21T07:13:26Z", "Labels": {"org.testcontainers.session-id": "x"}}
    keys = frozenset({"org.testcontainers.session-id"})
    assert network(row, "local") is None
    assert network(row, "local", frozenset({"org.testcontainers"})) is None
    assert network({**row, "Labels": None}, "local", keys) is None
    for found in (network(row, "local", keys), network(row, "local", None)):
        assert found is not None
        assert (found.id, found.group) == ("n", None)


def test_a_network_is_known_by_its_name_where_its_id_is_its_name() -> None:
    """Podman 4 says so of each network of each container, running or not."""
    row = {**LISTED, "NetworkSettings": {"Networks": {"chess_default": {"NetworkID": "chess_default"}}}}
    directory = Directory([row], [{"Id": "n" * 64, "Name": "chess_default"}])
    assert "n" * 64 in listed_container(row, "local", directory).uses


@pytest.mark.parametrize(
    ("tags", "digests", "references"),
    [
        (["r:5000/a:1"], ["r:5000/a@sha256:d"], ("r:5000/a:1",)),
        ([], ["r:5000/a@sha256:d"], ("r:5000/a@sha256:d",)),
        (["r:5000/a@sha256:d"], ["r:5000/a@sha256:d"], ("r:5000/a@sha256:d",)),
        (["r:5000/a:1", "r:5000/a@sha256:d"], ["r:5000/a@sha256:d"], ("r:5000/a:1",)),
        (["b:1", "r:5000/a@sha256:d"], ["b@sha256:d"], ("b:1", "r:5000/a@sha256:d")),
        (["b:2", "b:1"], ["b@sha256:d"], ("b:1", "b:2")),
    ],
)
def test_an_image_has_as_many_references_as_an_engine_counts(
    tags: list[str], digests: list[str], references: tuple[str, ...]
) -> None:
    """By Docker's own store and containerd's."""
    row = {"Id": "sha256:" + "a" * 64, "Created": 1_790_000_000, "Labels": {}, "RepoTags": tags, "RepoDigests": digests}
    found = image(row, "local")
    assert found is not None
    assert found.tags == references


def test_labels_of_anonymous_volumes_may_keep_the_container_and_are_not_its_own() -> None:
    kept = {"Type": "volume", "VolumeOptions": {"Labels": {"reaper.keep": ""}}}
    named = {"Type": "volume", "Source": "data", "VolumeOptions": {"Labels": {"named": ""}}}
    found = inspected(HostConfig={**INSPECTED["HostConfig"], "Mounts": [kept, named, None, {"Type": "volume"}]})
    assert found.volume_labels == {"reaper.keep": ""}
    assert "reaper.keep" in found.protecting_labels
    assert "reaper.keep" not in found.own_labels

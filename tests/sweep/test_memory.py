"""What earlier sweeps knew about ownership: recalled, learnt, forgotten, and never needed."""

import json
import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from reaper import files
from reaper.core.model import Reason, Remembered
from reaper.core.scope import Scope, Selector
from reaper.errors import ServerError
from reaper.providers.docker.registration import REGISTRATION
from reaper.providers.docker.settings import DockerTable
from reaper.providers.memory import Rule
from reaper.providers.registration import EndpointSpec
from reaper.retry.retrier import RetryPolicy
from reaper.sweep import connect
from reaper.sweep.ownership import Memory
from tests.sweep.lab import FOREIGN, MINUTE, NOW, RULES, SECOND, Lab, network, outcomes, running, stopped

pytestmark = pytest.mark.anyio

LATER = timedelta(hours=1)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "state", "memory://local")


def known(memory: Memory) -> dict[str, Any]:
    owned: dict[str, Any] = json.loads(memory.file.read_text())["owned"]
    return owned


def living(memory: Memory) -> Lab:
    """A project whose client still runs."""
    return Lab(
        running("client", hours=1, group="p"),
        running("side", hours=1, group="p", image=FOREIGN),
        network("net", "p"),
        stopped("alone", hours=0.1),
        running("foreign", group="q", image=FOREIGN),
        memory=memory,
    )


async def test_what_an_owned_project_holds_is_learnt(memory: Memory) -> None:
    await living(memory).sweep()
    assert known(memory).keys() == {"id-client", "id-side", "id-net"}
    owner = "preset terminal-bench, image tb__*__client in its project"
    assert known(memory)["id-net"]["owner"] == owner


async def test_what_is_learnt_is_recalled(memory: Memory) -> None:
    await living(memory).sweep()
    recalled = Memory(memory.file.parent, "memory://local").recall([stopped("side", image=FOREIGN), stopped("other")])
    assert recalled[0].remembered is not None
    assert recalled[0].remembered.owner.startswith("preset terminal-bench")
    assert recalled[0].remembered.free_at - (NOW + 10 * MINUTE) < SECOND
    assert recalled[1].remembered is None


async def test_a_sidecar_whose_client_went_first_is_still_owned(memory: Memory) -> None:
    lab = living(memory)
    await lab.sweep()
    lab.world.remove("client")
    lab.world.change("side", lambda _: stopped("side", group="p", image=FOREIGN))
    report = await lab.sweep()
    assert outcomes(report) == {"side": "deleted", "net": "deleted"}


async def test_a_sidecar_that_the_scope_owns_as_well_is_still_the_preset_s(memory: Memory) -> None:
    """Its restart policy would keep it for good."""
    lab = living(memory)
    lab.rules = replace(RULES, scope=replace(RULES.scope, selector=Selector(names=("side",))))
    lab.world.change("side", lambda side: replace(side, restart_policy="always"))
    await lab.sweep()
    lab.world.remove("client")
    lab.world.change("side", lambda _: replace(stopped("side", group="p", image=FOREIGN), restart_policy="always"))
    assert outcomes(await lab.sweep()) == {"side": "deleted", "net": "deleted"}


async def test_a_service_that_deletes_nothing_names_it_as_well_and_frees_no_network(memory: Memory) -> None:
    lab = living(memory)
    await lab.sweep(act=False, watches=True)
    lab.world.remove("client")
    lab.world.change("side", lambda _: stopped("side", group="p", image=FOREIGN))
    for _ in range(2):
        assert outcomes(await lab.sweep(act=False, watches=True)) == {"side": "would_delete", "net": "would_delete"}
    lab.world.remove("side")
    assert await lab.outcomes() == {}, "a person took its project down, and may bring it up again"


async def test_without_memory_it_is_not(memory: Memory) -> None:
    lab = living(memory)
    lab.memory = None
    await lab.sweep()
    lab.world.remove("client")
    lab.world.change("side", lambda _: stopped("side", group="p", image=FOREIGN))
    assert await lab.outcomes() == {}


async def test_what_was_renamed_so_that_the_scope_does_not_match_it_any_more_is_not_owned(memory: Memory) -> None:
    """``docker rename``: of a container's own signs its name alone can change."""
    rules = replace(RULES, scope=Scope(presets=(), selector=Selector(names=("bench-*",))))
    before = Lab(running("bench-1", hours=1, group="p", image=FOREIGN), memory=memory, rules=rules)
    await before.sweep()
    renamed = running("precious", id="id-bench-1", group="p", image=FOREIGN)
    after = Lab(renamed, memory=memory, rules=rules)
    assert outcomes(await after.sweep()) == {}
    assert after.left() == {"precious"}


async def test_what_is_not_listed_any_more_is_forgotten(memory: Memory) -> None:
    lab = living(memory)
    await lab.sweep()
    for name in ("client", "side"):
        lab.world.remove(name)
    await lab.sweep()
    assert known(memory).keys() == {"id-net"}
    lab.world.remove("net")
    await lab.sweep()
    assert not known(memory)


async def test_a_network_that_was_made_again_under_the_same_id_is_another_one(memory: Memory) -> None:
    """Podman with CNI makes the id of a network from its name."""
    lab = living(memory)
    await lab.sweep()
    for name in ("client", "side", "net"):
        lab.world.remove(name)
    lab.world.add(network("net", "p", created_at=NOW))
    lab.clock.start += 11 * MINUTE
    report = await lab.sweep()
    assert outcomes(report) == {}
    (net,) = (d for d in report.endpoints[0].decisions if d.resource.name == "net")
    assert net.reason is Reason.NOT_OWNED
    assert not known(memory)


def of(folder: str) -> dict[str, str]:
    return {"com.docker.compose.project.working_dir": folder}


async def test_a_network_that_another_project_of_the_name_has_taken_is_not_remembered(memory: Memory) -> None:
    """Compose looks for a network by its name, and uses the one that is there."""
    lab = Lab(
        running("client", hours=1, group="p", labels=of("/trial")),
        network("net", "p"),
        memory=memory,
    )
    await lab.sweep()
    assert known(memory)["id-net"]["place"] == "/trial"
    lab.world.remove("client")
    lab.world.add(stopped("other", group="p", image=FOREIGN, labels=of("/other")))
    await lab.sweep()
    assert not known(memory)
    lab.world.remove("other")
    lab.clock.start += 11 * MINUTE
    assert await lab.outcomes() == {}
    assert lab.left() == {"net"}


async def test_a_sweep_that_owns_other_things_forgets_nothing(memory: Memory) -> None:
    """As ``--once`` with a configuration of its own beside a service."""
    lab = living(memory)
    await lab.sweep()
    before = known(memory)
    lab.rules = replace(lab.rules, scope=Scope(presets=(), selector=Selector(labels=("team=web",))))
    await lab.sweep()
    assert known(memory).keys() == before.keys()
    lab.world.remove("client")
    lab.world.change("side", lambda _: stopped("side", group="p", image=FOREIGN))
    lab.rules = RULES
    assert await lab.outcomes() == {"side": "deleted", "net": "deleted"}


async def test_an_orphaned_network_waits_for_its_grace(memory: Memory) -> None:
    lab = living(memory)
    await lab.sweep()
    for name in ("client", "side"):
        lab.world.remove(name)
    report = await lab.sweep()
    assert not report.results
    net = next(d for d in report.endpoints[0].decisions if d.resource.name == "net")
    assert net.reason is Reason.CREATED_GRACE
    lab.clock.start += 11 * MINUTE
    assert await lab.outcomes() == {"net": "deleted"}


async def test_an_orphaned_network_is_free_at_once_when_its_project_was_to_go(memory: Memory) -> None:
    """The sweep died half-way; the next one goes on."""
    lab = Lab(stopped("client", group="p"), network("net", "p"), memory=memory)
    lab.world.rules.append(Rule("delete", "net", error=ServerError("500")))
    assert await lab.outcomes() == {"client": "deleted", "net": "failed"}
    lab.world.rules.clear()
    assert await lab.outcomes() == {"net": "deleted"}


async def test_a_project_that_came_back_waits_again(memory: Memory) -> None:
    lab = Lab(stopped("client", group="p"), network("net", "p"), memory=memory)
    lab.world.rules.append(Rule("inspect", "client", calls={1}, after=lambda: lab.world.start("client")))
    assert await lab.outcomes() == {"client": "skipped", "net": "skipped"}
    assert await lab.outcomes() == {}
    lab.world.remove("client")
    assert await lab.outcomes() == {}  # the network may be about to get another client


async def test_a_dry_run_teaches_nothing_and_a_cap_that_all_stays(memory: Memory) -> None:
    lab = Lab(stopped("client", group="p"), network("net", "p"), memory=memory)
    await lab.sweep(act=False)
    assert not memory.file.exists()
    assert (await lab.sweep(max_deletions=1)).endpoints[0].cap is not None
    assert datetime.fromisoformat(known(memory)["id-net"]["free_at"]) > NOW
    lab.world.remove("client")
    assert await lab.outcomes() == {}, "the network may be about to get another client"
    await anyio.sleep(600)
    assert await lab.outcomes() == {"net": "deleted"}


async def test_each_endpoint_has_a_memory_of_its_own(tmp_path: Path) -> None:
    files = {Memory(tmp_path, identity).file for identity in ("unix:///a", "unix:///b", "unix:///a")}
    assert len(files) == 2


@pytest.mark.parametrize(
    ("address", "same"),
    [("unix:///var/run/docker.sock", False), ("tcp://127.0.0.1:2375", False), ("tcp://gpu-1:2376", True)],
)
async def test_hosts_that_share_the_state_directory_remember_an_engine_each_at_a_local_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, same: bool
) -> None:
    """An image has one id everywhere: that it is owned on one host says nothing about another user's on the other."""
    spec, found = EndpointSpec(REGISTRATION, DockerTable(name="local", host=address)), []
    for host in ("a", "b"):
        monkeypatch.setattr(connect, "machine_id", lambda host=host: host)
        (endpoint,) = connect.endpoints([spec], RetryPolicy(), tmp_path, act=True)
        assert endpoint.memory is not None
        assert endpoint.last_use is not None
        found.append((endpoint.memory.file, endpoint.last_use.file))
        await endpoint.reader.close()
    assert (found[0] == found[1]) is same


async def test_what_cannot_be_written_is_a_warning_and_deletions_go_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lab = Lab(
        stopped("client", group="p"), network("net", "p"), memory=Memory(tmp_path / "file" / "state", "memory://local")
    )
    report = await lab.sweep()
    assert outcomes(report) == {"client": "deleted", "net": "deleted"}
    (warning,) = report.endpoints[0].warnings
    assert "cannot be remembered" in warning


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"version": 3, "owned": {}}',
        b'{"version": 2}',
        b'{"version": 2, "owned": []}',
        b'{"version": 2, "owned": {"id-side": {}}}',
        b'{"version": 2, "owned": {"id-side": "x"}}',
        b'{"version": 2, "owned": {"id-side": {"owner": "x", "free_at": "soon"}}}',
        b'{"version": 2, "owned": {"id-side": {"owner": "x", "free_at": 12}}}',
    ],
)
async def test_a_damaged_file_is_no_memory(memory: Memory, content: bytes) -> None:
    memory.file.parent.mkdir()
    memory.file.write_bytes(content)
    assert memory.recall([stopped("side")])[0].remembered is None
    lab = living(memory)
    report = await lab.sweep()
    assert report.endpoints[0].failure is None
    assert known(memory).keys() == {"id-client", "id-side", "id-net"}


@pytest.mark.parametrize("entry", [{"owner": 1}, {"free_at": "2026-11-21T06:00:00"}, {"free_at": "0001-01-01T00:00:00Z"}])
async def test_an_odd_entry_is_no_error(memory: Memory, entry: dict[str, Any]) -> None:
    content = {"version": 2, "owned": {"id-net": {"owner": "x", "free_at": "2026-11-21T06:00:00Z", **entry}}}
    memory.file.parent.mkdir()
    memory.file.write_text(json.dumps(content))
    lab = Lab(network("net", "p"), memory=memory)
    report = await lab.sweep()
    assert report.endpoints[0].failure is None


async def test_what_has_not_changed_is_not_written(memory: Memory) -> None:
    entry, net = Remembered("preset terminal-bench", NOW), network("net", "p")
    assert net.created_at is not None
    memory.file.parent.mkdir()
    memory.file.write_text(
        json.dumps(
            {
                "version": 2,
                "owned": {
                    "id-net": {
                        "owner": entry.owner,
                        "free_at": entry.free_at.isoformat(),
                        "created_at": net.created_at.isoformat(),
                    }
                },
            }
        )
    )
    before = memory.file.stat().st_mtime_ns
    lab = Lab(net, memory=memory)
    lab.world.rules.append(Rule("delete", error=ServerError("500")))
    report = await lab.sweep()
    assert outcomes(report) == {"net": "failed"}
    assert memory.file.stat().st_mtime_ns == before


async def test_ids_of_another_endpoint_mean_nothing_here(tmp_path: Path) -> None:
    await living(Memory(tmp_path, "memory://other")).sweep()
    assert Memory(tmp_path, "memory://local").recall([stopped("side")])[0].remembered is None


DEEP = "[" * 200_000


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        f'{{"version": 2, "owned": {DEEP}',
        '{"version": 2, "owned": {"a": {"owner": "x", "free_at": "0001-01-01T00:00:00+14:00"}}}',
        '{"version": 2, "owned": [1]}',
        "\ufeff{}",
    ],
)
async def test_a_file_full_of_anything_costs_no_sweep(memory: Memory, content: str) -> None:
    memory.file.parent.mkdir()
    memory.file.write_text(content)
    assert await Lab(stopped("a"), memory=memory).outcomes() == {"a": "deleted"}


async def test_a_fifo_in_place_of_the_file_is_not_waited_for(memory: Memory) -> None:
    memory.file.parent.mkdir()
    os.mkfifo(memory.file)
    assert await Lab(stopped("a"), memory=memory).outcomes() == {"a": "deleted"}


async def test_a_file_too_large_to_be_one_is_not_read(memory: Memory) -> None:
    memory.file.parent.mkdir()
    with memory.file.open("wb") as sparse:
        sparse.truncate(files.LARGEST + 1)
    assert await Lab(stopped("a"), memory=memory).outcomes() == {"a": "deleted"}


def test_two_processes_of_one_id_do_not_write_into_each_others_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each container, and each host of a shared folder, may have a process of this id."""
    path, replaced = tmp_path / "owned.json", Path.replace

    def after_the_other(partial: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replaced)
        files.write_text(path, "the other's")
        assert path.read_text() == "the other's"
        return partial.replace(target)

    monkeypatch.setattr(Path, "replace", after_the_other)
    files.write_text(path, "its own")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("owned.json", "its own")]

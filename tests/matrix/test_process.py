"""The faults that befall the whole process: killed at every stage, without descriptors, disk, name or certificate."""

import resource
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reaper.simulator.docker.app import add_container
from reaper.simulator.docker.model import Behaviour
from reaper.simulator.world import SandboxSpec
from tests import needs
from tests.engine.tls import authority
from tests.matrix import outcomes
from tests.matrix.faults import DAYTONA, DOCKER, PROVIDERS, STOP
from tests.matrix.programs import STAGES, Town
from tests.run import Program

SIGKILL = "SIGKILL"


def hold(row: str, provider: str, came: str) -> None:
    outcomes.hold("process", row, provider, came)


# -- SIGKILL -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [False, True], ids=["before it is done", "when it is done and not answered"])
@pytest.mark.parametrize(("provider", "stage"), [(p, stage) for p in PROVIDERS for stage in STAGES[p]])
def test_killed_at_a_stage(tmp_path: Path, provider: str, stage: str, done: bool) -> None:
    denied = provider == DAYTONA and stage == STOP
    with Town(tmp_path, provider, denied=denied) as town:
        program = town.program()
        with town.holding(stage, done=done, requests=len(town.world.go) if denied else 1) as held:
            process = program.start("--once", "--only", provider, "--json")
            assert held.wait(60), program.finish(process)
            process.send_signal(signal.SIGKILL)
            assert program.finish(process).code == -signal.SIGKILL
        town.check_living()
        town.finish_deletions()
        ended = town.sweep(program)
        assert ended.code in ((0, 3) if denied else (0,)), ended.err
        assert not town.world.go & town.names(), ended.out
        town.check_living()
        acts = program("history", "--json", "--limit", "none").document["acts"]
        assert not [act for act in acts if act["outcome"] == "pending"], acts
        hold(f"{SIGKILL} at {stage}, {'done' if done else 'not done'}", provider, f"next sweep: {ended.code}")


# -- descriptors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
def test_with_64_descriptors(tmp_path: Path, provider: str) -> None:
    with Town(tmp_path, provider) as town:
        town.sim.do(lambda: more(town, 90))
        limit = (64, 64)
        ended = town.sweep(town.program(), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit))
        town.check(ended)
        assert "Too many open files" not in ended.err
        hold("64 descriptors, 90 resources more", provider, f"all {ended.code}")


def more(town: Town, number: int) -> None:
    """So many leaked ones beside the others."""
    now = town.sim.clock.now()
    for name in (f"more-{i}" for i in range(number)):
        if town.provider == DOCKER:
            old = now.replace(year=now.year - 1)
            labels = {"terminal-bench": "1"}
            add_container(
                town.sim.engine,
                name=name,
                image="bench:1",
                state="running",
                labels=labels,
                created=old,
                started=old,
                behaviour=Behaviour(),
            )
        else:
            old = now.replace(year=now.year - 1)
            labels = {"harbor.managed": "true"}
            town.sim.organisation().add(SandboxSpec(name=name, labels=labels, created=old, active=old, updated=old))


# -- a full disk -------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that is full; removing ``ballast`` makes room."""
    with needs.small_disk(tmp_path / "full", "1m") as folder:
        yield folder


def fill(folder: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (folder / "ballast").write_bytes(b"x" * (2 << 20))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_full_disk_for_the_journal(full: Path, provider: str) -> None:
    with Town(full, provider) as town:
        fill(full)
        program = town.program()
        ended = town.sweep(program)
        town.check(ended)
        (line,) = [line for line in ended.logs if line["event"] == "journal_failed"]
        assert "full" in line["problem"] or "No space" in line["problem"]
        (full / "ballast").unlink()
        town.check(town.sweep(program))
        hold("full disk: journal", provider, f"all {ended.code}, journal_failed in the log")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_full_disk_for_the_metrics(full: Path, tmp_path: Path, provider: str) -> None:
    fill(full)
    with Town(tmp_path, provider) as town:
        program, file = town.program(), full / "reaper.prom"
        ended = town.sweep(program, "--metrics-textfile", str(file))
        town.check(ended)
        assert [line["event"] for line in ended.logs if line["level"] == "error"] == ["metrics_not_written"]
        assert list(full.iterdir()) == [full / "ballast"], "no part of it is left"
        (full / "ballast").unlink()
        town.check(town.sweep(program, "--metrics-textfile", str(file)))
        assert "reaper_sweeps_total" in file.read_text()
        hold("full disk: metrics file", provider, f"all {ended.code}, metrics_not_written in the log")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_full_disk_for_the_leases(full: Path, provider: str) -> None:
    """A run that cannot take its lease does not start: it would not be safe from a sweep."""
    with Town(full, provider) as town:
        fill(full)
        program = town.program()
        ran = program("run", "--skip-cleanup", "--", "touch", str(full.parent / "ran"))
        assert (ran.code != 0) == (not (full.parent / "ran").exists()), ran.err
        town.check_living()
        ended = town.sweep(program)
        town.check(ended)
        (full / "ballast").unlink()
        assert program("run", "--only", provider, "--", "touch", str(full.parent / "ran")).code == 0
        town.check_living()
        hold("full disk: leases", provider, f"reaper run: {ran.code}; sweep: all {ended.code}")


# -- names and certificates --------------------------------------------------------------------------------------------


def aimed(program: Program, provider: str, address: str) -> Program:
    """The program, with the provider elsewhere."""
    where = {"DAYTONA_API_URL": f"https://{address}/api"} if provider == DAYTONA else {"DOCKER_HOST": f"tcp://{address}"}
    return Program(program.folder, {**program.env, **where})


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_name_that_cannot_be_resolved(tmp_path: Path, provider: str) -> None:
    with Town(tmp_path, provider) as town:
        ended = town.sweep(aimed(town.program(), provider, "engine.invalid:2375"))
        assert ended.code == 5
        assert "engine.invalid" in ended.document["endpoints"][0]["failure"]["message"]
        assert town.world.go <= town.names()
        town.check(town.sweep(town.program()))
        hold("DNS fails", provider, f"none {ended.code}")


@contextmanager
def expired(folder: Path) -> Iterator[tuple[int, Path]]:
    """A port whose certificate ended yesterday, and the authority that issued it."""
    ca = authority(folder / "ca")
    key, request, cert = (folder / name for name in ("key.pem", "request.pem", "cert.pem"))
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", request)
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    by = ("-CA", ca / "ca.pem", "-CAkey", ca / "ca-key.pem", "-CAcreateserial", "-days", "0")
    for command in (
        ("req", *new, "-subj", "/CN=expired"),
        ("x509", "-req", "-in", request, *by, "-extfile", folder / "extensions", "-out", cert),
    ):
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(client, server_side=True).close()
                except OSError:
                    client.close()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], ca / "ca.pem"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_expired_certificate(tmp_path: Path, provider: str) -> None:
    with Town(tmp_path, provider) as town, expired(tmp_path) as (port, ca):
        config = tmp_path / "expired.toml"
        if provider == DAYTONA:
            table = f'[[daytona]]\nname = "org"\napi_url = "https://127.0.0.1:{port}/api"\nca_file = "{ca}"\n'
        else:
            table = f'[[docker]]\nname = "engine"\nhost = "tcp://127.0.0.1:{port}"\ntls_ca = "{ca}"\n'
        config.write_text(table)
        ended = town.program()("--once", "--json", "--config", str(config))
        assert ended.code == 5
        assert "expired" in ended.document["endpoints"][0]["failure"]["message"], ended.out
        assert town.world.go <= town.names()
        town.check(town.sweep(town.program()))
        hold("expired certificate", provider, f"none {ended.code}")

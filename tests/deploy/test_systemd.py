"""The units under a real systemd: start, reload, watchdog, crash, stop, secrets, the timer and a benchmark's own unit.

All tests share one machine (see ``machine``), whose reaper sweeps the engine that the machine is a container of.
"""

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from devkit.engine import PrivateEngine
from tests.deploy.machine import Machine, build, running
from tests.deploy.test_systemd_units import BENCHMARK, SERVICES, UNITS
from tests.engine.lab import OWNED, containers, exited

pytestmark = pytest.mark.engine

CONFIG = """
[retry]
attempts = 1
[[policy]]
name = "stopped"
kinds = ["container", "sandbox"]
stopped_for = "1s"
every = "1s"
[[policy]]
name = "running"
kinds = ["container"]
older_than = "1s"
stop_timeout = "1m"
every = "1s"
"""
NO_ENGINE = CONFIG + '[[docker]]\nname = "local"\nhost = "unix:///run/nowhere.sock"\n'
SOON = "[Unit]\nStartLimitBurst=2\n[Service]\nRestartSec=50ms\n"
RUN = "#!/bin/sh\ntouch /opt/benchmark/has-run\n"


@pytest.fixture(scope="module")
def booted(
    deploy_engine: PrivateEngine, base: str, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    with running(deploy_engine, build(deploy_engine, base, image, tmp_path_factory.mktemp("machine"))) as machine:
        yield machine


@pytest.fixture
def machine(booted: Machine) -> Machine:
    booted.reset(CONFIG)
    return booted


def leave(machine: Machine) -> None:
    """What is garbage as soon as the program looks."""
    _old_enough(machine, exited(machine.engine, "leftover"), "FinishedAt")


def stubborn(machine: Machine, *start: str) -> str:
    """A container that heeds no signal, when the program, which a command starts, has begun to stop it."""
    ident = machine.engine.create("stubborn", labels=OWNED, start=True)
    _old_enough(machine, ident, "StartedAt")
    machine.run(*start or ("true",))
    machine.until(lambda: "pending" in machine.run("/opt/reaper/bin/reaper", "history", "--name", "stubborn"), "deletion")
    return ident


def _old_enough(machine: Machine, ident: str, since: str) -> None:
    """Wait until it is as old as the policies want it."""
    at = datetime.fromisoformat(machine.engine.inspect(ident)["State"][since][:26] + "+00:00")
    machine.until(lambda: datetime.now(UTC) - at > timedelta(seconds=1), "age of a second")


def left(machine: Machine) -> set[str]:
    return containers(machine.engine) - {"machine"}


def test_the_installed_units_are_in_order(machine: Machine) -> None:
    paths = [f"/etc/systemd/system/{unit}" for unit in (*SERVICES, "reaper-once.timer", BENCHMARK)]
    machine.put("/opt/benchmark/run", RUN, "755")
    assert machine.run("systemd-analyze", "verify", "--man=no", *paths) == ""


def test_the_service_starts_sweeps_and_stops(machine: Machine) -> None:
    leave(machine)
    machine.systemctl("start", "reaper")
    # Of Type=notify it is active when it has said so, and not before.
    assert machine.shows("reaper", "Type", "ActiveState") == ["notify", "active"]
    machine.until(lambda: machine.show("reaper", "StatusText").startswith("swept local: success"), "status")
    machine.until(lambda: not left(machine), "deletion")
    machine.until(lambda: machine.events("sweep_finished", result="success"), "report")
    status = machine.run("cat", f"/proc/{machine.show('reaper', 'MainPID')}/status")
    facts = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    assert set(facts["Uid"]) != {"0"}
    assert (facts["CapBnd"], facts["NoNewPrivs"], facts["Seccomp"]) == (["0" * 16], ["1"], ["2"])
    # The journal is where root looks for it, and a look leaves nothing behind that the service could not write.
    assert "leftover" in machine.run("/opt/reaper/bin/reaper", "history")
    assert machine.run("find", "/var/lib/private/reaper", "-user", "root") == ""

    # A stop in the middle of a deletion waits for it, and no longer.
    ident = stubborn(machine)
    machine.systemctl("stop", "--no-block", "reaper")
    machine.until(lambda: machine.events("service_draining"), "drain")
    machine.engine.api.must("POST", f"/containers/{ident}/kill")
    machine.until(lambda: machine.show("reaper", "ActiveState") == "inactive", "end", limit=20)
    assert left(machine) == set()
    assert machine.shows("reaper", "Result", "ExecMainStatus", "NRestarts") == ["success", "0", "0"]
    assert machine.events("service_ended")


HOLDS = 'from reaper import lease\nwith lease(name="mine") as held: print(held.state, *held.endpoints)'


def test_every_user_takes_leases_over_the_local_socket(machine: Machine) -> None:
    machine.systemctl("start", "reaper")
    paths = "/run/reaper", "/run/reaper/reaper.sock"
    assert machine.run("stat", "-c", "%a", *paths) == "755\n666\n"
    printed = machine.run("runuser", "-u", "bench", "--", "/opt/reaper/bin/python", "-c", HOLDS)
    assert printed == "live unix:///var/run/docker.sock\n"
    (told,) = machine.until(lambda: machine.events("lease_released", lease="mine"), "lease")
    assert told["user"] == "bench"
    machine.systemctl("stop", "reaper")
    assert machine.attempt("test", "-e", paths[1])[0] == 1


OWNED_BY = "import reaper, sys; print(reaper.owner_label(*map(int, sys.argv[1:])).partition('=')[2])"
ORPHANED = """
[scope]
labels = ["reaper.owner"]
[[policy]]
name = "orphaned"
kinds = ["container"]
orphaned_for = "1s"
every = "1s"
"""


def test_what_a_dead_process_left_goes(machine: Machine) -> None:
    """Nothing of the hardening hides which boot this is, and which processes of other users live."""
    machine.put("/etc/reaper/reaper.toml", ORPHANED)

    def owner(*pid: str) -> str:
        return machine.run("/opt/reaper/bin/python", "-c", OWNED_BY, *pid).strip()

    owners = {"gone": owner(), "init": owner("1")}
    place, _, began = owners["init"].rpartition("/")
    owners["taken"] = f"{place}/{int(began) + 1}"  # its number is another process's now
    for name, label in owners.items():
        machine.engine.create(name, labels={"reaper.owner": label}, start=True)
    machine.systemctl("start", "reaper")
    machine.until(lambda: left(machine) == {"init"}, "deletion of what two dead processes left")
    assert machine.metric("process_start_time_seconds") > datetime(2026, 1, 1, tzinfo=UTC).timestamp()


ASK = """
import http.client, socket, sys
class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/run/reaper/reaper.sock")
connection = Local("localhost")
connection.request(*sys.argv[1:])
print(connection.getresponse().status)
"""


def test_a_lease_outlives_a_restart(machine: Machine) -> None:
    """The service takes it over from the one before, which it has to prove dead."""

    def ask(*words: str) -> str:
        return machine.run("/opt/reaper/bin/python", "-c", ASK, *words).strip()

    machine.drop_in("reaper.service", SOON)
    machine.systemctl("start", "reaper")
    machine.until(lambda: ask("POST", "/leases", '{"id": "run-7"}') in ("201", "409"), "lease")
    machine.systemctl("kill", "--signal=KILL", "reaper")
    machine.until(lambda: len(machine.events("service_started")) == 2, "second life")
    machine.until(lambda: machine.events("lease_reconnecting", lease="run-7"), "look at the holder")
    assert ask("PUT", "/leases/run-7") == "200"
    assert ask("DELETE", "/leases/run-7") == "200"


def test_as_root_it_reaches_a_socket_that_is_root_s_alone(machine: Machine) -> None:
    """As Podman's is. It has no capability, and its state is where it was."""
    machine.run(
        "sh", "-ec", "mkdir -m 700 /run/podman; mount --bind /run/docker.sock $(touch /run/podman/s; echo /run/podman/s)"
    )
    machine.put("/etc/reaper/reaper.toml", CONFIG + '[[docker]]\nname = "pods"\nhost = "unix:///run/podman/s"\n')
    leave(machine)
    machine.systemctl("start", "reaper")
    machine.until(lambda: machine.events("sweep_finished", result="unlisted"), "refusal")
    assert "no permission on unix:///run/podman/s" in machine.log()
    machine.drop_in("reaper.service", "[Service]\nDynamicUser=no\nUser=root\nSupplementaryGroups=\n")
    machine.systemctl("restart", "reaper")
    machine.until(lambda: not left(machine), "deletion")
    status = machine.run("cat", f"/proc/{machine.show('reaper', 'MainPID')}/status")
    assert "CapEff:\t0000000000000000" in status
    assert "leftover" in machine.run("/opt/reaper/bin/reaper", "history")


def test_a_reload_takes_effect_and_a_broken_file_changes_nothing(machine: Machine) -> None:
    machine.put("/etc/reaper/reaper.toml", CONFIG.replace("1s", "1h"))
    leave(machine)
    machine.systemctl("start", "reaper")
    process = machine.show("reaper", "MainPID")
    machine.put("/etc/reaper/reaper.toml", CONFIG.replace("1s", "one second"))
    machine.systemctl("reload", "reaper")
    machine.until(lambda: "one second" in machine.show("reaper", "StatusText"), "refusal")
    assert machine.events("reload_refused")
    assert machine.metric("reaper_config_last_reload_successful") == 0
    assert machine.show("reaper", "ActiveState") == "active"
    assert left(machine) == {"leftover"}
    machine.put("/etc/reaper/reaper.toml", CONFIG)
    machine.systemctl("reload", "reaper")
    machine.until(lambda: not left(machine), "deletion by the new configuration")
    assert machine.metric("reaper_config_last_reload_successful") == 1
    assert machine.shows("reaper", "ActiveState", "MainPID") == ["active", process]


def test_the_watchdog_ends_what_hangs_and_it_starts_again(machine: Machine) -> None:
    machine.drop_in("reaper.service", f"{SOON}WatchdogSec=2s\n")
    machine.systemctl("start", "reaper")
    process = machine.show("reaper", "MainPID")
    machine.systemctl("kill", "--signal=STOP", "--kill-whom=main", "reaper")
    machine.until(lambda: machine.shows("reaper", "NRestarts", "ActiveState") == ["1", "active"], "second life")
    assert machine.show("reaper", "MainPID") != process
    log = machine.log()
    assert "Watchdog timeout" in log
    assert "Fatal Python error: Aborted" in log  # where it hung is in the journal
    assert "code=killed, status=6/ABRT" in log
    assert len(machine.events("service_started")) == 2


def test_a_crash_is_followed_by_a_restart_and_many_by_the_end(machine: Machine) -> None:
    assert machine.show("reaper", "StartLimitBurst") == "5"
    machine.drop_in("reaper.service", SOON)
    machine.systemctl("start", "reaper")
    machine.systemctl("kill", "--signal=KILL", "reaper")
    machine.until(lambda: len(machine.events("service_started")) == 2, "second life")
    assert machine.show("reaper", "NRestarts") == "1"
    leave(machine)
    machine.until(lambda: not left(machine), "deletion in the second life")
    machine.systemctl("kill", "--signal=KILL", "reaper")
    machine.until(lambda: machine.show("reaper", "ActiveState") == "failed", "end")
    assert "Start request repeated too quickly" in machine.log()
    machine.systemctl("reset-failed", "reaper")
    machine.systemctl("start", "reaper")
    assert machine.show("reaper", "ActiveState") == "active"


def test_a_broken_configuration_ends_the_start_and_is_not_tried_again(machine: Machine) -> None:
    machine.put("/etc/reaper/reaper.toml", CONFIG.replace("1s", "one second"))
    assert machine.attempt("systemctl", "start", "reaper")[0] == 1
    assert machine.shows("reaper", "ActiveState", "ExecMainStatus", "NRestarts") == ["failed", "2", "0"]
    assert "one second" in machine.log()
    machine.run("rm", "/etc/reaper/reaper.toml")
    assert machine.attempt("systemctl", "restart", "reaper")[0] == 1
    assert "/etc/reaper/reaper.toml does not exist" in machine.log()


def test_the_key_reaches_the_service_and_no_other_process(machine: Machine) -> None:
    machine.run(
        *shlex.split("systemd-run --quiet --unit simulator --property StandardOutput=truncate:/run/simulator"),
        *shlex.split("/opt/reaper/bin/reaper simulate --seed 7 --containers 0 --sandboxes 0"),
    )
    printed = machine.until(lambda: machine.attempt("grep", "KEY=", "/run/simulator")[1], "simulator")
    exported = dict(
        shlex.split(line)[1].split("=", 1)
        for line in machine.run("cat", "/run/simulator").splitlines()
        if line.startswith("export ")
    )
    key = exported["DAYTONA_API_KEY"]
    assert key in printed
    machine.put("/etc/reaper/daytona.key", f"{key}\n", "600")
    machine.drop_in("reaper.service", (UNITS / "credentials.conf.example").read_text(), "credentials")
    machine.drop_in("reaper.service", f"[Service]\nEnvironment=DAYTONA_API_URL={exported['DAYTONA_API_URL']}\n")
    machine.systemctl("start", "reaper")
    machine.until(lambda: machine.events("sweep_finished", endpoint="default", result="success"), "sweep with the key")
    process = machine.show("reaper", "MainPID")
    environment = machine.run("cat", f"/proc/{process}/environ")
    assert "DAYTONA_API_KEY_FILE=/run/credentials/reaper.service/daytona" in environment
    # A reload reads the credential again.
    machine.systemctl("reload", "reaper")
    machine.until(lambda: machine.events("reloaded"), "reload")
    everything = machine.run("journalctl", "--no-pager", "--output=export", "--all")
    status = machine.systemctl("status", "reaper")
    for told in (environment, machine.systemctl("show", "reaper"), status, machine.log(), everything):
        assert "reaper" in told
        assert key not in told
    # No one else may read it: neither a member of the docker group nor another unit.
    inside = f"/proc/{process}/root/run/credentials/reaper.service/daytona"
    for path in ("/etc/reaper/daytona.key", "/run/credentials/reaper.service/daytona", inside):
        assert machine.attempt("runuser", "-u", "bench", "--", "cat", path)[0] == 1
    machine.systemctl("stop", "reaper")
    assert machine.attempt("ls", "/run/credentials/reaper.service")[0] != 0


def test_one_sweep_by_the_timer(machine: Machine) -> None:
    once = "reaper-once.service"
    leave(machine)
    machine.drop_in("reaper-once.timer", "[Timer]\nOnCalendar=\nOnActiveSec=1ms\nRandomizedDelaySec=0\nAccuracySec=1ms\n")
    machine.systemctl("start", "reaper-once.timer")
    machine.until(lambda: machine.events("summary", once) or not left(machine), "sweep")
    machine.until(lambda: machine.show(once, "ActiveState") == "inactive", "end")
    assert left(machine) == set()
    assert machine.shows(once, "Result", "ExecMainStatus") == ["success", "0"]
    assert machine.show("reaper-once.timer", "LastTriggerUSec") != "n/a"
    assert "leftover" in machine.run("/opt/reaper/bin/reaper", "history")

    # What failed is seen, and an endpoint that cannot be listed is a failure.
    machine.put("/etc/reaper/reaper.toml", NO_ENGINE)
    assert machine.attempt("systemctl", "start", once)[0] == 1
    assert machine.shows(once, "ActiveState", "Result", "ExecMainStatus") == ["failed", "exit-code", "5"]
    assert once in machine.systemctl("--failed", "--plain")

    # A sweep that is stopped has reported, and has not failed.
    machine.put("/etc/reaper/reaper.toml", CONFIG)
    ident = stubborn(machine, "systemctl", "start", "--no-block", once)
    machine.systemctl("stop", "--no-block", once)
    machine.until(lambda: machine.show(once, "ActiveState") == "deactivating", "stop")
    machine.engine.api.must("POST", f"/containers/{ident}/kill")
    machine.until(lambda: machine.show(once, "ActiveState") == "inactive", "end")
    assert machine.shows(once, "ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "143"]


def test_the_metrics_of_a_sweep_are_for_node_exporter_to_read(machine: Machine) -> None:
    folder = "/var/lib/prometheus/node-exporter"
    machine.run("install", "--directory", "--group=docker", "--mode=775", folder)
    machine.drop_in("reaper-once.service", (UNITS / "textfile.conf.example").read_text(), "textfile")
    leave(machine)
    machine.systemctl("start", "reaper-once.service")
    written = machine.run("runuser", "-u", "nobody", "--", "cat", f"{folder}/reaper.prom")
    assert 'reaper_sweeps_total{endpoint="local",provider="docker",result="success"} 1.0' in written
    assert machine.run("find", "/var/lib/private/reaper", "-maxdepth", "0", "-perm", "700") != ""


def test_root_service_and_timer_share_one_journal(machine: Machine) -> None:
    """By root or by the unit: systemd gives what root made before to the units' user."""
    machine.run("rm", "-f", "/var/lib/reaper")  # systemd's link, which a new machine has not
    machine.run("/opt/reaper/bin/reaper", "--once")
    leave(machine)
    machine.systemctl("start", *SERVICES)
    machine.until(lambda: not left(machine), "deletion")
    machine.run("/opt/reaper/bin/reaper", "--once")
    assert "leftover" in machine.run("/opt/reaper/bin/reaper", "history")
    assert "journal_" not in machine.log(*SERVICES)  # neither failed nor degraded
    assert machine.run("find", "/var/lib/private/reaper", "-user", "root") == ""


def test_a_benchmark_begins_on_a_machine_that_has_been_swept(machine: Machine) -> None:
    machine.put("/opt/benchmark/run", RUN, "755")
    leave(machine)
    machine.systemctl("start", BENCHMARK)
    assert machine.show(BENCHMARK, "Result") == "success"
    assert left(machine) == set()
    machine.run("rm", "/opt/benchmark/has-run")

    def begins(*before: str) -> bool:
        """Whether the benchmark runs behind these commands."""
        lines = [f"ExecStartPre={command}\n" for command in ("", *before) if before]
        machine.drop_in(BENCHMARK, f"[Service]\n{''.join(lines)}")
        ended = machine.attempt("systemctl", "start", BENCHMARK)[0]
        ran = machine.attempt("rm", "/opt/benchmark/has-run")[0] == 0
        assert ran == (ended == 0)
        return ran

    # The ways that the example tells of, with an exit code in place of reaper.
    text = (UNITS / f"{BENCHMARK}.example").read_text()
    lenient = next(line for line in text.splitlines() if "ExecStartPre=/bin/sh" in line).partition("ExecStartPre=")[2]
    assert not begins("/bin/sh -c 'exit 3'")
    assert begins("-/bin/sh -c 'exit 3'")
    for code, expected in ((3, True), (4, False)):
        assert begins(lenient.replace("/opt/reaper/bin/reaper --once ...", f"(exit {code})")) is expected
    (service,) = (
        line.partition("ExecStartPre=")[2] for line in text.splitlines() if "reaper-once.service" in line and "=+" in line
    )
    leave(machine)
    assert begins(service)
    machine.put("/etc/reaper/reaper.toml", NO_ENGINE)
    assert not begins()
    assert machine.show(BENCHMARK, "Result") == "exit-code"
    assert "there is no such socket" in machine.log(BENCHMARK)

"""Every kind of bad configuration: what is wrong, where, and how to mend it; exit 2, and no engine is even asked.

Most cases run the program's ``main`` in this process, a few of each kind run it as a process.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from reaper.cli import main
from reaper.config import load
from tests.program.fakeengine import FakeEngine
from tests.run import Ended, Program

NET = '[[daytona]]\nname = "a"\n[daytona.safety_net]\n'
PRESET = '[[preset]]\nname = "acme"\n'
POLICY = '[[policy]]\nname = "mine"\nkinds = ["container"]\n'


@dataclass(frozen=True)
class Bad:
    """A configuration file that is wrong, and what must be said of it: key and value, and the hint."""

    text: str
    says: tuple[str, ...]


def bad(text: str, *says: str) -> Bad:
    return Bad(text, says)


OWNERS: Mapping[str, Bad] = {
    "an owner without anything": bad("[[owner]]", "it names no owner", 'pid_label = "KEY"'),
    "an owner by its host alone": bad(
        '[[owner]]\nprocesses = ["*/bin/x *"]\nhost_label = "a"', "host_label goes with pid_label only"
    ),
    "an owner with presets alone": bad('[[owner]]\npid_label = "a"\npresets = ["harbor"]', "goes with processes only"),
    "an owner by any process": bad('[[owner]]\nprocesses = ["*"]', "'*' would match nearly every process"),
    "an owner of a preset that is not used": bad(
        '[[owner]]\npresets = ["swe-bench"]\nprocesses = ["*/bin/x *"]',
        "the preset 'swe-bench', which [scope]",
    ),
    "an owner elsewhere": bad(
        '[[docker]]\nname = "a"\nhost = "tcp://gpu-1:2375"\n[[owner]]\nendpoints = ["a"]\npid_label = "b"',
        "'a', which other hosts may use, too",
    ),
    "two owners of one name": bad(2 * '[[owner]]\nname = "a"\npid_label = "b"\n', "two [[owner]] tables have the name 'a'"),
    "one engine twice": bad(
        '[[docker]]\nname = "a"\nhost = "unix:///run/../run/x.sock"\n[[docker]]\nname = "b"\nhost = "unix:///run/x.sock"',
        "[[docker]] 'b' is the engine of 'a' again",
        "leave one of them out",
    ),
    "an owner called as the label": bad('[[owner]]\nname = "reaper.owner"\npid_label = "b"', "give it another name"),
    "an owner whose start is its id": bad('[[owner]]\npid_label = "b"\nstart_label = "b"', "start_label are one label"),
    "an owner by a tool's label": bad(
        '[[owner]]\npid_label = "b"\nsession_label = "com.docker.compose.project"', "label that tools set on all"
    ),
}

CASES: Mapping[str, Bad] = {
    **OWNERS,
    # unknown tables and keys, with a suggestion
    "unknown table": bad("[scpoe]\nnames = []", "unknown key 'scpoe'", "did you mean 'scope'?"),
    "unknown empty table": bad("[retri]", "unknown key 'retri'", "did you mean 'retry'?"),
    "unknown table like nothing": bad(
        "[quux]",
        "'quux'",
        "known are: daytona, default_policies, disk, docker, evidence, journal, leases, limits, owner, policy, preset,",
    ),
    "unknown key": bad('[scope]\nlable = ["a"]', "[scope]", "unknown key 'lable'", "did you mean 'labels'?"),
    "unknown key like nothing": bad("[retry]\nquux = 1", "[retry]", "'quux'", "known are: attempts, factor,"),
    "unknown key in a policy": bad(POLICY + 'older_then = "1h"', "[[policy]] 'mine'", "did you mean 'older_than'?"),
    "unknown key in an engine": bad('[[docker]]\nname = "a"\nhots = "x"', "[[docker]] 'a'", "did you mean 'host'?"),
    "unknown key in an organisation": bad(
        '[[daytona]]\nname = "a"\napi_kye_env = "X"', "[[daytona]] 'a'", "did you mean 'api_key_env'?"
    ),
    "unknown key in a table in a table": bad(
        "[prices.endpoints.local]\ncpuhour = 1",
        "[prices.endpoints.local]: unknown key 'cpuhour'",
        "did you mean 'cpu_hour'?",
    ),
    "unknown endpoint with prices": bad(
        '[[docker]]\nname = "gpu-1"\n[prices.endpoints.gpu1]\ncpu_hour = 1', "names the endpoint 'gpu1'", "mean 'gpu-1'?"
    ),
    "a negative price": bad("[prices]\ncpu_hour = -1", "[prices]: cpu_hour = -1", "greater than or equal to 0"),
    "no size": bad("[prices]\nsizes = { large = 1 }", "'large' is no size of a sandbox", '"4x8x10" = 0.33'),
    "a number for a table": bad("[prices]\nsizes = 1", "[prices]: sizes = 1", "write a table"),
    "a price in a table of prices": bad("[prices.endpoints]\nlocal = 1", "write [prices.endpoints.local] and its keys"),
    "a quota without a limit": bad('[[quota]]\nname = "q"\nkinds = ["sandbox"]', "[[quota]] 'q'", "it limits nothing"),
    "a quota of volumes": bad('[[quota]]\nname = "q"\nkinds = ["volume"]\nmax_count = 1', "no 'volume'"),
    "CPUs of containers": bad('[[quota]]\nname = "q"\nkinds = ["container"]\nmax_cpu = 1.5', "max_cpu is for kinds"),
    "a pattern for a key": bad(
        '[[quota]]\nname = "q"\nkinds = ["container"]\nmax_count = 1\nper_label = "user=*"', "is no key of a label"
    ),
    "idle for moments": bad(
        '[[quota]]\nname = "q"\nkinds = ["sandbox"]\nmax_count = 1\nenforce = true\nidle_for = "1m"', "at least ten minutes"
    ),
    "idle for less than what a use shows late": bad(
        '[[policy]]\nname = "i"\nkinds = ["sandbox"]\nidle_for = "1m"', "[[policy]] 'i'", "at least five minutes"
    ),
    "idle and not enforced": bad(
        '[[quota]]\nname = "q"\nkinds = ["sandbox"]\nmax_count = 1\nidle_for = "1h"', "goes with enforce = true"
    ),
    "a quota of a policy's name": bad(
        '[[quota]]\nname = "old-containers"\nkinds = ["sandbox"]\nmax_count = 1', "have the name 'old-containers'"
    ),
    "a quota of an unknown endpoint": bad(
        '[[quota]]\nname = "q"\nkinds = ["sandbox"]\nmax_count = 1\nendpoints = ["rl"]', "quota 'q' names the endpoint 'rl'"
    ),
    # presets of one's own
    "a preset without a sign": bad(PRESET, "[[preset]] 'acme'", "it owns nothing; give it labels, names, images"),
    "a preset that only keeps alive": bad(PRESET + 'keepalive = "acme.run"', "[[preset]] 'acme'", "it owns nothing"),
    "a preset without a name": bad('[[preset]]\nlabels = ["a.b"]', "[[preset]] number 1", "'name' is missing"),
    "a preset of every name": bad(PRESET + 'names = ["*"]', "[[preset]] 'acme': names", "'*' would own nearly everything"),
    "a preset of nearly every name": bad(PRESET + 'names = ["acme-*", "a*"]', "'a*' would own nearly everything"),
    "a preset of every image": bad(PRESET + 'images = ["*:latest"]', "images", "would own nearly everything"),
    "a preset of every project": bad(PRESET + 'projects = ["[a-z]*"]', "projects", "would own nearly everything"),
    "a preset of every volume": bad(PRESET + 'volume_projects = ["?*"]', "volume_projects", "would own nearly everything"),
    "a preset of every built image": bad(PRESET + 'built_images = ["**"]', "built_images", "would own nearly everything"),
    "a preset of all that Compose makes": bad(
        PRESET + 'labels = ["com.docker.compose.project"]', "labels", "would own nearly everything"
    ),
    "a preset of a built-in one's name": bad(
        '[[preset]]\nname = "harbor"\nlabels = ["a.b"]', "'harbor' is a built-in preset"
    ),
    "two presets of one name": bad(
        PRESET + 'labels = ["a.b"]\n' + PRESET + 'labels = ["c.d"]', "two [[preset]] tables have the name 'acme'"
    ),
    "an unknown key in a preset": bad(PRESET + 'lables = ["a.b"]', "[[preset]] 'acme'", "did you mean 'labels'?"),
    "a preset with conditions": bad(PRESET + 'labels = ["a.b"]\nolder_than = "1h"', "unknown key 'older_than'"),
    "a preset's empty glob": bad(PRESET + 'names = [""]', "an empty glob matches nothing"),
    "a preset's project in capitals": bad(PRESET + 'projects = ["Acme-*"]', "projects in lower case; write 'acme-*'"),
    "a preset's file without a folder": bad(
        PRESET + 'config_files = ["/docker-compose.yaml"]', "config_files", 'for example "/acme/runner/compose.yaml"'
    ),
    "a preset's glob for a file": bad(PRESET + 'config_files = ["/acme/*/compose.yaml"]', "without globs"),
    "a preset's keepalive with a value": bad(
        PRESET + 'labels = ["a.b"]\nkeepalive = "a.b=1"', "keepalive", "is not the key of a label"
    ),
    "an unknown preset": bad(
        '[scope]\npresets = ["harbour"]', "[scope]", "'harbour' is no preset", "did you mean 'harbor'?"
    ),
    "a preset in scope like one's own": bad(
        f'{PRESET}labels = ["a.b"]\n[scope]\npresets = ["acne"]', "'acne' is no preset", "did you mean 'acme'?"
    ),
    "a keepalive without idleness": bad(
        '[[policy]]\nname = "i"\nkinds = ["sandbox"]\nolder_than = "1h"\nkeepalive = true', 'add idle_for = "30m"'
    ),
    "a keepalive of containers": bad(POLICY + 'older_than = "1h"\nkeepalive = true', "keepalive is for sandboxes only"),
    # wrong types
    "a text for a number": bad('[retry]\nattempts = "many"', '[retry]: attempts = "many"', "write a whole number"),
    "a fraction for a number": bad("[retry]\nattempts = 2.5", "attempts = 2.5", "write a whole number"),
    "a yes for a number": bad("[limits]\nmax_deletions = true", "max_deletions = true", "write a whole number"),
    "a text for a factor": bad('[retry]\nfactor = "2"', '[retry]: factor = "2"', "write a number"),
    "a text for a yes": bad('[scope]\neverything = "yes"', 'everything = "yes"', "write true or false"),
    "a number for a yes": bad("[scope]\neverything = 1", "everything = 1", "write true or false"),
    "a number for a text": bad('[[docker]]\nname = "a"\nhost = 5', "[[docker]] 'a': host = 5", "write a text in quotes"),
    "a text for a list": bad('[scope]\nnames = "a*"', '[scope]: names = "a*"', "write a list"),
    "a number in a list": bad("[scope]\nnames = [3]", "[scope]: names = 3", "write a text in quotes"),
    "a number for a duration": bad(POLICY + "older_than = 24", "older_than = 24", 'for example "90s", "10m", "6h"'),
    "one bracket for a list of tables": bad('[docker]\nname = "a"', "docker is no table", "write [[docker]]"),
    "two brackets for a table": bad("[[scope]]\nnames = []", "scope is no table", "write [scope]"),
    "a value for a table": bad("retry = 5", "retry is no table", "write [retry]"),
    "a value for a list of tables": bad('policy = "x"', "policy is no table", "write [[policy]]"),
    "a value in a list of tables": bad("docker = [1]", "[[docker]] number 1", "write [[docker]]"),
    # values that cannot be meant
    "no unit": bad(POLICY + 'older_than = "24"', "[[policy]] 'mine': older_than = \"24\"", 'for example "90s"'),
    "unknown unit": bad(POLICY + 'stopped_for = "2 fortnights"', "stopped_for", "2 fortnights", 'for example "90s"'),
    "a negative duration": bad(POLICY + 'older_than = "-1h"', 'older_than = "-1h"', "is not a duration"),
    "an endless duration": bad(POLICY + 'older_than = "200000d"', 'older_than = "200000d"', "longer than a hundred years"),
    "no time in all": bad('[retry]\ntotal = "0s"', 'total = "0s"', 'write for example "60s"'),
    "no attempt": bad("[retry]\nattempts = 0", "attempts = 0", "greater than or equal to 1"),
    "a shrinking factor": bad("[retry]\nfactor = 0.5", "factor = 0.5", "greater than or equal to 1"),
    "an infinite factor": bad("[retry]\nfactor = inf", "factor = inf", "less than or equal to 100"),
    "a factor that is no number": bad("[retry]\nfactor = nan", "factor = nan"),
    "negative deletions": bad("[limits]\nmax_deletions = -1", "max_deletions = -1", "greater than or equal to 0"),
    "more than all": bad("[limits]\nmax_fraction = 1.5", "max_fraction = 1.5", "less than or equal to 1"),
    "none of all": bad("[limits]\nmax_fraction = 0.0", "max_fraction = 0.0", "greater than 0"),
    "no removals": bad('[[docker]]\nname = "a"\nremovals = 0', "removals = 0", "greater than or equal to 1"),
    "an open bracket": bad('[scope]\nnames = ["a[b"]', '[scope]: names = "a[b"', "does not close it", "[[]"),
    "a second open bracket": bad('[scope]\nnames = ["[a]b[c"]', '"[a]b[c"', "does not close it"),
    "a bracket that closes nothing": bad('[scope]\nimages = ["a[]"]', 'images = "a[]"', "does not close it"),
    "a range that runs backwards": bad('[scope]\nnames = ["[z-a]"]', 'names = "[z-a]"', "can never match", "[a-z]"),
    "an empty glob": bad('[protect]\nimages = [""]', '[protect]: images = ""', "leave it out"),
    "no label": bad('[scope]\nlabels = ["=x"]', '[scope]: labels = "=x"', '"key", "key=value" or "key=glob"'),
    "an empty label": bad('[protect]\nlabels = [""]', '[protect]: labels = ""', '"key=value"'),
    "a label with blanks": bad('[scope]\nlabels = ["team = x"]', '"team = x"', '"key=value"'),
    "a label with an open bracket": bad('[scope]\nlabels = ["a=[b"]', '"a=[b"', "does not close it"),
    "unknown preset": bad('[scope]\npresets = ["harbour"]', "[scope]: presets", "'harbour'", "did you mean 'harbor'?"),
    "unknown restart policy": bad(
        '[protect]\nrestart_policies = ["alway"]', "restart_policies", "'alway'", "did you mean 'always'?"
    ),
    # policies
    "no condition": bad(POLICY, "[[policy]] 'mine'", "no condition", "older_than, stopped_for, orphaned_for or states"),
    "narrowed without a condition": bad(POLICY + 'names = ["a*"]', "[[policy]] 'mine'", "no condition"),
    "idle containers": bad(POLICY + 'idle_for = "1h"', "[[policy]] 'mine'", "idle_for is for sandboxes only"),
    "stopped networks": bad(
        '[[policy]]\nname = "n"\nkinds = ["network"]\nstopped_for = "1h"', "stopped_for is for containers and sandboxes only"
    ),
    "untagged volumes": bad('[[policy]]\nname = "n"\nkinds = ["volume"]\nuntagged = true', "untagged is for images only"),
    "unused containers": bad(POLICY + 'unused_for = "1h"', "unused_for is for networks, volumes, images and"),
    "an old build cache": bad('[[policy]]\nname = "n"\nkinds = ["build-cache"]\nolder_than = "1h"', "not for a build-cache"),
    "a size without a unit": bad('[[policy]]\nname = "n"\nkinds = ["image"]\nlarger_than = 5', "a text with a unit"),
    "an odd size": bad('[[policy]]\nname = "n"\nkinds = ["image"]\nlarger_than = "5 apples"', "'5 apples' is no size"),
    "a level without a unit": bad('[disk]\nhigh = "85"', "high", "'85' is no level", '"85%"'),
    "a level that is a number": bad("[disk]\nhigh = 85", "high"),
    "a level of everything": bad('[disk]\nhigh = "100%"', "not between 0% and 100%"),
    "a level of nothing": bad('[disk]\nhigh = "900GB"\nlow = "0GB"', "low", "exceeded by every disk"),
    "low above high": bad('[disk]\nhigh = "70%"', "low has to be less", 'low = "75%"'),
    "low and high in bytes alike": bad('[disk]\nhigh = "1GiB"\nlow = "1GiB"', "low has to be less"),
    "levels of two sorts": bad('[disk]\nhigh = "900GB"', "cannot be compared", "both in % or both in bytes"),
    "networks under pressure": bad(
        '[[policy]]\nname = "n"\nkinds = ["network"]\nolder_than = "1d"\nunder_pressure = true',
        "under_pressure is for containers, volumes, images and build-caches only",
    ),
    "volumes without a condition": bad(
        '[[policy]]\nname = "n"\nkinds = ["volume"]', "older_than, unused_for, larger_than or anonymous"
    ),
    "a safety net that stops what works": bad(NET + 'auto_stop = "2h"', "safety_net", "at least 8 hours"),
    "a safety net that deletes soon": bad(NET + 'auto_delete = "10m"', "safety_net", "at least one hour"),
    "a safety net that catches nothing": bad(NET, "safety_net", "it sets no timer"),
    "the safety net as a policy": bad(POLICY + 'older_than = "1h"\naction = "set_timer"', "'set_timer' is no action"),
    "unknown action": bad(POLICY + 'older_than = "1h"\naction = "pause"', "'pause' is no action", "stop"),
    "archiving a container": bad(
        POLICY + 'older_than = "1h"\naction = "archive"', 'action = "archive" is for sandboxes only, not for a container'
    ),
    "stopping a network": bad(
        '[[policy]]\nname = "mine"\nkinds = ["network"]\nolder_than = "1h"\naction = "stop"',
        'action = "stop" is for containers and sandboxes only, not for a network',
    ),
    "stopping what has stopped": bad(POLICY + 'stopped_for = "1h"\naction = "stop"', "stopped_for", "leave one out"),
    "stopping with a project": bad(
        POLICY + 'older_than = "1h"\naction = "stop"\nwith_project = ["network"]', "with_project", "leave one out"
    ),
    "stopping under pressure": bad(
        POLICY + 'older_than = "1h"\naction = "stop"\nunder_pressure = true', "under_pressure", "leave one out"
    ),
    "sandboxes with a project": bad(POLICY + 'older_than = "1h"\nwith_project = ["pod"]', "with_project"),
    "unknown kind": bad('[[policy]]\nname = "n"\nkinds = ["containers"]\nolder_than = "1h"', "did you mean 'container'?"),
    "no kind": bad('[[policy]]\nname = "n"\nkinds = []\nolder_than = "1h"', "kinds = []", "write at least one"),
    "kinds missing": bad('[[policy]]\nname = "n"\nolder_than = "1h"', "'kinds' is missing", 'kinds = ["container"]'),
    "name missing": bad('[[policy]]\nkinds = ["container"]\nolder_than = "1h"', "[[policy]] number 1", "'name' is missing"),
    "unknown state": bad(POLICY + 'states = ["exitted"]', "states", "'exitted' is no state", "did you mean 'exited'?"),
    "unknown endpoint": bad(
        '[[docker]]\nname = "gpu-1"\n' + POLICY + 'older_than = "1h"\nendpoints = ["gpu1"]',
        "policy 'mine' names the endpoint 'gpu1'",
        "did you mean 'gpu-1'?",
    ),
    "two policies of one name": bad((POLICY + 'older_than = "1h"\n') * 2, "two [[policy]] tables", "'mine'", "another name"),
    "both schedules": bad(
        POLICY + 'older_than = "1h"\nevery = "1m"\ncron = "* * * * *"',
        "[[policy]] 'mine'",
        "every and cron",
        "leave one out",
    ),
    "too often": bad(POLICY + 'older_than = "1h"\nevery = "1ms"', "every", "at least one second"),
    "cron of four fields": bad(POLICY + 'older_than = "1h"\ncron = "* * * *"', "'* * * *'", "cron", '"15 * * * *"'),
    "cron out of range": bad(POLICY + 'older_than = "1h"\ncron = "99 * * * *"', "'99 * * * *'", "cron", '"15 * * * *"'),
    "unknown zone": bad(
        POLICY + 'older_than = "1h"\ncron = "15 * * * *"\ntimezone = "Mars/Olympus"', "'Mars/Olympus'", '"Europe/Berlin"'
    ),
    "a zone outside the zones": bad(
        POLICY + 'older_than = "1h"\ncron = "15 * * * *"\ntimezone = "../../etc/passwd"',
        "is no time zone",
        '"Europe/Berlin"',
    ),
    "a zone without cron": bad(
        POLICY + 'older_than = "1h"\nevery = "1m"\ntimezone = "UTC"', "timezone goes with cron and window only"
    ),
    # engines
    "two engines of one name": bad('[[docker]]\nname = "a"\n' * 2, "two [[docker]] tables", "'a'", "another name"),
    "an engine called docker": bad('[[docker]]\nname = "docker"', 'name = "docker"', "--only docker"),
    "an engine called daytona": bad('[[docker]]\nname = "daytona"', 'name = "daytona"', "--only daytona"),
    "a name with a blank": bad('[[docker]]\nname = "gpu 1"', 'name = "gpu 1"', '"gpu-1"'),
    "a path for a host": bad('[[docker]]\nname = "a"\nhost = "/run/d.sock"', "lacks its scheme", '"unix:///run/d.sock"'),
    "no scheme": bad('[[docker]]\nname = "a"\nhost = "gpu-1:2375"', '"gpu-1:2375"', '"tcp://10.0.0.5:2376"'),
    "ssh": bad('[[docker]]\nname = "a"\nhost = "ssh://-gpu-1"', "is no address for ssh", '"ssh://me@gpu-1"'),
    "unknown scheme": bad('[[docker]]\nname = "a"\nhost = "npipe:////./x"', "is no Docker host", '"unix:///var'),
    "a relative socket": bad('[[docker]]\nname = "a"\nhost = "unix://x.sock"', "is no Docker host", '"unix:///var'),
    "a certificate without its key": bad(
        '[[docker]]\nname = "a"\nhost = "tcp://h:1"\ntls_cert = "c.pem"',
        "[[docker]] 'a'",
        "tls_cert and tls_key go together",
    ),
    "a key without its certificate": bad(
        '[[docker]]\nname = "a"\nhost = "tcp://h:1"\ntls_key = "k.pem"', "tls_cert and tls_key go together"
    ),
    "tls on a socket": bad('[[docker]]\nname = "a"\ntls_ca = "ca.pem"', "[[docker]] 'a'", "are for tcp:// hosts"),
    "a relative data root": bad('[[docker]]\nname = "a"\ndata_root = "docker"', "no absolute path", '"/var/lib/docker"'),
    # no TOML at all
    "not TOML": bad("scope = [", "is not TOML", "reaper.example.toml"),
    "the same table twice": bad("[scope]\n[scope]", "is not TOML", "line 2"),
}


def check(ended: Ended, where: str, says: tuple[str, ...]) -> None:
    """It is reported in full, and only reported."""
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith(f"reaper: {where}: "), ended.err
    for part in says:
        assert part in ended.err
    assert "Traceback" not in ended.err
    assert "internal_error" not in ended.err


@pytest.fixture
def here(fake: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> "Here":
    """The program's main in this process, before an engine with garbage that must not be touched."""
    for name in [name for name in os.environ if name.startswith(("REAPER_", "DOCKER_", "DAYTONA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_HOST", fake.host)
    monkeypatch.chdir(tmp_path)
    fake.add("chess-1")
    return Here(fake, monkeypatch, capfd)


@dataclass(frozen=True)
class Here:
    fake: FakeEngine
    monkeypatch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        for name, value in (env or {}).items():
            self.monkeypatch.setenv(name, value)
        try:
            code = main(arguments)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        out, err = self.capture.readouterr()
        assert self.fake.calls == [], "no engine was asked"
        return Ended(code, out, err)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_bad_file_is_reported_with_place_value_and_cure(here: Here, tmp_path: Path, case: Bad) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(case.text)
    check(here("--once", "--config", str(file)), str(file), case.says)


@pytest.mark.parametrize("command", [("--once",), ("config", "check")])
def test_every_command_refuses_a_bad_file(run: Program, fake: FakeEngine, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "reaper.toml").write_text('[scope]\nlables = ["a"]\n')  # found without being named
    check(run(*command), "reaper.toml", ("unknown key 'lables'", "did you mean 'labels'?"))
    assert fake.calls == []


def test_everything_that_is_wrong_is_reported_at_once(here: Here, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[scope]\nnames = ["a[b"]\n[retry]\nattempts = "x"\n')
    ended = here("--once", "--config", str(file), env={"REAPER_RETRY__FACTOR": "fast"})
    check(ended, str(file), ("names", "a[b", 'attempts = "x"', "REAPER_RETRY__FACTOR: [retry]: factor"))
    assert len(ended.err.splitlines()) == 3


# -- files that cannot be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "env", "where"),
    [(("--config", "no.toml"), {}, "--config"), ((), {"REAPER_CONFIG": "no.toml"}, "REAPER_CONFIG")],
)
def test_a_file_that_is_missing(here: Here, arguments: tuple[str, ...], env: dict[str, str], where: str) -> None:
    check(here("--once", *arguments, env=env), where, ("no.toml does not exist", "name a TOML file"))


def test_the_option_comes_before_the_variable_and_that_before_the_folder(here: Here, tmp_path: Path) -> None:
    for name in ("option", "variable", "reaper"):
        (tmp_path / f"{name}.toml").write_text(f"[{name}]\n")
    assert "reaper.toml: the file: unknown key 'reaper'" in here("--once").err
    env = {"REAPER_CONFIG": str(tmp_path / "variable.toml")}
    assert "unknown key 'variable'" in here("--once", env=env).err
    assert "unknown key 'option'" in here("--once", "--config", str(tmp_path / "option.toml"), env=env).err


def test_bytes_that_are_no_text(here: Here, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(b'[scope]\nnames = ["\xff\xfe"]\n')
    check(here("--once", "--config", str(file)), str(file), ("is not TOML", "reaper.example.toml"))


def test_a_folder_is_no_file(here: Here, tmp_path: Path) -> None:
    check(here("--once", "--config", str(tmp_path)), str(tmp_path), ("cannot be read: Is a directory", "--config"))


def test_a_file_that_has_gone_bad_does_not_turn_into_the_defaults(here: Here, tmp_path: Path) -> None:
    (tmp_path / "reaper.toml").symlink_to("nowhere.toml")
    check(here("--once"), "reaper.toml", ("cannot be read: No such file", "name a TOML file"))


def test_a_file_that_a_full_disk_has_emptied_does_not_turn_into_the_defaults(here: Here, tmp_path: Path) -> None:
    (tmp_path / "reaper.toml").touch()
    check(here("--once"), "reaper.toml", ("it is empty", "restore it"))
    assert here("config", "check", "--config", "/dev/null").code == 0


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_that_this_user_may_not_read(run: Program, fake: FakeEngine, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "private"
    folder.mkdir()
    file = folder / "mine.toml"
    file.write_text("# the defaults\n")
    ended = run.finish(without_privileges(run, file if what == "file" else folder, "--once", "--config", str(file)))
    check(ended, str(file), ("cannot be read: Permission denied", "this user can read"))
    assert fake.calls == []


def without_privileges(program: Program, closed: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the program as one to whom ``closed`` is closed: root without the power to pass over permissions."""
    closed.chmod(0)
    command = [sys.executable, "-m", "reaper", *arguments]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv (util-linux) is needed to give root's powers away")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    return subprocess.Popen(
        command, env=program.env, cwd=program.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


# -- the environment ---------------------------------------------------------------------------------------------------

VARIABLES: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "a text for a number": ("REAPER_RETRY__ATTEMPTS", "many", ('attempts = "many"', "write a whole number")),
    "nothing for a number": ("REAPER_RETRY__ATTEMPTS", "", ("it is empty", "leave the variable out")),
    "nothing for a list": ("REAPER_PROTECT__LABELS", "", ("it is empty", "for an empty list write []")),
    "commas for a list": ("REAPER_SCOPE__NAMES", " , ", ("it is empty", "for an empty list write []")),
    "nothing for a file": ("REAPER_CONFIG", " ", ("it is empty", "name a TOML file")),
    "no table": ("REAPER_DRY_RUN", "true", ("no setting", "REAPER_SERVICE__DRY_RUN (for one sweep --dry-run)")),
    "none of two tables": ("REAPER_LISTEN", "none", ("no setting", "REAPER_SERVICE__LISTEN or REAPER_RYUK__LISTEN")),
    "one underscore": ("REAPER_SCOPE_LABELS", "team=rl", ("no setting", "REAPER_SCOPE__LABELS, with two underscores")),
    "one underscore in a policy": (
        "REAPER_POLICY_OLD_CONTAINERS_OLDER_THAN",
        "12h",
        ("no setting", "REAPER_POLICY__OLD_CONTAINERS__OLDER_THAN"),
    ),
    "a glob in a label's key": ("REAPER_PROTECT__LABELS", "team-*", ("globs work in its value only", "team=a-*")),
    "no age at all": ("REAPER_POLICY__OLD_CONTAINERS__OLDER_THAN", "0", ('older_than = "0"', "greater than 0")),
    "no unit": ("REAPER_RETRY__TOTAL", "60", ('total = "60"', 'for example "90s"')),
    "not yes or no": ("REAPER_SCOPE__EVERYTHING", "yes", ('everything = "yes"', "true or false")),
    "an impossible glob": ("REAPER_SCOPE__NAMES", "a[b", ('names = "a[b"', "does not close it")),
    "half a list": ("REAPER_SCOPE__NAMES", '["a"', ("'[\"a\"' is no list", 'write a,b or ["a", "b"]')),
    "no condition": ("REAPER_POLICY__OLD_CONTAINERS__STATES", "exitted", ("'old-containers'", "did you mean 'exited'?")),
    "two schedules": ("REAPER_POLICY__OLD_CONTAINERS__CRON", "15 * * * *", ("'old-containers'", "every and cron")),
    "unknown key": ("REAPER_RETRY__ATEMPTS", "2", ("[retry] has no key 'atempts'", "did you mean 'attempts'?")),
    "unknown table": ("REAPER_RETYR__ATTEMPTS", "2", ("no table [retyr]", "did you mean 'retry'?")),
    "unknown policy": ("REAPER_POLICY__OLD_CONTAINER__EVERY", "1h", ("no [[policy]]", "did you mean 'OLD_CONTAINERS'?")),
    "unknown key of a policy": ("REAPER_POLICY__OLD_CONTAINERS__EVRY", "1h", ("'evry'", "did you mean 'every'?")),
    "no name of a host": ("REAPER_URL", "http://gpu..1:9797", ("it is no http or https URL", "or unset it")),
    "no engine to override": ("REAPER_DOCKER__LOCAL__REMOVALS", "4", ("no [[docker]] has this name", "DOCKER_HOST")),
    "too short": ("REAPER_POLICY__EVERY", "1h", ("it names no entry", "write REAPER_POLICY__NAME__KEY")),
    "too long": ("REAPER_RETRY__ATTEMPTS__MORE", "1", ("it names no key", "write REAPER_RETRY__KEY")),
    "no key": ("REAPER_RETRY__", "1", ("[retry] has no key ''", "known are: attempts")),
    "no organisation to override": (
        "REAPER_DAYTONA__DEFAULT__TARGET",
        "eu",
        ("the file has no [[daytona]]", "DAYTONA_API_KEY"),
    ),
}


@pytest.mark.parametrize(("name", "value", "says"), VARIABLES.values(), ids=VARIABLES.keys())
def test_a_bad_variable_is_reported_by_its_name(here: Here, name: str, value: str, says: tuple[str, ...]) -> None:
    check(here("--once", env={name: value}), name, says)


@pytest.mark.parametrize("token", ["secret\nt0ken", "secret-schlüssel"])
def test_a_token_that_no_header_takes_is_not_repeated(run: Program, fake: FakeEngine, token: str) -> None:
    ended = run("--once", env={"REAPER_URL": "http://127.0.0.1:1", "REAPER_TOKEN": token})
    check(ended, "REAPER_TOKEN", ("no header takes", "or unset it"))
    assert "secret" not in ended.out + ended.err
    assert fake.calls == []


def test_a_bad_variable_is_reported_by_the_program(run: Program, fake: FakeEngine) -> None:
    ended = run("--once", env={"REAPER_RETRY__ATTEMPTS": "many"})
    check(ended, "REAPER_RETRY__ATTEMPTS", ('[retry]: attempts = "many"', "write a whole number"))
    assert fake.calls == []


@pytest.mark.parametrize(("text", "hint"), [("retry = 5", "write [retry]"), ("policy = 5", "write [[policy]]")])
def test_a_variable_on_top_of_a_file_that_is_no_better(here: Here, tmp_path: Path, text: str, hint: str) -> None:
    (tmp_path / "reaper.toml").write_text(text)
    name = "REAPER_RETRY__ATTEMPTS" if text.startswith("retry") else "REAPER_POLICY__OLD_CONTAINERS__EVERY"
    check(here("--once", env={name: "2"}), name, ("in the file", hint))


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("/var/run/docker.sock", ("lacks its scheme", '"unix:///var/run/docker.sock"')),
        ("ssh://gpu-1:port", ("is no address for ssh", '"ssh://me@gpu-1"')),
        ("gpu-1", ("'gpu-1' is no Docker host", '"tcp://10.0.0.5:2376"')),
        ("tcp://gpu-1:99999", ("'tcp://gpu-1:99999' is no Docker host", '"tcp://10.0.0.5:2376"')),
        ("tcp://gpu-1:0", ("'tcp://gpu-1:0' is no Docker host", '"tcp://10.0.0.5:2376"')),
        ("tcp://gpu..1:2375", ("is no Docker host", '"tcp://10.0.0.5:2376"')),
        ("tcp://[::1::2]:2375", ("is no Docker host", '"tcp://10.0.0.5:2376"')),
        ("ssh://gpu-1:99999", ("is no address for ssh", '"ssh://me@gpu-1"')),
        ("unix:///" + "x" * 110, ("a socket's path has 107 bytes at most", "name it by a shorter link")),
        ("unix:///" + os.fsdecode(b"\xff"), ("is no UTF-8", "by a link")),
    ],
)
@pytest.mark.parametrize("command", [("--once",), ("config", "check")])
def test_a_bad_docker_host(here: Here, command: tuple[str, ...], host: str, says: tuple[str, ...]) -> None:
    check(here(*command, env={"DOCKER_HOST": host}), "DOCKER_HOST", says)


# -- good variables ----------------------------------------------------------------------------------------------------

GOOD: Mapping[str, tuple[str, tuple[str, ...], object]] = {
    "REAPER_RETRY__ATTEMPTS": ("7", ("retry", "attempts"), 7),
    "REAPER_RETRY__FACTOR": ("1.5", ("retry", "factor"), 1.5),
    "REAPER_RETRY__TOTAL": ("2m", ("retry", "total"), "2m"),
    "REAPER_SCOPE__EVERYTHING": ("true", ("scope", "everything"), True),
    "REAPER_SCOPE__LABELS": ("team=rl, run", ("scope", "labels"), ["team=rl", "run"]),
    "REAPER_SCOPE__NAMES": ('["a,b*", "c"]', ("scope", "names"), ["a,b*", "c"]),
    "REAPER_SCOPE__PRESETS": ("[]", ("scope", "presets"), []),
    "REAPER_LIMITS__MAX_DELETIONS": ("none", ("limits", "max_deletions"), None),
    "REAPER_LIMITS__MAX_FRACTION": ("0.25", ("limits", "max_fraction"), 0.25),
    "REAPER_PROTECT__RESTART_POLICIES": ("always", ("protect", "restart_policies"), ["always"]),
}


def test_variables_override_everything_and_others_are_no_settings() -> None:
    env = {name: value for name, (value, _, _) in GOOD.items()}
    others = {"REAPER_LEASE": "7f3a", "REAPER_REQUIRE_ENGINE": "1", "REAPER": "__", "XREAPER_A__B": "1"}
    loaded = load.load(None, env | others)
    dumped = loaded.settings.model_dump(mode="json")
    for name, (_, (table, key), value) in GOOD.items():
        assert dumped[table][key] == value, name
        assert loaded.origin((table, key)) == name
    assert set(loaded.origins.values()) == set(env)


def test_a_variable_overrides_one_key_of_one_policy_and_leaves_the_rest() -> None:
    before = load.load(None, {}).settings
    after = load.load(None, {"REAPER_POLICY__STOPPED_CONTAINERS__EVERY": "1m"}).settings
    assert after.policy[0].every is not None
    assert after.policy[0].every.total_seconds() == 60
    assert after.policy[0].model_copy(update={"every": before.policy[0].every}) == before.policy[0]
    assert after.policy[1:] == before.policy[1:]


def test_a_variable_comes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[retry]\nattempts = 2\nfactor = 3.0\n[[docker]]\nname = "gpu-1"\nhost = "tcp://gpu-1:2375"\n')
    env = {"REAPER_RETRY__ATTEMPTS": "9", "REAPER_DOCKER__GPU_1__HOST": "tcp://10.0.0.9:2375"}
    loaded = load.load(str(file), env)
    assert (loaded.settings.retry.attempts, loaded.settings.retry.factor) == (9, 3.0)
    ((provider, table),) = loaded.settings.endpoints()
    assert provider.address(table) == "tcp://10.0.0.9:2375"
    assert loaded.origin(("retry", "attempts")) == "REAPER_RETRY__ATTEMPTS"
    assert loaded.origin(("retry", "factor")) == str(file)
    assert loaded.origin(("docker", 0, "host")) == "REAPER_DOCKER__GPU_1__HOST"


def test_a_variable_decides_what_goes(run: Program, fake: FakeEngine) -> None:
    fake.add("young", ago="2h")
    fake.add("old", ago="5h")
    fake.add("ours", ago="5h", owned=False, labels={"team": "rl"})
    ended = run(
        "--once",
        env={"REAPER_POLICY__STOPPED_CONTAINERS__STOPPED_FOR": "4h", "REAPER_SCOPE__LABELS": "team=rl", "REAPER_LEASE": "x"},
    )
    assert ended.code == 0
    assert fake.names() == {"young"}

"""Every kind of bad option: one or two lines that name it and the hint, exit 2, and no engine is even asked."""

from collections.abc import Mapping

import pytest

from reaper.cli import build_parser, main
from tests.program.fakeengine import FakeEngine
from tests.program.terminal import at_terminal
from tests.run import Program

# The arguments, and what must be said.
CASES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "unknown option": ("--once --no-such-option", ("unrecognized arguments: --no-such-option", "--help")),
    "abbreviated option": ("--once --dry", ("unrecognized arguments: --dry", "--help")),
    "unknown option of a command": ("list --no-such-option", ("--no-such-option", "--help")),
    "unknown command": (
        "lst",
        ("'lst'", "'list', 'check', 'explain', 'run', 'init', 'history', 'leases', 'demo', 'ryuk', 'simulate', 'config'"),
    ),
    "unknown action of config": ("config chekc", ("'chekc'", "'check', 'show', 'schema'")),
    "mistyped command": ("lst", ("; did you mean list?",)),
    "mistyped option": ("--once --dry-rnu", ("unrecognized arguments: --dry-rnu; did you mean --dry-run?",)),
    "mistyped option of a command": ("list --lable x", ("; did you mean --label?",)),
    "mistyped action of config": ("config chek", ("; did you mean check?",)),
    "a command to run without --": ("run ls -la", ("stands behind --: reaper run [options] -- ls -la",)),
    "config alone": ("config", ("arguments are required: check|show|schema|example\n",)),
    "completion alone": ("completion", ("arguments are required: bash|zsh|tcsh\n",)),
    "unknown shell": ("completion ksh", ("'ksh'", "'bash', 'zsh', 'tcsh'")),
    "json and completion": ("--json completion bash", ("--json does not go with completion, which reads nothing of yours",)),
    "two dashes for a value": ("--once --older-than=--", ("argument --older-than: expected one argument", "--help")),
    "no value": ("--once --policy", ("--policy", "expected one argument")),
    "an age without a unit": ("--once --older-than 24", ("--older-than: '24' is not a duration", 'for example "90s"')),
    "no age": ("--once --older-than old", ("--older-than: 'old'", '"6h"')),
    "a negative age": ("--once --older-than=-24h", ("--older-than: '-24h'", '"6h"')),
    "no number": (
        "--once --max-deletions many",
        ("--max-deletions: 'many' is no limit", "a number, a percentage", '"none"'),
    ),
    "a negative age in a word of its own": ("--once --older-than -24h", ("--older-than: '-24h'", '"6h"')),
    "a negative time of a command": ("list --timeout -.5m", ("--timeout: '-.5m'",)),
    "a negative number": ("--once --max-deletions=-1", ("--max-deletions: '-1'", "a percentage")),
    "more than all": ("--once --max-deletions 101%", ("--max-deletions: '101%'", "1% to 100%")),
    "nothing of all": ("--once --max-deletions 0%", ("--max-deletions: '0%'", "1% to 100%")),
    "half a percent": ("--once --max-deletions 0.5%", ("--max-deletions: '0.5%'", "1% to 100%")),
    "other digits": ("--once --max-deletions ٣", ("--max-deletions: '٣'", "a number")),
    "no time": ("--once --timeout 0", ("--timeout: must be greater than 0", '"10m"')),
    "a bad time": ("list --timeout soon", ("--timeout: 'soon'", '"10m"')),
    "unknown endpoint": ("--once --only locla", ("--only: no endpoint is called 'locla'", "did you mean 'local'?")),
    "daytona": ("--once --only daytona", ("DAYTONA_API_KEY is not set", "api_key_env or api_key_file in [[daytona]]")),
    "unknown policy": ("--once --policy old-container", ("--policy: no policy", "did you mean 'old-containers'?")),
    "a policy like nothing": ("check --policy quux", ("'quux'", "known are: idle-sandboxes, old-containers,")),
    "policy and one-off": (
        "--once --policy old-containers --stopped",
        ("--policy", "one-off options replace", "leave one out"),
    ),
    "all and stopped": ("--once --all --stopped", ("--all already takes in", "--stopped", "out")),
    "all and older": ("check --all --older-than 1h", ("--all already takes in", "--older-than", "out")),
    "aggressive and all": ("--once --aggressive --all", ("--aggressive", "one-off options replace", "leave one out")),
    "aggressive and stopped": ("--once --aggressive --stopped", ("--aggressive", "leave one out")),
    "dry run alone": ("--dry-run", ("--dry-run needs --once", "try: reaper --once --dry-run")),
    "fail fast alone": ("--fail-fast", ("--fail-fast needs --once", "try: reaper --once --fail-fast")),
    "all alone": ("--all --only local", ("--all needs --once", "try: reaper --once --all --only local")),
    "older than alone": ("--older-than 1h", ("--older-than needs --once", "try: reaper --once --older-than 1h")),
    "only options": ("--json --only local", ("--json needs --once",)),
    "dry run and list": ("--dry-run list", ("--dry-run does not go with list", "--help")),
    "list and dry run": ("list --dry-run", ("--dry-run does not go with list; it is an option of --once\n",)),
    "check and once": ("check --once", ("--once does not go with check\n",)),
    "an option for a command": ("once", ("invalid choice: 'once'", "; did you mean --once?")),
    "the service for a command": ("service", ("the service is reaper without a command: reaper --config FILE",)),
    "status for a command": ("status", ("the service is reaper without a command", "its page shows its state\n")),
    "an action of config that is none": ("config status", ("invalid choice: 'status'", "'example')\n")),
    "help for a command": ("help", ("; did you mean --help?",)),
    "history and a sort": ("history --sort=age", ("--sort does not go with history; it is an option of list, check\n",)),
    "once and an option of run": (
        "--once --skip-cleanup",
        ("--skip-cleanup does not go with --once or the service; it is an option of run\n",),
    ),
    "a policy for a sweep that is left out": (
        "run --skip-cleanup --all -- true",
        ("--all does not go with run --skip-cleanup, which leaves out the sweep that it is for\n",),
    ),
    "an age for a sweep that is left out": (
        "run --older-than 1h --skip-cleanup -- true",
        ("--older-than does not go with run",),
    ),
    "an endpoint and config": ("--only local config check", ("--only does not go with config, which looks at no endpoint",)),
    "an option before simulate": ("--json simulate", ("simulate stands first and has options of its own",)),
    "once and check": ("--once check", ("--once does not go with check",)),
    "a cap and explain": ("--max-deletions 0 explain x", ("--max-deletions does not go with explain",)),
    "once and config": ("--once config show", ("--once does not go with config",)),
    "explain what": ("explain", ("explain: the following arguments are required: RESOURCE", "--help")),
    "an open bracket in a name": ("--once --all --name a[b", ("--name", "'a[b'", "does not close it", "[[]")),
    "an open bracket in an image": ("list --image a[b", ("--image", "'a[b'", "[[]")),
    "no label": ("--once --label =x", ("--label", "'=x' names no label", '"key=value"')),
    "unknown level": ("--once --log-level trace", ("'trace'", "'debug', 'info', 'warning', 'error'")),
    "unknown format": ("list --log-format xml", ("'xml'", "'console', 'json'")),
}


@pytest.mark.parametrize(("arguments", "says"), CASES.values(), ids=CASES.keys())
def test_a_bad_option_is_reported_with_the_cure(
    fake: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    says: tuple[str, ...],
) -> None:
    monkeypatch.setenv("DOCKER_HOST", fake.host)
    try:
        code = main(arguments.split())
    except SystemExit as error:  # argparse's way
        code = error.code if isinstance(error.code, int) else 1
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("reaper")
    for part in says:
        assert part in err
    assert len(err.splitlines()) <= 2
    assert fake.calls == []


def test_help_tells_the_exit_codes_and_every_option(run: Program) -> None:
    ended = run("--help")
    assert (ended.code, ended.err) == (0, "")
    actions = build_parser()._actions
    options = [option for action in actions for option in action.option_strings]
    assert len(options) > 20
    for word in (*options, "list", "check", "explain", "config", "130, 143"):
        assert word in ended.out


def test_explain_of_something_unknown(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    ended = run("explain", "ches-1")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "reaper: nothing on local is called 'ches-1'\n  reaper list shows what there is\n"


def test_explain_of_something_ambiguous(run: Program, fake: FakeEngine) -> None:
    first, second = fake.add("chess-1"), fake.add("chess-2")
    first.id, second.id = "ab" + first.id[2:], "ab" + second.id[2:]
    fake.containers = {container.id: container for container in (first, second)}
    ended = run("explain", "ab")
    assert (ended.code, ended.out) == (2, "")
    assert "'ab' is not unique" in ended.err
    for container in (first, second):
        assert f"local/{container.name} ({container.id[:12]})" in ended.err
    assert "name one by its id or as ENDPOINT/NAME" in ended.err
    for name in (first.id[:12], "local/chess-1"):
        ended = run("explain", name)
        assert ended.code == 0
        assert ended.out.startswith(f"local/chess-1 (container {first.id[:12]}, exited)\n")


def test_options_may_stand_before_and_behind_the_command(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    fake.add("go-1")
    before, behind = run("--json", "--name", "go-*", "list"), run("list", "--json", "--name", "go-*")
    assert (before.code, behind.code) == (0, 0)
    for ended in (before, behind):
        (resource,) = ended.document["endpoints"][0]["resources"]
        assert resource["name"] == "go-1"


def test_bare_at_a_terminal_it_says_why_it_prints_the_help(run: Program, fake: FakeEngine) -> None:
    seen = at_terminal(run, where="err")
    assert seen.code == 2
    assert "there is no configuration file" in seen.text
    assert "See what one sweep would delete: reaper --once --dry-run. Write a configuration: reaper init." in seen.lines[-2]
    assert fake.calls == []

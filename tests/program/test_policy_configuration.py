"""Policies that say what people mean, as the file has them: what is refused, and what ``config check`` says of the rest."""

from pathlib import Path

import pytest

from reaper.config import load
from tests.run import Program

X = '[[policy]]\nname = "x"\nkinds = ["container"]\n'
DEFAULTS = ["stopped-containers", "old-containers", "orphaned", "stopped-sandboxes", "idle-sandboxes", "old-sandboxes"]


def _loaded(folder: Path, text: str, **env: str) -> load.Config:
    (folder / "mine.toml").write_text(text)
    return load.load(str(folder / "mine.toml"), env)


def _warned(program: Program, text: str, *options: str, **env: str) -> list[str]:
    (program.folder / "reaper.toml").write_text(text)
    ended = program("config", "check", *options, env=env)
    assert (ended.code, ended.err) == (0, "")
    return [line.removeprefix("warning: ") for line in ended.out.splitlines() if line.startswith("warning")]


# -- the built-in ones -------------------------------------------------------------------------------------------------


def test_the_built_in_policies_can_be_kept_beside_ones_own(tmp_path: Path) -> None:
    own = X + 'older_than = "1h"\n'
    assert [policy.name for policy in _loaded(tmp_path, own).settings.policy] == ["x"]
    both = _loaded(tmp_path, f"default_policies = true\n{own}").settings
    assert [policy.name for policy in both.policy] == ["x", *DEFAULTS]
    assert [p.name for p in _loaded(tmp_path, own, REAPER_DEFAULT_POLICIES="true").settings.policy] == ["x", *DEFAULTS]
    assert _loaded(tmp_path, "default_policies = true\n").settings.policy == load.load(None, {}).settings.policy


def test_one_of_their_names_replaces_the_built_in_one(tmp_path: Path) -> None:
    text = 'default_policies = true\n[[policy]]\nname = "old-containers"\nkinds = ["container"]\nolder_than = "3d"\n'
    found = _loaded(tmp_path, text).settings
    assert [policy.name for policy in found.policy] == ["old-containers", *(n for n in DEFAULTS if n != "old-containers")]
    assert found.policy[0].older_than is not None
    assert found.policy[0].older_than.days == 3


def test_a_variable_can_change_a_built_in_policy_that_is_kept(tmp_path: Path) -> None:
    text = f'default_policies = true\n{X}older_than = "1h"\n'
    found = _loaded(tmp_path, text, REAPER_POLICY__OLD_CONTAINERS__OLDER_THAN="8h").settings
    ages = {policy.name: policy.older_than for policy in found.policy}
    assert [policy.name for policy in found.policy] == ["x", *DEFAULTS]
    assert str(ages["old-containers"]) == "8:00:00"


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED = {
    "all without a window": ("all = true", "say when none is, for example window ="),
    "all with a window of most of the day": ('all = true\nwindow = "05:00-04:00"', "12 hours at most"),
    "all with a condition": ('all = true\nwindow = "02:00-05:00"\nolder_than = "1h"', "older_than does not go with it"),
    "a window that is none": ('older_than = "1h"\nwindow = "2-5"', "is no part of a day; write for example"),
    "a window of no length": ('older_than = "1h"\nwindow = "02:00-02:00"', "it ends when it begins"),
    "a window in no zone": ('older_than = "1h"\nwindow = "02:00-03:00"\ntimezone = "Mars"', "'Mars' is no time zone"),
    "exit codes alone": ('exit_codes = ["nonzero"]', "exit_codes alone would take what has just ended"),
    "a word that is no exit code": ('stopped_for = "1h"\nexit_codes = ["failed"]', "'failed' is no exit code; write"),
    "a number that is none": ('stopped_for = "1h"\nexit_codes = [256]', "256 is no exit code; write"),
    "an exit code that is no list": ('stopped_for = "1h"\nexit_codes = "zero"', 'for example exit_codes = ["nonzero"]'),
    "an unknown exclusion": ('stopped_for = "1h"\nexclude = { label = ["x"] }', "'exclude.label'; did you mean 'labels'?"),
    "an exclusion that is no table": ('stopped_for = "1h"\nexclude = ["x"]', "write for example exclude = {"),
    "an exclusion of nothing": ('stopped_for = "1h"\nexclude = {}', "it excludes nothing"),
    "an exclusion of everything": ('stopped_for = "1h"\nexclude = { names = ["*"] }', "protects everything"),
    "exclusive about everything": ('stopped_for = "1h"\nexclusive = true', 'add for example labels = ["user=bob"]'),
    "the top-level key below a table": ('stopped_for = "1h"\ndefault_policies = true', "above the first table"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_with_what_would_be_right(program: Program, name: str) -> None:
    text, hint = REFUSED[name]
    (program.folder / "reaper.toml").write_text(X + text + "\n")
    ended = program("config", "check")
    assert (ended.code, ended.out) == (2, "")
    assert "[[policy]] 'x'" in ended.err
    assert hint in ended.err


def test_exit_codes_are_for_containers_only(program: Program) -> None:
    (program.folder / "reaper.toml").write_text(
        '[[policy]]\nname = "x"\nkinds = ["sandbox"]\nstopped_for = "1h"\nexit_codes = [1]\n'
    )
    assert "exit_codes is for containers only, not for a sandbox" in program("config", "check").err


def test_variables_set_the_new_keys_as_well(tmp_path: Path) -> None:
    found = _loaded(
        tmp_path,
        X + 'stopped_for = "1h"\n',
        REAPER_POLICY__X__EXIT_CODES="nonzero,0",
        REAPER_POLICY__X__EXCLUDE='{ labels = ["user=bob"] }',
        REAPER_POLICY__X__WINDOW="02:00-05:00",
    ).settings.policy[0]
    assert found.exit_codes == ("nonzero", 0)
    assert found.exclude is not None
    assert (found.exclude.labels, found.window) == (("user=bob",), "02:00-05:00")


def test_the_limits_are_tight_where_a_policy_takes_everything(tmp_path: Path) -> None:
    nightly = X + 'all = true\nwindow = "02:00-05:00"\n'
    limits = _loaded(tmp_path, nightly).settings.effective_limits()
    assert (limits.max_deletions, limits.max_fraction) == (100, 0.5)
    own = _loaded(tmp_path, f"[limits]\nmax_deletions = 300\nmax_fraction = 1.0\n{nightly}").settings.effective_limits()
    assert (own.max_deletions, own.max_fraction) == (300, 1.0)


# -- what ``config check`` says ----------------------------------------------------------------------------------------

BOB = '[[policy]]\nname = "bob"\nkinds = ["container"]\nlabels = ["user=bob"]\n'


@pytest.mark.parametrize(
    ("own", "wide"),
    [
        ('older_than = "3d"', 'older_than = "24h"'),
        ('older_than = "3d"', 'stopped_for = "6h"'),
        ('stopped_for = "1d"', 'older_than = "24h"'),
        ('stopped_for = "1d"', 'states = ["stopped"]'),
    ],
)
def test_an_owners_age_that_a_wider_policy_cuts_short_is_named_with_the_remedy(
    program: Program, own: str, wide: str
) -> None:
    text = f'{BOB}{own}\n[[policy]]\nname = "wide"\nkinds = ["container"]\n{wide}\n'
    (warned,) = _warned(program, text)
    assert warned.startswith("policy bob ")
    assert "wide" in warned
    assert _warned(program, text.replace(own, f"{own}\nexclusive = true")) == []
    assert _warned(program, f'{text}exclude = {{ labels = ["user=bob"] }}\n') == []


def test_a_shorter_age_of_an_owner_is_no_reason_to_warn(program: Program) -> None:
    assert _warned(program, f'default_policies = true\n{BOB}stopped_for = "1h"\n') == []


def test_failed_trials_that_are_not_kept_for_long_are_named(program: Program) -> None:
    failed = '[[policy]]\nname = "failed"\nkinds = ["container"]\nexit_codes = ["nonzero"]\nstopped_for = "1d"\n'
    warned = _warned(program, f"default_policies = true\n{failed}")
    assert [text.split(":")[0] for text in warned] == [
        "policy failed has no effect of its own",
    ]
    clean = '[[policy]]\nname = "clean"\nkinds = ["container"]\nexit_codes = ["zero"]\nstopped_for = "1h"\n'
    assert _warned(program, failed + clean) == []
    old = '[[policy]]\nname = "old"\nkinds = ["container"]\nolder_than = "1d"\n'
    assert [text.split(":")[0] for text in _warned(program, failed + clean + old)] == [
        "policy failed has no effect of its own",
    ]
    assert _warned(program, f'{failed}{clean}{old}states = ["running"]\n') == []


NEVER = {
    "of no endpoint": (
        '[[docker]]\nname = "gpu-1"\n[[policy]]\nname = "x"\nkinds = ["sandbox"]\nidle_for = "1h"\n',
        "no endpoint has a sandbox",
    ),
    "two values of one label": (
        X + 'stopped_for = "1h"\nlabels = ["user=bob", "user=eve"]\n',
        "no resource has both labels user=bob and user=eve",
    ),
    "what it excludes itself": (
        X + 'stopped_for = "1h"\nlabels = ["user=bob"]\nexclude = { labels = ["user"] }\n',
        "it selects label user=bob, which exclude keeps from it",
    ),
    "what is protected": (
        '[protect]\nnames = ["db-*"]\n' + X + 'stopped_for = "1h"\nnames = ["db-*"]\n',
        "it selects name db-*, which [protect] keeps from it",
    ),
    "what is another's alone": (
        X + f'stopped_for = "1h"\nlabels = ["user=bob"]\n{BOB}older_than = "3d"\nexclusive = true\n',
        "policy bob is exclusive, and selects all that it selects",
    ),
    "what has no exit code": (
        X + 'stopped_for = "1h"\nstates = ["created"]\nexit_codes = [1]\n',
        "what is created has no exit code",
    ),
}


@pytest.mark.parametrize("name", NEVER)
def test_a_policy_that_never_matches_is_named(program: Program, name: str) -> None:
    text, why = NEVER[name]
    assert any(warned.startswith(f"policy x never matches: {why}") for warned in _warned(program, text))


def test_a_policy_whose_times_are_outside_of_its_window_is_named(program: Program) -> None:
    text = X + 'older_than = "1h"\nwindow = "02:00-05:00"\ncron = "0 12 * * *"\n'
    assert _warned(program, text) == ["policy x never runs: no time of its cron lies in its window"]


def test_the_nightly_clean_is_announced_as_what_it_is(program: Program) -> None:
    text = X + 'all = true\nwindow = "02:00-05:00"\ntimezone = "Europe/Berlin"\nevery = "30m"\n'
    (warned,) = _warned(program, text)
    assert warned.startswith(
        "policy x takes everything that is owned between 02:00 and 05:00 (Europe/Berlin), whatever its age"
    )
    lines = program("config", "check").out.splitlines()
    said = next(line for line in lines if line.startswith("policy: x: "))
    assert "containers of any age and state, but for what has a lease, between 02:00 and 05:00 (Europe/Berlin) only" in said
    assert "; every 30 min between 02:00 and 05:00 (Europe/Berlin), " in said
    assert "limit: 100 deletions for each endpoint and sweep, and no more than 50% of what it holds" in lines


def test_each_policy_is_one_sentence_with_its_next_run(program: Program) -> None:
    text = (
        'default_policies = true\n[[policy]]\nname = "failed"\nkinds = ["container"]\nstopped_for = "1d"\n'
        'exit_codes = ["nonzero", 0]\nexclude = { labels = ["user=bob"] }\nlabels = ["team"]\nexclusive = true\n'
    )
    (program.folder / "reaper.toml").write_text(text)
    policies = [line for line in program("config", "check").out.splitlines() if line.startswith("policy: ")]
    assert len(policies) == 7
    assert policies[0] == (
        "policy: failed: containers stopped for 24 h and that exited with nonzero or 0, label team, except label user=bob,"
        " which no other policy takes; every 10 min, first when the service starts"
    )
    assert "; at cron 15 * * * * (UTC), next 20" in policies[-1]
    assert policies[-1].endswith(":15 UTC")


# -- without secrets and files ------------------------------------------------------------------------------------------

ORGANISATION = (
    '[[daytona]]\nname = "rl"\napi_key_env = "RL_KEY"\n[[daytona]]\nname = "eval"\napi_key_file = "/nowhere/key"\n'
    '[[docker]]\nname = "gpu-1"\nhost = "tcp://gpu-1:2376"\ntls_ca = "/nowhere/ca.pem"\n'
    '[leases]\ntoken_file = "/nowhere/t"\n'
)


def test_offline_names_what_is_missing_and_says_the_rest(program: Program) -> None:
    (program.folder / "reaper.toml").write_text(ORGANISATION)
    assert program("config", "check").code == 2
    warned = _warned(program, ORGANISATION, "--offline")
    for missing in ("/nowhere/ca.pem", "RL_KEY is not set", "'/nowhere/key' of endpoint eval", "'/nowhere/t' of [leases]"):
        assert any(missing in line for line in warned), warned
    lines = program("config", "check", "--offline").out.splitlines()
    assert [line.split(",")[0] for line in lines if line.startswith("endpoint: ")] == [
        "endpoint: gpu-1",
        "endpoint: rl",
        "endpoint: eval",
    ]


def test_offline_is_for_check_alone(program: Program) -> None:
    ended = program("config", "show", "--offline")
    assert (ended.code, ended.out) == (2, "")
    assert "--offline: it does not go with config show" in ended.err


# -- how it is written --------------------------------------------------------------------------------------------------


def test_a_byte_order_mark_and_a_space_before_a_unit_are_read(tmp_path: Path) -> None:
    found = _loaded(tmp_path, f'\ufeff{X}older_than = "24 h"\nstopped_for = "1d 12 h"\n').settings.policy[0]
    assert (str(found.older_than), str(found.stopped_for)) == ("1 day, 0:00:00", "1 day, 12:00:00")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("24", 'did you mean "24s", "24m" or "24h"?'),
        ("6 hours", 'did you mean "6h"?'),
        ("30min", 'did you mean "30m"?'),
        ("1H", 'did you mean "1h"?'),
        ("1 day 2 hrs", 'did you mean "1d2h"?'),
        ("5 fortnights", "the units are ms, s, m, h, d, w"),
    ],
)
def test_a_mistyped_unit_is_suggested(program: Program, text: str, hint: str) -> None:
    ended = program("--once", "--older-than", text)
    assert ended.code == 2
    assert hint in ended.err

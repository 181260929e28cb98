"""Who owns what, as facts/runners.md says that the runners leave it."""

from dataclasses import replace

import pytest

from reaper.core.model import Kind, Reason, Remembered, Resource, State
from reaper.core.owners import Owners
from reaper.core.rules import Rules
from reaper.core.scope import Protect, Scope, Selector, image_forms, image_matches, label_matches
from tests.core.make import EVERYTHING, FOREIGN, HARBOR_FILE, NETWORK, NOW, RUNNING, SANDBOX, judge_one
from tests.core.strategies import DIGEST, PROJECT_FILES

PREBUILT = HARBOR_FILE.replace("build", "prebuilt")
CHESS = "chess-best-move-1-of-1-2026-11-21__06-30-00"
PLAIN = replace(FOREIGN, image="redis:7", group=CHESS)


def by(resource: Resource, *others: Resource, scope: Scope | None = None) -> str | None:
    """What owns the resource."""
    owner = Owners([resource, *others], scope or Scope()).owner(resource)
    return None if owner is None else owner.by


def labelled(**labels: str) -> Resource:
    return replace(PLAIN, labels=dict(labels))


def with_files(files: str) -> Resource:
    return replace(PLAIN, group="task__ab12cd3", labels={PROJECT_FILES: files})


@pytest.mark.parametrize(
    "image",
    [
        "tb__chess-best-move__client",
        "tb__chess-best-move__client:latest",
        "localhost:5000/tb__chess-best-move__client:1.2",
        "registry.example.com/tb__a__client",
        "docker.io/library/tb__a__client:1",
        f"tb__a__client@{DIGEST}",
        f"localhost/tb__a__client:1@{DIGEST}",
    ],
)
def test_a_terminal_bench_image_owns_its_container_and_its_project(image: str) -> None:
    client = replace(PLAIN, image=image)
    assert by(replace(client, group=None)) == "preset terminal-bench, image tb__*__client"
    assert by(client) == "preset terminal-bench, image tb__*__client"
    sidecar, network = replace(PLAIN, id="c2"), replace(NETWORK, group=CHESS)
    assert by(sidecar, client) == "preset terminal-bench, image tb__*__client in its project"
    assert by(network, sidecar, client) == "preset terminal-bench, image tb__*__client in its project"


@pytest.mark.parametrize(
    "image",
    [
        "postgres:16",
        "tb__client",
        "tb__x__server",
        "xtb__a__client",
        "someone/tb__a__client",
        "client",
        DIGEST,
        None,
        "TB__a__client",
    ],
)
def test_other_images_are_no_sign(image: str | None) -> None:
    assert by(replace(PLAIN, image=image)) is None


def test_a_project_is_owned_on_its_own_endpoint_only() -> None:
    client = replace(PLAIN, image="tb__a__client", endpoint="gpu-1", id="c2")
    assert by(PLAIN, client) is None


def test_being_in_a_project_is_no_sign() -> None:
    assert by(PLAIN) is None
    assert by(labelled(**{"com.docker.compose.project": CHESS, PROJECT_FILES: "/srv/compose.yaml"})) is None
    assert by(PLAIN, replace(RUNNING, id="c2", group="another")) is None


@pytest.mark.parametrize("image", ["hb__swe-bench", "hb__a:1", "registry.example/hb__a:1", f"hb__a@{DIGEST}"])
def test_a_harbor_image_owns_its_project(image: str) -> None:
    main = replace(PLAIN, image=image)
    assert by(main) == "preset harbor, image hb__*"
    assert by(replace(PLAIN, id="c2"), main) == "preset harbor, image hb__* in its project"


@pytest.mark.parametrize(
    "files",
    [
        HARBOR_FILE,
        PREBUILT,
        f"/srv/a.yaml,{HARBOR_FILE}",
        f"{PREBUILT},/srv/a.yaml",
        f"/srv/a.yaml, {HARBOR_FILE} ,/srv/b.yaml",
    ],
)
def test_a_harbor_config_file_owns_its_project(files: str) -> None:
    main = with_files(files)
    assert (by(main) or "").startswith("preset harbor, config file */harbor/environments/docker/docker-compose-")
    network = replace(NETWORK, group="task__ab12cd3")
    assert (by(network, main) or "").endswith(".yaml in its project")


@pytest.mark.parametrize(
    "files",
    [
        "",
        "/srv/compose.yaml",
        "/srv/docker-compose-build.yaml",
        f"{HARBOR_FILE}.bak",
        "harbor/environments/docker/docker-compose-build.yaml",
        HARBOR_FILE.replace("build", "extra"),
    ],
)
def test_other_config_files_are_no_sign(files: str) -> None:
    assert by(with_files(files)) is None


def test_a_config_file_label_outside_a_project_is_no_sign() -> None:
    assert by(replace(with_files(HARBOR_FILE), group=None)) is None


@pytest.mark.parametrize("kind", [Kind.CONTAINER, Kind.SANDBOX, Kind.NETWORK])
@pytest.mark.parametrize(
    ("labels", "owner"),
    [
        ({"terminal-bench": ""}, "preset terminal-bench, label terminal-bench"),
        ({"terminal-bench": "yes"}, "preset terminal-bench, label terminal-bench"),
        ({"harbor.managed": "true"}, "preset harbor, label harbor.managed=true"),
        ({"harbor.managed": "false"}, None),
        ({"harbor.managed": ""}, None),
        ({"harbor.session_id": "x", "Terminal-Bench": ""}, None),
    ],
)
def test_labels_own_a_resource_of_any_kind(kind: Kind, labels: dict[str, str], owner: str | None) -> None:
    assert by(replace(FOREIGN, kind=kind, labels=labels)) == owner


def test_a_label_owns_its_resource_and_not_the_project() -> None:
    assert by(PLAIN, replace(labelled(**{"terminal-bench": ""}), id="c2")) is None


def test_an_image_on_something_else_than_a_container_is_no_sign() -> None:
    assert by(replace(SANDBOX, labels={}, image="hb__a")) is None


@pytest.mark.parametrize("presets", [(), ("terminal-bench",), ("harbor",)])
def test_a_preset_that_is_not_chosen_owns_nothing(presets: tuple[str, ...]) -> None:
    scope = Scope(presets=presets)
    assert (by(replace(PLAIN, image="tb__a__client"), scope=scope) is not None) == ("terminal-bench" in presets)
    assert (by(SANDBOX, scope=scope) is not None) == ("harbor" in presets)


@pytest.mark.parametrize(
    ("pattern", "labels", "matches"),
    [
        ("team", {"team": ""}, True),
        ("team", {"teams": "x"}, False),
        ("team", {}, False),
        ("team=rl", {"team": "rl"}, True),
        ("team=rl", {"team": "rlx"}, False),
        ("team=rl", {"team": "RL"}, False),
        ("team=", {"team": ""}, True),
        ("team=", {"team": "x"}, False),
        ("team=r*", {"team": "rl"}, True),
        ("team=*", {"team": ""}, True),
        ("team=*", {}, False),
        ("team=a=b", {"team": "a=b"}, True),
        ("te*", {"team": "rl"}, False),
        ("team=[rx]l", {"team": "rl"}, True),
    ],
)
def test_label_patterns(pattern: str, labels: dict[str, str], matches: bool) -> None:
    assert label_matches(pattern, labels) is matches


@pytest.mark.parametrize(
    ("reference", "repository"),
    [
        ("redis", "redis"),
        ("redis:7", "redis"),
        ("acme/worker:7", "acme/worker"),
        ("localhost/acme/worker", "acme/worker"),
        ("localhost:5000/worker:1", "worker"),
        ("registry.example.com:443/acme/worker:1", "acme/worker"),
        ("docker.io/library/redis:7", "redis"),
        (f"registry.example/acme/worker:7@{DIGEST}", "acme/worker"),
        (f"redis@{DIGEST}", "redis"),
    ],
)
def test_image_globs_match_the_reference_and_the_repository(reference: str, repository: str) -> None:
    assert image_forms(reference)[: 1 if reference == repository else 2] == tuple(dict.fromkeys((reference, repository)))
    assert image_matches((repository,), reference)
    assert image_matches((reference,), reference)
    assert not image_matches((f"{repository}x", "y*"), reference)


@pytest.mark.parametrize(
    ("reference", "listed"),
    [
        ("docker.io/acme/base:1", "acme/base:1"),
        ("index.docker.io/acme/base:1", "acme/base:1"),
        ("docker.io/library/redis", "redis:latest"),
        ("redis", "redis:latest"),
        (f"acme/base:1@{DIGEST}", "acme/base:1"),
        (f"docker.io/acme/base:1@{DIGEST}", "acme/base:1"),
    ],
)
def test_an_image_is_protected_by_the_name_that_it_is_listed_by(reference: str, listed: str) -> None:
    """However its container's creator wrote it: for the engine it is the same image."""
    protect = Protect(Selector(images=(listed,)))
    assert protect.selector.any_of(replace(PLAIN, image=reference)) == f"image {listed}"
    assert protect.selector.any_of(replace(PLAIN, image=reference.replace("base", "other").replace("redis", "x"))) is None


def test_no_image_matches_no_glob() -> None:
    assert not image_matches(("*",), None)


@pytest.mark.parametrize(
    ("selector", "owner"),
    [
        (Selector(labels=("team=web", "team=rl")), "scope label team=rl"),
        (Selector(names=("*-db", "trial-*")), "scope name trial-*"),
        (Selector(images=("acme/*",)), "scope image acme/*"),
        (Selector(labels=("nope",), names=("trial-*",), images=("nope",)), "scope name trial-*"),
        (Selector(labels=("nope",), names=("Trial-*",), images=("worker",)), None),
        (Selector(), None),
    ],
)
def test_the_entries_of_a_scope_are_ored(selector: Selector, owner: str | None) -> None:
    resource = replace(PLAIN, name="trial-1", labels={"team": "rl"}, image="registry.example/acme/worker:7")
    assert by(resource, scope=Scope(selector=selector)) == owner


def test_everything_owns_what_nothing_else_does() -> None:
    assert by(PLAIN, scope=Scope(everything=True)) == "scope everything"
    assert (by(RUNNING, scope=Scope(everything=True)) or "").startswith("preset terminal-bench")


def test_a_remembered_project_is_owned() -> None:
    remembered = replace(NETWORK, remembered=Remembered("preset harbor, image hb__*", NOW))
    assert by(remembered) == "remembered: preset harbor, image hb__*"


@pytest.mark.parametrize(
    ("said", "scope", "owned"),
    [
        ("preset harbor, image hb__*", Scope(presets=("terminal-bench",)), False),
        ("preset harbor", Scope(presets=("harbor",)), True),
        ("preset harbor-two", Scope(presets=("harbor",)), False),
        ("scope label team=rl", Scope(selector=Selector(labels=("team=rl",))), True),
        ("scope label team=rl on its project's containers", Scope(selector=Selector(labels=("team=rl",))), True),
        ("scope label team=rl", Scope(), False),
        ("scope everything", Scope(), False),
    ],
)
def test_memory_owns_nothing_that_the_scope_has_given_up(said: str, scope: Scope, owned: bool) -> None:
    remembered = replace(NETWORK, remembered=Remembered(said, NOW))
    assert by(remembered, scope=scope) == (f"remembered: {said}" if owned else None)


def test_missing_labels_match_nothing() -> None:
    unread = replace(PLAIN, labels=None)
    assert by(unread, scope=Scope(selector=Selector(labels=("team",)))) is None
    assert not Selector(labels=("team",)).all_of(unread)


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        (Selector(), True),
        (Selector(labels=("team=rl", "run")), True),
        (Selector(labels=("team=rl", "nope")), False),
        (Selector(names=("x", "trial-*")), True),
        (Selector(images=("x", "acme/*")), True),
        (Selector(labels=("run",), names=("trial-*",), images=("acme/*",)), True),
        (Selector(labels=("run",), names=("trial-*",), images=("x",)), False),
        (Selector(labels=("run",), names=("x",), images=("acme/*",)), False),
    ],
)
def test_a_policy_ands_its_labels_and_its_fields(selector: Selector, matches: bool) -> None:
    resource = replace(PLAIN, name="trial-1", labels={"team": "rl", "run": "1"}, image="registry.example/acme/worker:7")
    assert selector.all_of(resource) is matches


@pytest.mark.parametrize(
    ("protect", "sentence"),
    [
        (Protect(Selector(labels=("team=rl",))), "[protect] has label team=rl"),
        (Protect(Selector(names=("trial-*",))), "[protect] has name trial-*"),
        (Protect(Selector(images=("tb__a__client",))), "[protect] has image tb__a__client"),
        (Protect(Selector(labels=("nope",), names=("nope", "*-1"))), "[protect] has name *-1"),
    ],
)
def test_the_entries_of_a_protection_are_ored(protect: Protect, sentence: str) -> None:
    resource = replace(PLAIN, name="trial-1", labels={"team": "rl"}, image="reg.example.com/tb__a__client:1")
    decision = judge_one(resource, Rules(protect=protect, policies=(EVERYTHING,)))
    assert (decision.reason, decision.sentence) == (Reason.PROTECTED, sentence)
    assert resource.state is State.RUNNING

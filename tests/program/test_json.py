"""``--json``: one document on stdout, whatever happens, as reaper/schemas/report.schema.json says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import reaper
from devkit.faults import Fault, FaultProxy
from reaper.core.model import Kind, Outcome, Reason, State, Verdict
from tests import schemas
from tests.program.fakeengine import FakeEngine
from tests.program.wrapped import patched
from tests.run import Ended, Program

SCHEMA = json.loads((Path(__file__).parents[2] / "reaper" / "schemas" / "report.schema.json").read_text())
DEFS = SCHEMA["$defs"]


def valid(document: Any, form: str = "report") -> Any:
    """``document``, which is as the schema says."""
    part = {"$ref": f"#/$defs/{form}", "$defs": DEFS}  # one branch of the oneOf, for errors that say where
    errors = schemas.errors(document, part)
    assert errors == []
    assert schemas.validator(SCHEMA).is_valid(document)
    return document


def report(ended: Ended) -> Any:
    """The one document on stdout; its exit code is the program's."""
    assert ended.out.count("\n") == 1, "one document on one line"
    document = valid(ended.document)
    assert document["exit_code"] == ended.code
    assert document["version"] == reaper.__version__
    for one in (document, *document["endpoints"]):
        resources = [r for e in document["endpoints"] for r in e["resources"]] if one is document else one["resources"]
        outcomes = [r["outcome"] for r in resources if r["outcome"] is not None]
        assert one["counts"] == {outcome.value: outcomes.count(outcome.value) for outcome in Outcome}
    return document


def fill(fake: FakeEngine) -> None:
    """One of each that shows another side of the format."""
    fake.add_network("project_default", "project")
    fake.add("project-main-1", image="tb__chess__client", owned=False, project="project")
    fake.add("stuck", refusal=(500, "driver failed"))
    fake.add("going", refusal=(404, "No such container: going"))
    fake.add("in-use", refusal=(409, "You cannot remove a running container"), revives=True)
    fake.add("refused", refusal=(409, "You cannot remove a running container"))
    fake.add("young", "running", ago="5m")
    fake.add("never", "created", ago="1m")
    fake.add("removing", "removing")
    fake.add("odd", "melting")
    fake.add("kept", labels={"reaper.keep": ""})
    fake.add("odd-override", labels={"reaper.ttl": "soon"})
    fake.add("override-ended", "running", ago="2h", labels={"reaper.ttl": "1h"})
    fake.add("leased", labels={"reaper.lease": "7f3a"}, ago="7h")
    fake.add("neighbour", owned=False, labels={"ümlaut": 'quote " and \\ and \x1b[31m and \n'})


# -- the schema itself -------------------------------------------------------------------------------------------------


def _subschemas(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for inner in node.values():
            yield from _subschemas(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _subschemas(inner)


def test_the_schema_is_valid_and_strict() -> None:
    schemas.check(SCHEMA)
    objects = [node for node in _subschemas(DEFS) if node.get("type") == "object" and "properties" in node]
    assert len(objects) == 11
    for node in objects:
        assert node["additionalProperties"] is False
        assert node["required"] == list(node["properties"]), "all of them, in the order in which they come"


def _words(name: str) -> list[str]:
    definition = DEFS[name]
    return definition.get("enum") or [choice["const"] for choice in definition["oneOf"]]


def test_the_schema_has_the_words_of_the_model() -> None:
    assert _words("reason") == [reason.value for reason in Reason]
    assert _words("outcome") == [outcome.value for outcome in Outcome]
    assert _words("verdict") == [verdict.value for verdict in Verdict]
    assert list(DEFS["counts"]["properties"]) == [outcome.value for outcome in Outcome]
    properties = DEFS["resource"]["properties"]
    assert properties["kind"]["enum"] == [kind.value for kind in Kind]
    assert properties["state"]["enum"] == [state.value for state in State]


def test_the_schema_tells_what_reaps_from_what_keeps() -> None:
    told = {choice["const"]: choice["description"].split(":")[0] for choice in DEFS["reason"]["oneOf"]}
    kept = list(Reason).index(Reason.UNREADABLE)  # in the model the first of those that keep
    assert [told[reason.value] for reason in Reason] == ["Reaped"] * kept + ["Kept"] * (len(Reason) - kept)


# -- the documents -----------------------------------------------------------------------------------------------------


def test_the_report_of_a_sweep(run: Program, fake: FakeEngine) -> None:
    fill(fake)
    document = report(ended := run("--once", "--json"))
    assert (ended.code, document["command"], document["dry_run"], document["interrupted"]) == (3, "once", False, None)
    (endpoint,) = document["endpoints"]
    assert (endpoint["endpoint"], endpoint["provider"], endpoint["held"]) == ("local", "docker", 15)
    assert ended.outcomes() == {
        "project_default": "deleted",
        "project-main-1": "deleted",
        "stuck": "failed",
        "going": "failed",  # the engine says that it is gone, and lists it
        "in-use": "skipped",
        "refused": "failed",  # the engine calls it running, and shows that it is not
        "override-ended": "deleted",
    }
    by_name = {resource["name"]: resource for resource in endpoint["resources"]}
    assert by_name["stuck"]["error"] == "server_error"
    assert by_name["stuck"]["attempts"] == 8, "four, and four more in the last round"
    assert by_name["going"]["error"] == "still_listed"
    assert by_name["refused"]["error"] == "conflict"
    assert by_name["project_default"]["kind"] == "network"
    assert by_name["neighbour"]["labels"] == {"ümlaut": 'quote " and \\ and \x1b[31m and \n'}
    reasons = {name: resource["reason"] for name, resource in by_name.items()}
    assert reasons == {
        "project_default": "group_reaped",
        "project-main-1": "stopped_for",
        "stuck": "stopped_for",
        "going": "stopped_for",
        "in-use": "stopped_for",
        "refused": "stopped_for",
        "young": "too_young",
        "never": "created_grace",
        "removing": "changing",
        "odd": "unknown_state",
        "kept": reasons["kept"],
        "odd-override": "invalid_label",
        "override-ended": "ttl_ended",
        "leased": "lease_unknown",
        "neighbour": "not_owned",
    }
    assert reasons["kept"] in ("protected", "keep_label")


@pytest.mark.parametrize(("arguments", "code"), [(("list",), 0), (("check",), 6), (("--once", "--dry-run"), 0)])
def test_the_reports_of_those_who_only_look(run: Program, fake: FakeEngine, arguments: tuple[str, ...], code: int) -> None:
    fill(fake)
    document = report(ended := run(*arguments, "--json"))
    assert ended.code == code
    assert document["command"] == arguments[0].removeprefix("--")
    assert document["dry_run"] is True
    assert set(ended.outcomes().values()) == {"would_delete"}
    assert fake.changes() == []


def test_the_explanation(run: Program, fake: FakeEngine) -> None:
    fill(fake)
    for name in ("young", "neighbour", "project_default"):
        ended = run("explain", name, "--json")
        document = valid(ended.document, "explanation")
        assert (ended.code, ended.out.count("\n")) == (0, 1)
        assert (document["endpoint"], document["resource"]["name"]) == ("local", name)
        verdicts = [rule["verdict"] for rule in document["rules"] if rule["verdict"] is not None]
        assert document["resource"]["verdict"] in verdicts


def test_the_report_of_a_cap(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    fake.add("chess-2")
    document = report(run("--once", "--json", "--max-deletions", "1"))
    assert document["exit_code"] == 4
    assert document["endpoints"][0]["cap"] == {"wanted": 2, "allowed": 1, "held": 2, "limit": "max_deletions = 1"}
    assert document["counts"]["abandoned"] == 2


def test_one_document_when_an_endpoint_fails(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    fake.add("chess-1")
    file = tmp_path / "two.toml"
    file.write_text(
        f'[[docker]]\nname = "gone"\nhost = "unix://{tmp_path}/no.sock"\n[[docker]]\nname = "here"\nhost = "{fake.host}"\n'
    )
    document = report(run("--once", "--json", "--config", str(file)))
    assert document["exit_code"] == 5
    assert [e["endpoint"] for e in document["endpoints"]] == ["gone", "here"]
    assert [e["failure"] and e["failure"]["error"] for e in document["endpoints"]] == ["no_endpoint", None]
    assert document["counts"]["deleted"] == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("garbage", "GET", "/containers/json"), "unreadable"),
        (Fault("truncate", "GET", "/networks"), "unavailable"),
        (Fault("status", "GET", "/containers/json", status=403, body={"message": "authorization denied"}), "denied"),
        (Fault("status", "GET", "/containers/json", status=503), "server_error"),
        (Fault("reset", "GET", "/containers/json"), "unavailable"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_one_document_when_the_listing_fails(run: Program, fake: FakeEngine, fault: Fault, error: str) -> None:
    fake.add("chess-1")
    with FaultProxy(fake.socket) as proxy:
        proxy.add(fault)
        ended = run("--once", "--json", env={"DOCKER_HOST": proxy.host, "REAPER_RETRY__ATTEMPTS": "2"})
    document = report(ended)
    assert document["exit_code"] == 5
    assert document["endpoints"][0]["failure"]["error"] == error
    assert document["endpoints"][0]["failure"]["message"]
    assert fake.names() == {"chess-1"}


def test_one_document_when_the_confirmation_fails(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    with FaultProxy(fake.socket) as proxy:
        proxy.add(Fault("status", "GET", "/containers/json", skip=2, status=500))
        ended = run("--once", "--json", env={"DOCKER_HOST": proxy.host, "REAPER_RETRY__ATTEMPTS": "2"})
    document = report(ended)
    assert document["exit_code"] == 5
    assert ended.outcomes() == {"chess-1": "failed"}, "what is not confirmed is not deleted"


def test_one_document_for_a_bug(run: Program, fake: FakeEngine) -> None:
    ended = patched(
        run, "import reaper.sweep.endpoint_sweep as s\ns.decide_within = lambda *a, **k: 1 / 0", "--once", "--json"
    )
    document = report(ended)
    assert document["exit_code"] == 1
    assert document["endpoints"][0]["failure"] == {
        "error": "internal_error",
        "message": "ZeroDivisionError: division by zero",
    }


def test_a_document_survives_any_encoding(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1", labels={"who": "Zoë 😀"})
    for encoding in ("ascii", "utf-8"):
        ended = run("list", "--json", env={"PYTHONIOENCODING": encoding})
        assert report(ended)["endpoints"][0]["resources"][0]["labels"]["who"] == "Zoë 😀"

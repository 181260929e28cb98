"""What releases of runners make, each beside what is like it and is another user's. Each world names where its forms stand.

A path is one in the released package; "run" means that the release was run on a real engine, and what it left was read.
"""

from dataclasses import dataclass, replace
from itertools import count

from reaper.core.model import Kind, Resource, State
from tests.core.make import ago

COMPOSE = "com.docker.compose."
FOLDER = "/opt/venv/lib/python3.12/site-packages/harbor/environments/docker/"
BUILD, PREBUILT = f"{FOLDER}docker-compose-build.yaml", f"{FOLDER}docker-compose-prebuilt.yaml"
BENCHFLOW = "/opt/venv/lib/python3.12/site-packages/benchflow/sandbox/_compose_files/docker-compose-"
BENCHFLOW_FILES = f"{BENCHFLOW}base.yaml,{BENCHFLOW}build.yaml,/tasks/t/docker-compose.yaml"
_ids = count(1)


@dataclass(frozen=True)
class World:
    """What one release makes of one sort, and what is like it.

    Args:
        preset: what owns the first.
        what: the release and the sort, for the name of the test.
        source: where the forms stand.
        owned: what the runner makes.
        foreign: what others make: no preset owns it.
    """

    preset: str
    what: str
    source: str
    owned: tuple[Resource, ...]
    foreign: tuple[Resource, ...]


def _made(kind: Kind, name: str, labels: dict[str, str] | None, **fields: object) -> Resource:
    usual: dict[str, object] = {
        "provider": "daytona" if kind is Kind.SANDBOX else "docker",
        "endpoint": "shared",
        "kind": kind,
        "id": f"{kind.value}-{next(_ids)}",
        "name": name,
        "state": State.RUNNING if kind.runs else State.STOPPED,
        "raw_state": {Kind.CONTAINER: "running", Kind.SANDBOX: "started"}.get(kind, "present"),
        "created_at": ago(days=9),
        "labels": labels or {},
    }
    if kind is Kind.CONTAINER:
        usual |= {"started_at": ago(days=9), "restart_policy": "no"}
    return Resource(**(usual | fields))  # type: ignore[arg-type]


def container(name: str, image: str, labels: dict[str, str] | None = None, **fields: object) -> Resource:
    """A container of its own."""
    return _made(Kind.CONTAINER, name, labels, image=image, **fields)


def member(project: str, service: str, image: str, files: str, folder: str = "/tasks/t", **fields: object) -> Resource:
    """A container of a Compose project, with the labels that Compose 2 sets."""
    labels = {
        f"{COMPOSE}project": project,
        f"{COMPOSE}service": service,
        f"{COMPOSE}container-number": "1",
        f"{COMPOSE}oneoff": "False",
        f"{COMPOSE}project.working_dir": folder,
        f"{COMPOSE}project.config_files": files,
    }
    return container(f"{project}-{service}-1", image, labels, group=project, **fields)


def _labelled(resource: Resource, more: dict[str, str]) -> Resource:
    return replace(resource, labels={**(resource.labels or {}), **more})


def network(project: str, name: str = "default") -> Resource:
    """A network of a Compose project."""
    labels = {f"{COMPOSE}project": project, f"{COMPOSE}network": name}
    return _made(Kind.NETWORK, f"{project}_{name}", labels, group=project)


def volume(project: str, name: str = "data") -> Resource:
    """A named volume of a Compose project."""
    labels = {f"{COMPOSE}project": project, f"{COMPOSE}volume": name}
    return _made(Kind.VOLUME, f"{project}_{name}", labels, group=project)


def image(*tags: str, labels: dict[str, str] | None = None, project: str | None = None) -> Resource:
    """An image with its tags."""
    return _made(Kind.IMAGE, tags[0], labels, image=tags[0], tags=tags, group=project)


def built(project: str, service: str) -> Resource:
    """An image that Compose has built for a service."""
    return image(
        f"{project}-{service}:latest",
        labels={f"{COMPOSE}project": project, f"{COMPOSE}service": service},
        project=project,
    )


def sandbox(name: str, labels: dict[str, str], **fields: object) -> Resource:
    """A sandbox of Daytona."""
    return _made(Kind.SANDBOX, name, labels, last_activity_at=ago(hours=3), group=labels.get("harbor.session_id"), **fields)


TRIAL = "chess-best-move-1-of-1-2026-11-21__06-30-00"
TASK = "/root/.cache/terminal-bench/terminal-bench-core/0.1.1/chess-best-move"
TASK_FILE = f"{TASK}/docker-compose.yaml"
UUID = "6fd0c39d-2a6b-4c53-9f0a-0d8b7a1e5c11"
SESSION = {"org.testcontainers": "true", "org.testcontainers.session-id": UUID}

WORLDS: tuple[World, ...] = (
    # -- Terminal-Bench ------------------------------------------------------------------------------------------------
    World(
        "terminal-bench",
        "0.2.18 trial",
        "terminal_bench/terminal/docker_compose_manager.py; run",
        (
            member(TRIAL, "client", "tb__chess-best-move__client", TASK_FILE, TASK),
            network(TRIAL),
        ),
        (
            member("chess", "client", "chess-client:latest", "/home/ann/chess/docker-compose.yaml", "/home/ann/chess"),
            network("chess"),
            container("tb-client", "tb_client"),
        ),
    ),
    World(
        "terminal-bench",
        "0.2.18 trial with a database beside the client",
        "terminal_bench/terminal/docker_compose_manager.py",
        (
            member("sql-1-of-1-2026-11-21__06-30-01", "client", "tb__sql__client", TASK_FILE, TASK),
            member("sql-1-of-1-2026-11-21__06-30-01", "db", "postgres:16", TASK_FILE, TASK),
            network("sql-1-of-1-2026-11-21__06-30-01"),
            volume("sql-1-of-1-2026-11-21__06-30-01"),
        ),
        (
            member("sql", "db", "postgres:16", "/srv/sql/compose.yaml", "/srv/sql"),
            network("sql"),
            volume("sql"),
            container("postgres", "postgres:16"),
        ),
    ),
    World(
        "terminal-bench",
        "0.2.18 what is left of a trial without its containers",
        "terminal_bench/terminal/docker_compose_manager.py; run, killed within `down`",
        (network("csv-2-of-5-2026-11-20__23-59-59"), volume("csv-2-of-5-2026-11-20__23-59-59")),
        (
            network("csv-2-of-5"),
            volume("csv-2-of-5-2026-11-20"),
            network("report-2026-11-20__23-59-59"),
            volume("backup-2026-11-20"),
        ),
    ),
    World(
        "terminal-bench",
        "0.2.18 images",
        "terminal_bench/harness/harness.py; run",
        (image("tb__chess-best-move__client:latest"), image("tb__sql__db:latest")),
        (
            image("tb_chess:latest"),
            image("ghcr.io/acme/tb:1"),
            image("tb__shared__client:latest", "registry.acme.dev/keep:1"),  # another user has tagged it, too
        ),
    ),
    World(
        "terminal-bench",
        "the label that teams add",
        "README of this program, facts of teams",
        (container("trial-17", "python:3.12", {"terminal-bench": "1"}),),
        (
            container("trial-18", "python:3.12", {"terminal_bench": "1"}),
            container("trial-19", "python:3.12", {"terminal-bench": "1"}, inherited=frozenset({"terminal-bench"})),
        ),
    ),
    # -- Harbor, Docker ------------------------------------------------------------------------------------------------
    World(
        "harbor",
        "0.25.0 trial that is built",
        "harbor/environments/docker/docker.py, docker-compose-build.yaml; run",
        (
            member("hello-world__a1b2c3d", "main", "hello-world__a1b2c3d-main", f"{BUILD},/tasks/t/compose.yaml"),
            member("hello-world__a1b2c3d", "redis", "redis:7", f"{BUILD},/tasks/t/compose.yaml"),
            network("hello-world__a1b2c3d"),
        ),
        (
            member("hello-world", "main", "hello-world-main", "/home/ann/docker-compose-build.yaml", "/home/ann"),
            network("hello-world"),
        ),
    ),
    World(
        "harbor",
        "0.25.0 trial of a prebuilt image",
        "harbor/environments/docker/docker-compose-prebuilt.yaml; run",
        (
            member("fix-git__zzz9999", "main", "ghcr.io/laude-institute/fix-git:1", PREBUILT),
            network("fix-git__zzz9999"),
        ),
        (container("fix-git", "ghcr.io/laude-institute/fix-git:1"), container("fix-git__zzz9999", "alpine:3")),
    ),
    World(
        "harbor",
        "0.26.0 trial",
        "harbor/environments/docker/docker.py; run",
        (
            member(
                "hello-world__q7zz2xk__env",
                "main",
                "hello-world__q7zz2xk__env-main",
                f"/tmp/tmpab12/resources.yaml,{BUILD},/tasks/t/compose.yaml,/tmp/tmpab12/mounts.yaml",
            ),
            network("hello-world__q7zz2xk__env"),
            volume("hello-world__q7zz2xk__env"),
        ),
        (
            member("hello-world__env", "main", "alpine:3", "/home/ann/environments/docker/docker-compose-build.yaml"),
            volume("hello-world__env"),
        ),
    ),
    World(
        "harbor",
        "0.26.0 verifier of its own",
        "harbor/environments/docker/docker.py; run",
        (
            member("sum__q7zz2xl__verifier__main", "main", "sum__q7zz2xl__verifier__main-main", BUILD),
            network("sum__q7zz2xl__verifier__main"),
        ),
        (member("verifier", "main", "acme/verifier:1", "/srv/verifier/compose.yaml", "/srv/verifier"), network("verifier")),
    ),
    World(
        "harbor",
        "0.26.0 task converted from Terminal-Bench",
        "harbor/mappers/terminal_bench.py",
        (
            member("t1__b1b2c3d", "main", "hb__chess-best-move", "/tasks/t1/docker-compose.yaml", "/tasks/t1"),
            member("t1__b1b2c3d", "db", "postgres:16", "/tasks/t1/docker-compose.yaml", "/tasks/t1"),
            network("t1__b1b2c3d"),
            image("hb__chess-best-move:latest"),
        ),
        (container("hb", "hb_chess"), image("hb_chess:latest"), image("acme/hb:1")),
    ),
    World(
        "harbor",
        "0.26.0 egress sidecar",
        "harbor/environments/docker; run",
        (
            member("net__c1b2c3d__env", "main", "net__c1b2c3d__env-main", BUILD),
            member("net__c1b2c3d__env", "egress", "harbor-prebuilt:egress", BUILD),
        ),
        (container("egress", "harbor-prebuilt:egress"), container("proxy", "ubuntu/squid:latest")),
    ),
    World(
        "harbor",
        "0.26.0 with podman compose",
        "harbor/environments/podman",
        (
            member("pod__d1b2c3d__env", "main", "localhost/pod__d1b2c3d__env-main:latest", BUILD),
            network("pod__d1b2c3d__env"),
        ),
        (member("pod", "main", "localhost/pod-main:latest", "/home/ann/compose.yaml", "/home/ann"), network("pod")),
    ),
    World(
        "harbor",
        "0.26.0 on Windows",
        "harbor/environments/docker; names harbor-<12 hex>",
        (
            member(
                "harbor-0a1b2c3d4e5f",
                "main",
                "harbor-0a1b2c3d4e5f-main",
                r"C:\venv\Lib\site-packages\harbor\environments\docker\docker-compose-build.yaml",
                r"C:\tasks\t",
            ),
        ),
        (
            member("harbor-registry", "main", "acme/registry:2", r"C:\harbor\docker-compose-build.yaml", r"C:\harbor"),
            network("harbor-0a1b2c3d4e50"),
        ),
    ),
    World(
        "harbor",
        "0.26.0 what is left of a trial without its containers",
        "harbor/environments/docker/docker.py; run, killed within `down`",
        (
            network("csv__e1b2c3d__env"),
            volume("csv__e1b2c3d__env"),
            built("csv__e1b2c3d__env", "main"),
            network("csv__e1b2c3d"),
        ),
        (
            volume("csv__e1b2c3d"),  # the older form may be anybody's name: nothing that holds data goes by it
            network("csv__e1b2c3"),
            volume("csv__env"),
            built("csv", "main"),
        ),
    ),
    World(
        "harbor",
        "the other Harbors: the registry, and the toolkit for language models",
        "goharbor/harbor make/photon; av/harbor compose.yml: both are foreign",
        (member("own__f1b2c3d__env", "main", "own__f1b2c3d__env-main", BUILD),),
        (
            member("harbor", "core", "goharbor/harbor-core:v2.11.0", "/opt/harbor/docker-compose.yml", "/opt/harbor"),
            member("harbor", "log", "goharbor/harbor-log:v2.11.0", "/opt/harbor/docker-compose.yml", "/opt/harbor"),
            network("harbor", "harbor"),
            volume("harbor"),
            image("goharbor/harbor-core:v2.11.0"),
            container("harbor.openhands", "ghcr.io/all-hands-ai/openhands:0.19"),
            container("harbor.ollama", "ollama/ollama:latest", {"harbor.managed": "false"}),
        ),
    ),
    World(
        "harbor",
        "a session's name that another project has, too",
        "docker/compose#9742",
        (member("twin__g1b2c3d", "main", "twin__g1b2c3d-main", BUILD, "/tasks/twin"),),
        (
            member("twin__g1b2c3d", "web", "nginx:1", "/home/ann/twin/compose.yaml", "/home/ann/twin"),
            network("twin__g1b2c3d"),  # it does not say which of the two it is of
            volume("twin__g1b2c3d"),
        ),
    ),
    # -- Harbor, Daytona -----------------------------------------------------------------------------------------------
    World(
        "harbor",
        "0.25.0 sandbox",
        "harbor/environments/daytona",
        (
            sandbox(
                "s-25",
                {"harbor.managed": "true", "harbor.environment_name": "hello-world", "harbor.session_id": "s-25"},
            ),
        ),
        (
            sandbox("dev", {"harbor.environment_name": "hello-world"}),
            sandbox("off", {"harbor.managed": "false"}),
            sandbox("yes", {"harbor.managed": "True"}),
        ),
    ),
    World(
        "harbor",
        "0.26.0 sandboxes of a session",
        "harbor/environments/daytona",
        (
            sandbox("s-26", {"harbor.managed": "true", "harbor.session_id": "s-26", "harbor.instance_id": UUID}),
            sandbox("v-26", {"harbor.managed": "true", "harbor.session_id": "s-26", "harbor.instance_id": UUID}),
        ),
        (
            sandbox("mine", {"harbor.instance_id": UUID}),  # kept alive, and not managed
            sandbox("theirs", {"instance_id": UUID, "managed": "true"}),
        ),
    ),
    # -- SWE-bench -----------------------------------------------------------------------------------------------------
    World(
        "swe-bench",
        "5.0.2 evaluation",
        "swebench/harness/run_evaluation.py",
        (
            container("sweb.eval.django__django-11099.gold", "swebench/sweb.eval.x86_64.django_1776_django-11099:latest"),
            container("sweb.eval.astropy__astropy-12907.my-run", "sha256:0a"),
        ),
        (
            container("sweb.eval", "alpine:3"),
            container("my.sweb.eval.a.b", "alpine:3"),
            container("sweb.evaluation.1", "a:1"),
        ),
    ),
    World(
        "swe-bench",
        "5.0.2 evaluation whose name was taken",
        "swebench/harness/run_evaluation.py: the time is put behind it",
        (container("sweb.eval.sympy__sympy-20590.gold.1763706600", "sha256:0b"),),
        (container("sweb.eval.sympy", "alpine:3"), container("sweb-eval.sympy__sympy-20590.gold", "alpine:3")),
    ),
    World(
        "swe-bench",
        "5.0.2 and 4 images",
        "swebench/task/checks.py, swebench/harness/run_evaluation.py",
        (
            image("swebench/sweb.eval.x86_64.sympy_1776_sympy-20590:latest"),
            image("sweb.eval.x86_64.sympy__sympy-20590:latest"),
            image("sweb.env.py.x86_64.428468730904ff6b4232aa:latest"),
        ),
        (image("acme/sweb:latest"), image("swebench/docs:latest"), image("sweb:latest")),
    ),
    # -- inspect_ai ----------------------------------------------------------------------------------------------------
    World(
        "inspect-ai",
        "0.3.285 sample with its default sandbox",
        "inspect_ai/util/_sandbox/docker/util.py: task_project_name",
        (
            member(
                "inspect-ctf-ia3bcde",
                "default",
                "aisiuk/inspect-tool-support",
                "/root/.local/share/inspect_ai/compose/inspect-ctf-ia3bcde.yaml",
            ),
            network("inspect-ctf-ia3bcde"),
        ),
        (
            member("inspect", "default", "aisiuk/inspect-tool-support", "/home/ann/compose.yaml", "/home/ann"),
            member("inspect-important", "db", "postgres:16", "/srv/compose.yaml", "/srv"),
            network("inspect-important"),
            container("inspect-ctf-ia3bcde", "alpine:3"),
        ),
    ),
    World(
        "inspect-ai",
        "0.3.285 sample with several services, of a task with a long name",
        "inspect_ai/util/_sandbox/docker/util.py: twelve characters of the task, six of an id",
        (
            member("inspect-swe-bench-ve-i9k2m4p", "default", "python:3.12", "/evals/compose.yaml", "/evals"),
            member("inspect-swe-bench-ve-i9k2m4p", "victim", "nginx:1", "/evals/compose.yaml", "/evals"),
            network("inspect-swe-bench-ve-i9k2m4p"),
        ),
        (
            member("inspect-swe-bench-verified-i9k2m4p", "web", "nginx:1", "/srv/compose.yaml", "/srv"),
            member("inspect-a-ia3bcd", "web", "nginx:1", "/srv/compose.yaml", "/srv"),
            member("my-inspect-a-ia3bcde", "web", "nginx:1", "/srv/compose.yaml", "/srv"),
        ),
    ),
    World(
        "inspect-ai",
        "0.3.285 what is left of a sample without its containers",
        "inspect_ai/util/_sandbox/docker/cleanup.py",
        (network("inspect-gaia-i0a1b2c"), built("inspect-gaia-i0a1b2c", "default")),
        (
            volume("inspect-gaia-i0a1b2c"),  # nothing that holds data goes by a name that anybody may give
            network("inspect-gaia"),
            built("inspect-gaia", "default"),
        ),
    ),
    # -- the other ones ------------------------------------------------------------------------------------------------
    World(
        "mini-swe-agent",
        "2.4.6 environment",
        "minisweagent/environments/docker.py",
        (container("minisweagent-0a1b2c3d", "swebench/x:1", lost_when_stopped=True),),
        (
            container("minisweagent", "acme/agent:1"),
            container("minisweagent-backend1", "acme/agent:1"),
            container("minisweagent-0a1b2c3d4", "acme/agent:1"),
            container("my-minisweagent-0a1b2c3d", "acme/agent:1"),
        ),
    ),
    World(
        "openhands",
        "0.9.8 sandbox",
        "openhands/runtime/client/runtime.py",
        (container(f"openhands-sandbox-default_{UUID}", "ghcr.io/all-hands-ai/runtime:oh_v0.9.8"),),
        (
            container("openhands-app", "docker.all-hands.dev/all-hands-ai/openhands:0.19"),
            container("openhands-invariant-server", "ghcr.io/invariantlabs-ai/server/openhands:latest"),
        ),
    ),
    World(
        "openhands",
        "later ones: runtime",
        "its documents: docker ps shows openhands-runtime-<session>",
        (container("openhands-runtime-3b1f5a0c9d7e4f21a6b8c0d2e4f60718", "ghcr.io/all-hands-ai/runtime:0.62-nikolaik"),),
        (
            container("openhands-runtime-", "alpine:3"),
            container("openhands", "alpine:3"),
            container("my-openhands-runtime-1", "a"),
        ),
    ),
    World(
        "openhands",
        "1.11.0 agent server",
        "openhands/app_server/sandbox/docker_sandbox_service.py: the prefix, and 16 random bytes in base 62",
        (container("oh-agent-server-4qHk0ZbVx7Lw1Rs9TnYp3E", "ghcr.io/openhands/agent-server:1", {"sandbox_spec_id": "x"}),),
        (
            container("oh-agent-server-proxy", "acme/proxy:1"),
            container("oh-agent-server-", "acme/proxy:1"),
            container("oh-agent-server-my-own-long-name-1", "acme/proxy:1"),
        ),
    ),
    World(
        "benchflow",
        "0.7.11 task with a database, on Docker",
        "benchflow/sandbox/_compose_files/docker-compose-base.yaml: main and the default network have the label",
        (
            _labelled(member("sql-0a1b", "main", "sql-0a1b-main", BENCHFLOW_FILES), {"benchflow.owned": "true"}),
            member("sql-0a1b", "db", "postgres:16", BENCHFLOW_FILES),
            _made(
                Kind.NETWORK,
                "sql-0a1b_default",
                {f"{COMPOSE}project": "sql-0a1b", "benchflow.owned": "true"},
                group="sql-0a1b",
            ),
        ),
        (
            member("flow", "main", "acme/flow:1", "/home/ann/benchflow/docker-compose-base.yaml", "/home/ann/benchflow"),
            container("owned", "acme/flow:1", {"benchflow.owned": "false"}),
            network("flow"),
        ),
    ),
    World(
        "benchflow",
        "0.7.11 sandbox without an owner",
        "benchflow/sandbox/daytona_reaper.py: benchflow.managed is 1",
        (sandbox("b-1", {"benchflow.managed": "1"}),),
        (
            sandbox("b-0", {"benchflow.managed": "0"}),
            sandbox("b-10", {"benchflow.managed": "10"}),
            sandbox("b-io", {"io.benchflow.managed": "1"}),
        ),
    ),
    World(
        "benchflow",
        "0.7.11 sandbox of an owner",
        "benchflow/sandbox/daytona_reaper.py: benchflow.managed is 1:OWNER",
        (sandbox("b-ann", {"benchflow.managed": "1:ann", "benchflow.owner": "ann"}),),
        (sandbox("b-owner", {"benchflow.owner": "ann"}), sandbox("b-2", {"benchflow.managed": "2:ann"})),
    ),
    World(
        "testcontainers",
        "4.15.0 container of a session",
        "testcontainers/core/labels.py",
        (container("eager_curie", "postgres:16", {**SESSION, "org.testcontainers.lang": "python"}),),
        (
            container("kept", "postgres:16", {"org.testcontainers": "true"}),  # to be found and used again: no session
            container("typed", "postgres:16", {"org.testcontainers.sessionid": UUID}),
            container("baked", "acme/db:1", SESSION, inherited=frozenset(SESSION)),  # committed from one of a session
        ),
    ),
    World(
        "testcontainers",
        "4.15.0 network and volume of a session",
        "testcontainers/core/labels.py",
        (_made(Kind.NETWORK, "tc-net", SESSION), _made(Kind.VOLUME, "tc-data", SESSION)),
        (
            _made(Kind.NETWORK, "net", {"org.testcontainers": "true"}),
            _made(Kind.VOLUME, "data", {"org.testcontainers": "true"}),
        ),
    ),
)

"""The Kubernetes manifests as kustomize builds them, held against Kubernetes' own schemas and against the program."""

import json
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devkit.generate import kubernetes as generate
from devkit.ports import free_port
from reaper import __version__
from reaper.config import load
from tests.daytona.server import Served
from tests.deploy import manifests
from tests.deploy.manifests import BASE, DEPLOY, EXAMPLE, ROOT, Object, build, container, lay_out, one, pod
from tests.run import Program
from tests.service.daemon import Daemon

KEYS = {"default": "dtn_of_the_test", "rl-org": "dtn_of_the_test", "eval-org": "dtn_of_the_test"}
VERSIONS = ("1.31", "1.37")
"""Of Kubernetes: an old one and the newest one whose schemas are at hand."""
OPERATOR = "monitoring.coreos.com/v1"
"""The Prometheus Operator's: Kubernetes' own schemas do not have its objects."""


@pytest.fixture(scope="module")
def base() -> list[Object]:
    return build(BASE)


@pytest.fixture(scope="module")
def example() -> list[Object]:
    return build(EXAMPLE)


@pytest.fixture(params=["base", "example"])
def objects(request: pytest.FixtureRequest, base: list[Object], example: list[Object]) -> list[Object]:
    return {"base": base, "example": example}[request.param]


def validate(found: Object, version: str) -> None:
    import kubernetes_validate  # a second of a processor: by the process that runs this, not by each that collects

    kubernetes_validate.validate(found, version, strict=True)


def config_of(objects: list[Object], folder: Path) -> Path:
    """The file that the pod reads, its keys beside it, in a folder that stands for the container's /."""
    lay_out(objects, folder, KEYS)
    file = folder / "etc/reaper/reaper.toml"
    file.write_text(file.read_text().replace('"/run/secrets', f'"{folder}/run/secrets'))
    return file


# -- what it is made of ------------------------------------------------------------------------------------------------


def test_the_base_and_the_example_hold_what_they_should(base: list[Object], example: list[Object]) -> None:
    kinds = ["ConfigMap", "Deployment", "Namespace", "NetworkPolicy", "PersistentVolumeClaim", "Service", "ServiceAccount"]
    assert sorted(o["kind"] for o in base) == kinds
    more = ["ConfigMap", "ConfigMap", "PrometheusRule", "ServiceMonitor"]
    assert sorted(o["kind"] for o in example) == sorted(kinds + more)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_meets_its_schema(objects: list[Object], version: str) -> None:
    for found in objects:
        if found["apiVersion"] != OPERATOR:
            validate(found, version)


def test_the_schemas_refuse_what_is_wrong(base: list[Object]) -> None:
    from kubernetes_validate import ValidationError

    deployment = json.loads(json.dumps(one(base, "Deployment")))
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(ValidationError, match="livenessprobe"):
        validate(deployment, VERSIONS[-1])


def test_all_are_in_one_namespace_which_enforces_the_strictest_standard(objects: list[Object]) -> None:
    namespace = one(objects, "Namespace")
    assert {o["metadata"]["namespace"] for o in objects if o is not namespace} == {namespace["metadata"]["name"]}
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_pod_meets_that_standard_and_writes_to_its_volume_alone(objects: list[Object]) -> None:
    """Control by control: what says more, or is of another kind, is to be looked up in the standard."""
    spec, made = pod(objects), container(objects)
    ids = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch"}
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, **ids}
    confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert made["securityContext"] == confined
    assert not {"initContainers", "ephemeralContainers", "hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys()
    kinds = {kind for volume in spec["volumes"] for kind in volume} - {"name"}
    assert kinds <= {"configMap", "secret", "persistentVolumeClaim"}
    assert all(port.keys() == {"name", "containerPort", "protocol"} for port in made["ports"])
    assert "lifecycle" not in made
    probes = [made[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert all(probe.keys() == {"path", "port"} for probe in probes), "of the pod itself"
    writable = [mount["mountPath"] for mount in container(objects)["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/var/lib/reaper"]


def test_the_account_has_no_rights_and_the_pod_no_token(objects: list[Object]) -> None:
    account = one(objects, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert pod(objects)["serviceAccountName"] == account["metadata"]["name"]
    assert pod(objects)["automountServiceAccountToken"] is False
    assert not [o for o in objects if "Role" in o["kind"]]


def test_names_meet_where_one_object_means_another(objects: list[Object]) -> None:
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    service, policy = one(objects, "Service"), one(objects, "NetworkPolicy")
    assert service["spec"]["selector"].items() <= labels.items()
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    ports = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}
    (served,) = service["spec"]["ports"]
    assert ports[served["targetPort"]] == served["port"]
    ((opened,),) = (rule["ports"] for rule in policy["spec"]["ingress"])
    assert opened["port"] in ports
    volumes = {volume["name"]: volume for volume in pod(objects)["volumes"]}
    assert volumes.keys() == {mount["name"] for mount in container(objects)["volumeMounts"]}
    assert (
        volumes["state"]["persistentVolumeClaim"]["claimName"] == one(objects, "PersistentVolumeClaim")["metadata"]["name"]
    )
    assert volumes["config"]["configMap"]["name"] in {o["metadata"]["name"] for o in objects if o["kind"] == "ConfigMap"}


def test_the_policy_lets_out_names_and_https_and_nothing_else(objects: list[Object]) -> None:
    policy = one(objects, "NetworkPolicy")["spec"]
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    ports = {(port["protocol"], port["port"]) for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {("UDP", 53), ("TCP", 53), ("TCP", 443)}


# -- the secret --------------------------------------------------------------------------------------------------------


def test_the_example_of_the_secret_is_valid_fits_the_pod_and_is_never_applied(base: list[Object]) -> None:
    (secret,) = manifests.load((BASE / "secret.example.yaml").read_text())
    validate(secret, VERSIONS[-1])
    (mounted,) = (volume["secret"]["secretName"] for volume in pod(base)["volumes"] if "secret" in volume)
    assert secret["metadata"]["name"] == mounted
    assert secret["metadata"]["namespace"] == one(base, "Deployment")["metadata"]["namespace"]
    named = re.findall(r'^api_key_file = "/run/secrets/reaper/(.+?)"', (BASE / "reaper.toml").read_text(), re.MULTILINE)
    assert named == list(secret["stringData"])
    assert "no_key" in secret["stringData"]["default"]


def test_no_object_holds_a_secret(objects: list[Object]) -> None:
    assert not [o for o in objects if o["kind"] == "Secret"]
    assert "dtn_" not in json.dumps(objects)


# -- the program -------------------------------------------------------------------------------------------------------


def test_the_program_accepts_the_pods_configuration_and_environment(objects: list[Object], tmp_path: Path) -> None:
    env = {variable["name"]: variable["value"] for variable in container(objects).get("env", ())}
    arguments = container(objects).get("args", [])
    assert arguments == [], "the health check of the image looks for the file where it is by default"
    file = config_of(objects, tmp_path / "root")
    checked = Program(tmp_path, env)("config", "check", "--config", str(file))
    assert checked.code == 0, checked.err
    spoilt = file.read_text().replace("api_key_file", "api_key_flie")
    file.write_text(spoilt)
    assert Program(tmp_path, env)("config", "check", "--config", str(file)).code == 2


def test_it_listens_where_the_port_is_and_drains_before_it_is_killed(objects: list[Object], tmp_path: Path) -> None:
    service = load.load(str(config_of(objects, tmp_path)), {}).settings.service
    assert service.address == ("0.0.0.0", container(objects)["ports"][0]["containerPort"])
    assert pod(objects)["terminationGracePeriodSeconds"] >= service.drain_timeout.total_seconds() + 5


@pytest.fixture
def running(example: list[Object], tmp_path: Path) -> Iterator[tuple[Served, Daemon]]:
    """The service as the pod runs it, but for the port and the address of Daytona."""
    with Served(tmp_path, "rl-org", "eval-org") as served:
        file = config_of(example, tmp_path / "root")
        for name in ("rl-org", "eval-org"):
            (tmp_path / f"root/run/secrets/reaper/{name}").write_text(served.sim.api_key(name))
        port = free_port()
        program = served.program(REAPER_SERVICE__LISTEN=f"0.0.0.0:{port}", REAPER_SERVICE__JITTER="0s")
        daemon = Daemon(program)
        daemon.port, daemon.file = port, file
        with daemon.start():
            yield served, daemon


def test_probes_and_scrapes_find_what_they_ask_for(running: tuple[Served, Daemon], example: list[Object]) -> None:
    """By the pod's address, as the kubelet and Prometheus do, and while Daytona is down."""
    served, daemon = running
    probes = {
        name: container(example)[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    metrics = one(example, "ServiceMonitor")["spec"]["endpoints"][0]["path"]
    ask: dict[str, Any] = {"Host": "10.42.0.7:9797"}
    for organisation in ("rl-org", "eval-org"):
        daemon.wait("sweep_finished", endpoint=organisation, result="success")
    assert {name: daemon.get(path, **ask)[0] for name, path in probes.items()} == dict.fromkeys(probes, 200)
    status, text = daemon.get(metrics, **ask)
    assert status == 200
    assert 'endpoint="rl-org"' in text

    served.sim.faults.add("status:500")
    daemon.signal(signal.SIGUSR1)
    for organisation in ("rl-org", "eval-org"):
        daemon.wait("sweep_finished", endpoint=organisation, result="unlisted")
    while_down = {"startupProbe": 200, "livenessProbe": 200, "readinessProbe": 503}
    assert {name: daemon.get(path, **ask)[0] for name, path in probes.items()} == while_down
    assert daemon.get(metrics, **ask)[0] == 200
    assert daemon.stop() == 0


# -- the image ---------------------------------------------------------------------------------------------------------


def dockerfile() -> dict[str, list[str]]:
    """The instructions of the image's last stage and those that it is built on, by their names."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    found: dict[str, list[str]] = {}
    stage = ""
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stage = rest.rpartition(" ")[2]
        if stage == "ryuk":  # another image
            continue
        if word.isupper() and word.isalpha():
            found.setdefault(word, []).append(rest.strip())
    return found


def test_the_pod_runs_the_image_as_it_was_made(objects: list[Object]) -> None:
    image = dockerfile()
    context = pod(objects)["securityContext"]
    assert image["USER"] == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    assert context["fsGroup"] == context["runAsGroup"]
    assert image["VOLUME"] == ["/var/lib/reaper"]
    assert json.loads(image["ENTRYPOINT"][0]) == ["reaper"]
    assert "command" not in container(objects)
    environment = dict(part.split("=", 1) for line in image["ENV"] for part in shlex.split(line))
    assert environment["STATE_DIRECTORY"] == "/var/lib/reaper"
    assert container(objects)["image"].rpartition(":")[2] == __version__


# -- monitoring --------------------------------------------------------------------------------------------------------


def test_the_rules_are_the_very_ones_of_the_rule_file(example: list[Object]) -> None:
    (alerts,) = manifests.load((ROOT / generate.ALERTS).read_text())
    rule = one(example, "PrometheusRule")
    assert (rule["apiVersion"], rule["spec"]) == (OPERATOR, alerts)  # which promtool accepts, see test_alerts.py
    assert (ROOT / generate.OBJECT).read_text() == generate.FILES[Path(generate.OBJECT)]()


@pytest.mark.parametrize("text", ["", "groups: []\nrules: []\n", "---\nrules: []\n"])
def test_a_file_that_is_no_rule_file_becomes_no_object(text: str) -> None:
    with pytest.raises(ValueError, match="a rule file has groups"):
        generate.prometheus_rule(text)


def test_the_monitor_finds_the_service_and_leaves_our_label_alone(example: list[Object]) -> None:
    """What is not in its two specs here is to be looked up in the operator's definitions first."""
    monitor, service = one(example, "ServiceMonitor"), one(example, "Service")
    assert (monitor["apiVersion"], monitor["spec"].keys()) == (OPERATOR, {"selector", "endpoints"})
    assert monitor["spec"]["selector"].keys() == {"matchLabels"}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    relabelings = [{"action": "labeldrop", "regex": "endpoint"}]
    times = {"interval": "15s", "scrapeTimeout": "10s"}
    assert endpoint == {"port": endpoint["port"], "path": "/metrics", "relabelings": relabelings, **times}
    # The alerts know a reaper that never came up by its job, which the operator names after the Service.
    assert re.search(r'up\{job=~"\.\*reaper\.\*"\}', (ROOT / generate.ALERTS).read_text())
    assert "reaper" in service["metadata"]["name"]


def test_the_dashboards_are_the_very_ones_and_fit_into_config_maps(example: list[Object]) -> None:
    found = [
        o for o in example if o["kind"] == "ConfigMap" and o["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
    ]
    data = {name: text for o in found for name, text in o["data"].items()}
    assert data == {file.name: file.read_text() for file in (DEPLOY / "grafana").glob("*.json")}
    assert len(data) == len(found) == 2
    assert all(len(text.encode()) < 2**20 for text in data.values())

"""The check of the Pod Security Standard finds what it is there for."""

from copy import deepcopy
from typing import Any

import pytest

from tests.deploy.restricted import CONTROLS, violations

GOOD: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "one",
            "ports": [{"containerPort": 80}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
    "volumes": [{"name": "config", "configMap": {"name": "config"}}],
}

POD, ONE = ("securityContext",), ("containers", 0, "securityContext")

SPOILT: list[tuple[str, tuple[str | int, ...], Any]] = [
    ("no Windows host process", (*POD, "windowsOptions"), {"hostProcess": True}),
    ("no host namespaces", ("hostNetwork",), True),
    ("no host namespaces", ("hostPID",), True),
    ("no host namespaces", ("hostIPC",), True),
    ("not privileged", (*ONE, "privileged"), True),
    ("no host paths", ("volumes",), [{"name": "root", "hostPath": {"path": "/"}}]),
    ("no host ports", ("containers", 0, "ports", 0, "hostPort"), 80),
    ("probes ask the pod itself", ("containers", 0, "livenessProbe", "httpGet", "host"), "127.0.0.1"),
    ("AppArmor is on", (*ONE, "appArmorProfile"), {"type": "Unconfined"}),
    ("SELinux types", (*ONE, "seLinuxOptions"), {"type": "spc_t"}),
    ("no SELinux user or role", (*POD, "seLinuxOptions"), {"user": "root"}),
    ("default /proc", (*ONE, "procMount"), "Unmasked"),
    ("safe sysctls", (*POD, "sysctls"), [{"name": "kernel.msgmax", "value": "1"}]),
    ("volume types", ("volumes",), [{"name": "share", "nfs": {"server": "a", "path": "/"}}]),
    ("no privilege escalation", (*ONE, "allowPrivilegeEscalation"), None),
    ("no privilege escalation", (*ONE, "allowPrivilegeEscalation"), True),
    ("runs as non-root", (*POD, "runAsNonRoot"), None),
    ("runs as non-root", (*ONE, "runAsNonRoot"), False),
    ("no user 0", (*ONE, "runAsUser"), 0),
    ("seccomp is on", (*POD, "seccompProfile"), {}),
    ("seccomp is on", (*ONE, "seccompProfile"), {"type": "Unconfined"}),
    ("drops all capabilities", (*ONE, "capabilities"), {"drop": ["NET_RAW"]}),
    ("adds no capability", (*ONE, "capabilities", "add"), ["SYS_ADMIN"]),
]


def spoilt(path: tuple[str | int, ...], value: Any) -> Any:
    spec = deepcopy(GOOD)
    place: Any = spec
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return spec


def test_a_pod_that_meets_it_passes() -> None:
    assert violations(GOOD) == []


@pytest.mark.parametrize(("control", "path", "value"), SPOILT)
def test_each_control_finds_what_it_forbids(control: str, path: tuple[str | int, ...], value: Any) -> None:
    assert control in violations(spoilt(path, value))


def test_an_init_container_counts_too() -> None:
    assert "drops all capabilities" in violations({**GOOD, "initContainers": [{"name": "first"}]})


def test_no_control_is_left_out_here() -> None:
    assert {control for control, _, _ in SPOILT} == set(CONTROLS)

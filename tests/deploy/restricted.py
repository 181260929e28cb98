"""Kubernetes' Pod Security Standard "restricted", control by control, as its documentation lists them.

A cluster enforces it by a label of the namespace; here it says beforehand what that would refuse.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Spec = Mapping[str, Any]

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
CONFINED = {"RuntimeDefault", "Localhost"}


def containers(spec: Spec) -> list[Spec]:
    """All containers of a pod, of every kind."""
    return [c for kind in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(kind, ())]


def contexts(spec: Spec) -> Iterator[Spec]:
    """The security contexts of the pod and of each of its containers."""
    yield spec.get("securityContext", {})
    for container in containers(spec):
        yield container.get("securityContext", {})


def everywhere(spec: Spec, holds: Callable[[Spec], bool | None]) -> bool:
    """Whether something holds for all containers, where the pod's own setting counts for those that have none.

    Args:
        spec: the pod.
        holds: of one security context: True, False, or None where it says nothing.
    """
    pod = holds(spec.get("securityContext", {}))
    said = [holds(container.get("securityContext", {})) for container in containers(spec)]
    return pod is not False and all(pod if own is None else own for own in said)


def _all_of(values: Iterator[Any], allowed: set[Any]) -> bool:
    return all(value in allowed for value in values)


def _capabilities(spec: Spec, key: str) -> Iterator[set[str]]:
    for container in containers(spec):
        yield set(container.get("securityContext", {}).get("capabilities", {}).get(key, ()))


def _handlers(spec: Spec) -> Iterator[Spec]:
    for container in containers(spec):
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            yield container.get(probe, {})
        yield from container.get("lifecycle", {}).values()


def _asked_elsewhere(handler: Spec) -> bool:
    return any(handler.get(kind, {}).get("host") for kind in ("httpGet", "tcpSocket"))


def _type(context: Spec, profile: str) -> bool | None:
    kind = context.get(profile, {}).get("type")
    return None if kind is None else kind in CONFINED


def _non_root(context: Spec) -> bool | None:
    return context.get("runAsNonRoot")


CONTROLS: Mapping[str, Callable[[Spec], bool]] = {
    # baseline
    "no Windows host process": lambda spec: not any(c.get("windowsOptions", {}).get("hostProcess") for c in contexts(spec)),
    "no host namespaces": lambda spec: not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
    "not privileged": lambda spec: not any(context.get("privileged") for context in contexts(spec)),
    "no host paths": lambda spec: not any("hostPath" in volume for volume in spec.get("volumes", ())),
    "no host ports": lambda spec: not any(p.get("hostPort") for c in containers(spec) for p in c.get("ports", ())),
    "probes ask the pod itself": lambda spec: not any(map(_asked_elsewhere, _handlers(spec))),
    "AppArmor is on": lambda spec: all(_type(context, "appArmorProfile") is not False for context in contexts(spec)),
    "SELinux types": lambda spec: _all_of((c.get("seLinuxOptions", {}).get("type") for c in contexts(spec)), SELINUX_TYPES),
    "no SELinux user or role": lambda spec: (
        not any(c.get("seLinuxOptions", {}).get(key) for c in contexts(spec) for key in ("user", "role"))
    ),
    "default /proc": lambda spec: _all_of((c.get("procMount", "Default") for c in contexts(spec)), {"Default"}),
    "safe sysctls": lambda spec: _all_of((s["name"] for c in contexts(spec) for s in c.get("sysctls", ())), SAFE_SYSCTLS),
    # restricted
    "volume types": lambda spec: all(set(volume) - {"name"} <= VOLUMES for volume in spec.get("volumes", ())),
    "no privilege escalation": lambda spec: all(
        container.get("securityContext", {}).get("allowPrivilegeEscalation") is False for container in containers(spec)
    ),
    "runs as non-root": lambda spec: everywhere(spec, _non_root),
    "no user 0": lambda spec: all(context.get("runAsUser") != 0 for context in contexts(spec)),
    "seccomp is on": lambda spec: everywhere(spec, lambda context: _type(context, "seccompProfile")),
    "drops all capabilities": lambda spec: all("ALL" in dropped for dropped in _capabilities(spec, "drop")),
    "adds no capability": lambda spec: all(added <= {"NET_BIND_SERVICE"} for added in _capabilities(spec, "add")),
}


def violations(spec: Spec) -> list[str]:
    """The controls that a pod's spec does not meet."""
    return [name for name, met in CONTROLS.items() if not met(spec)]

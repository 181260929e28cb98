"""Defaults of a simulated engine: fields and values of Docker 20.10."""

from collections.abc import Mapping
from typing import Any

KERNEL = "6.1.0-18-amd64"


def _all(names: str, *, are: object) -> dict[str, object]:
    return dict.fromkeys(names.split(), are)


HOST: Mapping[str, Any] = {
    **_all(
        """Binds PortBindings VolumesFrom CapAdd CapDrop Dns DnsOptions DnsSearch ExtraHosts GroupAdd Links
        SecurityOpt BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps
        BlkioDeviceWriteIOps Devices DeviceCgroupRules DeviceRequests MemorySwappiness PidsLimit Ulimits""",
        are=None,
    ),
    **_all(
        """ContainerIDFile VolumeDriver Cgroup PidMode UTSMode UsernsMode Isolation CgroupParent CpusetCpus
        CpusetMems""",
        are="",
    ),
    **_all("AutoRemove Privileged PublishAllPorts ReadonlyRootfs OomKillDisable", are=False),
    **_all(
        """OomScoreAdj CpuShares Memory NanoCpus BlkioWeight CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime
        KernelMemory KernelMemoryTCP MemoryReservation MemorySwap CpuCount CpuPercent IOMaximumIOps
        IOMaximumBandwidth""",
        are=0,
    ),
    "LogConfig": {"Type": "json-file", "Config": {}},
    "NetworkMode": "default",
    "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
    "CgroupnsMode": "host",
    "IpcMode": "private",
    "ShmSize": 67108864,
    "Runtime": "runc",
    "ConsoleSize": [0, 0],
    "MaskedPaths": [
        *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
        *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
    ],
    "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
}
HOST_OPTIONAL = ("Init", "Mounts", "StorageOpt", "Sysctls", "Tmpfs")

CONFIG: Mapping[str, Any] = {
    **_all("Hostname Domainname User Image WorkingDir", are=""),
    **_all("AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce", are=False),
    **_all("Env Cmd Volumes Entrypoint OnBuild Labels", are=None),
}
CONFIG_OPTIONAL = tuple(
    _all("ExposedPorts Healthcheck ArgsEscaped NetworkDisabled MacAddress StopSignal StopTimeout Shell", are=None)
)

INFO: Mapping[str, Any] = {
    "Driver": "overlay2",
    "LoggingDriver": "json-file",
    "CgroupDriver": "cgroupfs",
    "CgroupVersion": "1",
    "KernelVersion": KERNEL,
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "OSType": "linux",
    "Architecture": "x86_64",
    "NCPU": 2,
    "MemTotal": 25276502016,
    "Name": "simulator",
    "Labels": [],
    "ServerVersion": "20.10.24+dfsg1",
    "Swarm": {"NodeID": "", "LocalNodeState": "inactive", "ControlAvailable": False},
    "LiveRestoreEnabled": False,
    "SecurityOptions": ["name=seccomp,profile=default"],
}

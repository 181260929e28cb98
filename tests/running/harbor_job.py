"""What Harbor does with a plugin, without Harbor: ``python harbor_job.py FOLDER JOBS [KEYWORD=VALUE...]``.

Each job has a container, made as Harbor makes it: by what ``DOCKER_HOST`` names. It says what it has seen when all are
there, and ends the jobs, one for each line of stdin, in their order.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import docker  # type: ignore[import-untyped]

from devkit.client import OBEYS_TERM
from reaper.harbor import Lease


class Config(SimpleNamespace):
    def model_copy(self, update: dict[str, Any]) -> "Config":
        return Config(**{**vars(self), **update})


class Factory:
    """``harbor.environments.factory.EnvironmentFactory``."""

    @classmethod
    def create_environment_from_config(cls, config: Config, session_id: str) -> dict[str, Any]:
        return dict(config.kwargs, session=session_id)


def daytona() -> Config:
    return Config(type=SimpleNamespace(value="daytona"), delete=True, kwargs={"labels": {"run": "mine"}})


async def main(folder: Path, jobs: int, options: dict[str, Any]) -> None:
    keeps = {"keep_containers": True} if options.pop("keep_containers", None) else {}
    plugins = [Lease(**options) for _ in range(jobs)]
    for number, plugin in enumerate(plugins):
        config = Config(type=SimpleNamespace(value="docker"), delete=True, kwargs=keeps)
        before = repr(config)
        await plugin.on_job_start(SimpleNamespace(config=Config(environment=config), job_dir=folder))
        assert repr(config) == before
        client = docker.from_env()
        client.containers.run("bench:1", OBEYS_TERM, name=f"mine-{number}", detach=True, network_mode="none")
        client.close()
    config = daytona()
    seen = Factory.create_environment_from_config(config=config, session_id="chess__env")
    assert config == daytona()
    sys.stdout.write(json.dumps({"lease": os.environ.get("REAPER_LEASE"), "sandbox": seen}) + "\n")
    sys.stdout.flush()
    for plugin in plugins:
        sys.stdin.readline()
        await plugin.on_job_end(None)
        after = {name: os.environ.get(name) for name in ("DOCKER_HOST", "REAPER_LEASE")}
        seen = Factory.create_environment_from_config(config=config, session_id="chess__env")
        sys.stdout.write(json.dumps({"variables": after, "sandbox": seen}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    module = ModuleType("harbor.environments.factory")
    module.EnvironmentFactory = Factory  # type: ignore[attr-defined]
    sys.modules |= {
        "harbor": ModuleType("harbor"),
        "harbor.environments": ModuleType("harbor.environments"),
        module.__name__: module,
    }
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), dict(word.split("=") for word in sys.argv[3:])))

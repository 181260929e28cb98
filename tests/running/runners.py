"""Runners from the package index, each in a virtual environment of its own, at an engine with Compose 2."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from devkit.client import DEFAULT_IMAGE
from devkit.engine import PrivateEngine
from tests.run import Program

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Runner:
    """One of them. In what is written JOB stands for the name of the job.

    Args:
        preset: of reaper's, that owns what it makes.
        variable: names its command.
        processes: the globs of docs/owners.md for what makes something.
        files: its task, which waits in mid-trial when it has made /started in its container.
        words: the arguments that run the task.
    """

    preset: str
    variable: str
    processes: Sequence[str]
    files: Mapping[str, str]
    words: Sequence[str]


HARBOR = Runner(
    preset="harbor",
    variable="REAPER_HARBOR",
    processes=("*/bin/harbor [!v]*", "*harbor.cli.main*"),
    files={
        "task.toml": 'version = "1.0"\n[environment]\nbuild_timeout_sec = 120.0\n[agent]\ntimeout_sec = 600.0\n',
        "instruction.md": "Wait until the file /go is there.\n",
        "environment/Dockerfile": r"""FROM bench:1
RUN printf '#!/bin/sh\nexec sh "$@"\n' >/bin/bash && chmod +x /bin/bash && echo root:x:0:0:root:/:/bin/sh >/etc/passwd \
 && mkdir -p /logs/agent /logs/verifier /logs/artifacts /solution /tests /tmp
""",
        "solution/solve.sh": "#!/bin/sh\ntouch /started\nwhile [ ! -e /go ]; do sleep 0.1; done\n",
        "tests/test.sh": "#!/bin/sh\necho 1 >/logs/verifier/reward.txt\n",
    },
    words=("run", "-p", "JOB", "-a", "oracle", "-o", "jobs", "--job-name", "JOB"),
)
TERMINAL_BENCH = Runner(
    preset="terminal-bench",
    variable="REAPER_TERMINAL_BENCH",
    processes=("*/bin/tb *", "*/bin/terminal-bench *", "*T_BENCH_TASK_DOCKER_*"),
    files={
        "JOB/task.yaml": """instruction: Wait.
author_email: a@example.org
difficulty: easy
category: waiting
parser_name: pytest
disable_asciinema: true
max_agent_timeout_sec: 600.0
max_test_timeout_sec: 60.0
""",
        # Its terminal is none: what is typed is not run.
        "JOB/Dockerfile": r"""FROM bench:1
RUN printf '#!/bin/sh\ncase "$*" in *wait*|*send-keys*) touch /started; sleep 600;; esac\n' >/bin/tmux \
 && chmod +x /bin/tmux && mkdir -p /tmp
""",
        "JOB/docker-compose.yaml": """services:
  client:
    build: {dockerfile: Dockerfile}
    image: ${T_BENCH_TASK_DOCKER_CLIENT_IMAGE_NAME}
    container_name: ${T_BENCH_TASK_DOCKER_CLIENT_CONTAINER_NAME}
    command: [sh, -c, sleep infinity]
    volumes:
      - ${T_BENCH_TASK_LOGS_PATH}:${T_BENCH_CONTAINER_LOGS_PATH}
      - ${T_BENCH_TASK_AGENT_LOGS_PATH}:${T_BENCH_CONTAINER_AGENT_LOGS_PATH}
""",
        "JOB/solution.sh": "#!/bin/sh\n",
        "JOB/run-tests.sh": "#!/bin/sh\n",
        "JOB/tests/test_outputs.py": "",
    },
    words=("run", "--dataset-path", "JOB", "--agent", "oracle", "--output-path", "jobs"),
)
INSPECT = Runner(
    preset="inspect-ai",
    variable="REAPER_INSPECT_AI",
    processes=("*/bin/inspect eval*", "* -m inspect_ai* eval*"),
    files={
        "task.py": """from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import solver
from inspect_ai.util import sandbox


@solver
def waits():
    async def solve(state, generate):
        await sandbox().exec(["sh", "-c", "touch /started; sleep 600"])
        return state

    return solve


@task(name="JOB")
def waiting():
    return Task(dataset=[Sample("Wait.")], solver=waits(), sandbox=("docker", "compose.yaml"))
""",
        "compose.yaml": """services:
  default:
    image: bench:1
    x-local: true
    command: sleep infinity
""",
    },
    words=("eval", "JOB/task.py", "--model", "mockllm/model", "--log-dir", "jobs", "--display", "plain"),
)
RUNNERS = (HARBOR, TERMINAL_BENCH, INSPECT)


class RealRunner:
    """A runner with a folder of its own, at an engine that has its image. Skips the test where it is not installed."""

    def __init__(self, runner: Runner, folder: Path, engine: PrivateEngine, program: Program) -> None:
        self._runner = runner
        command = os.environ.get(runner.variable) or pytest.skip(
            f"{runner.variable} does not name the command; .ci/run installs the runners of tests/running/*.txt"
        )
        self.folder = folder
        root = engine.flavour.root() or Path("/")
        plugins, programs = folder / "docker/cli-plugins", folder / "bin"
        for place in (plugins, programs):
            place.mkdir(parents=True)
        self.venv = Path(command).resolve().parent
        self.command = programs / Path(command).name  # what runs in another test is not taken for it
        self.command.symlink_to(command)
        (programs / "docker").symlink_to(root / "usr/bin/docker")
        for name in ("docker-compose", "docker-buildx"):
            (plugins / name).symlink_to(root / "usr/libexec/docker/cli-plugins" / name)
        self.env = {
            **program.env,
            "PATH": f"{programs}:{program.env['PATH']}",
            "HIDDEN": str(self.command),
            "DOCKER_CONFIG": str(folder / "docker"),
            "DOCKER_HOST": engine.host,
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "HARBOR_TELEMETRY": "off",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        engine.import_image(DEFAULT_IMAGE)

    @contextmanager
    def job(self, name: str, *options: str, before: Sequence[str] = ()) -> Iterator["subprocess.Popen[bytes]"]:
        """Its task, run until the end of the block at the latest.

        Args:
            name: of the job, other than all before.
            options: further arguments.
            before: the command that is given the arguments, in place of its own.
        """
        for path, text in self._runner.files.items():
            file = self.folder / name / path.replace("JOB", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("JOB", name))
        words = [word.replace("JOB", name) for word in self._runner.words]
        with (self.folder / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(
                [*(before or [str(self.command)]), *words, *options],
                env=self.env,
                cwd=self.folder,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def said(self, name: str) -> str:
        """What a job has printed."""
        return (self.folder / f"{name}.out").read_text()


def in_trial(engine: PrivateEngine) -> list[str]:
    """The ids of the containers in which a task has begun to wait."""
    found = {c["Id"] for c in engine.api.must("GET", "/containers/json")}
    return [i for i in found if "/started" in json.dumps(engine.api.get(f"/containers/{i}/changes")[1])]

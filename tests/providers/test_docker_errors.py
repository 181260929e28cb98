"""What the engines' refusals mean, by the words that they were seen to say."""

import aiodocker
import pytest

from reaper.errors import ConflictError
from reaper.providers.docker.errors import translate

INFRA, LATE, POD = "a1f6" * 16, "1a8c" * 16, "4014" * 16
DEPENDS = f"a container that depends on container {INFRA} still exists: dependency exists"
OF_THE_INFRA = f"removing container {INFRA} from pod {POD}: {DEPENDS}"
OF_WHAT_RUNS = f"removing container {LATE} from pod {POD}: cannot remove container"
RUNS = f"{OF_WHAT_RUNS} {LATE} as it is running - running or paused containers cannot be removed without force"


@pytest.mark.parametrize(
    "errors",
    [(OF_THE_INFRA, OF_WHAT_RUNS), (f"{RUNS}: container state improper", OF_THE_INFRA)],
    ids=["its infra container first", "what runs first"],
)
def test_podman_4_refuses_a_pod_in_which_something_runs_in_any_order(errors: tuple[str, str]) -> None:
    said = f"{len(errors)} errors occurred:\n\t* " + "\n\t* ".join(errors)
    with pytest.raises(ConflictError):
        translate(aiodocker.DockerError(500, said), "unix:///run/podman.sock", answered=True)

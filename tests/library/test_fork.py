"""A forked child leaves its parent's blocks, too: what they clean up is the parent's."""

from pathlib import Path

import pytest

from tests.library.lab import names
from tests.library.service import serving
from tests.run import Program
from tests.simulator.docker_world import World

WAYS = {
    "sys.exit": "if os.fork() == 0:\n        sys.exit(0)\n    os.wait()",
    "an exception": "if os.fork() == 0:\n        raise ValueError('of the child')\n    os.wait()",
    "the end of the block": "child = os.fork()\n    if child:\n        os.wait()",
    "a grandchild": "if os.fork() == 0:\n        if os.fork() == 0:\n            sys.exit(0)\n        os.wait()\n"
    "        sys.exit(0)\n    os.wait()",
    "an exit handler": "import atexit\n    atexit.register(block.__exit__, None, None, None)\n    if os.fork() == 0:\n"
    "        sys.exit(0)\n    os.wait()\n    atexit.unregister(block.__exit__)",
}
ASKS = """
    import docker
    client = docker.from_env()
    print(os.getpid() == parent, sorted(one.name for one in client.containers.list(all=True)), flush=True)
"""
MANAGED = """
import os, sys
from reaper import managed_docker_container
parent = os.getpid()
block = managed_docker_container("mine")
with block:
    {way}
    if os.getpid() != parent:
        sys.exit(0)
"""


def run(world: World, alone: Path, code: str, **env: str) -> str:
    ended = Program(alone, {"DOCKER_HOST": world.host, **env}).run_code(code)
    assert ended.code == 0, ended.err
    return ended.out


@pytest.mark.parametrize("way", WAYS)
def test_a_child_that_leaves_the_block_deletes_nothing(world: World, alone: Path, way: str) -> None:
    """What is there is asked between the child's end and the block's."""
    world.add("mine", state="running")
    asked = MANAGED.format(way=WAYS[way]) + ASKS
    assert run(world, alone, asked).splitlines() == ["True ['mine']"]
    assert names(world) == set()


def test_nor_does_one_of_an_event_loop(world: World, alone: Path) -> None:
    world.add("mine", state="running")
    code = """
import asyncio, os, sys
from reaper import managed_docker_container
async def main():
    block = managed_docker_container("mine")
    async with block:
        if os.fork() == 0:
            await block.__aexit__(None, None, None)
            os._exit(0)  # its loop is the parent's
        os.wait()
        asked = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "import docker; print([c.name for c in docker.from_env().containers.list(all=True)])"
        )
        await asked.wait()
asyncio.run(main())
"""
    assert run(world, alone, code) == "['mine']\n"
    assert names(world) == set()


SCOPE = """
import asyncio, os, sys
from reaper import CleanupScope
def closes(what):
    print("parent" if os.getpid() == parent else "child", "closes", what, flush=True)
parent = os.getpid()
"""
SYNC = """
with CleanupScope() as scope:
    scope.call(closes, "the parent's")
    scope.call(closes, "the parent's in a thread", in_thread=True)
    if os.fork() == 0:
        scope.call(closes, "the child's")
        sys.exit(0)
    os.wait()
"""
ASYNC = """
async def main():
    async with CleanupScope() as scope:
        scope.call(closes, "the parent's in a thread", in_thread=True)
        scope.call(closes, "the parent's")
        if os.fork() == 0:
            await scope.__aexit__(None, None, None)
            os._exit(0)  # its loop is the parent's
        os.wait()
asyncio.run(main())
"""


def test_a_scope_closes_what_its_own_process_registered(world: World, alone: Path) -> None:
    assert run(world, alone, SCOPE + SYNC).splitlines() == [
        "child closes the child's",
        "parent closes the parent's in a thread",
        "parent closes the parent's",
    ]


def test_so_does_one_in_an_event_loop(world: World, alone: Path) -> None:
    assert run(world, alone, SCOPE + ASYNC).splitlines() == [
        "parent closes the parent's",
        "parent closes the parent's in a thread",
    ]


LEAVES = {
    # Its loop is the parent's, and would never end on Python 3.14.
    "with": "held.__exit__(None, None, None); os._exit(0)",
    "async with": "await held.__aexit__(None, None, None); os._exit(0)",
}


@pytest.mark.parametrize("within", LEAVES)
def test_a_lease_is_its_parent_s(world: World, alone: Path, within: str) -> None:
    code = f"""
import anyio, os, sys
from reaper import lease
async def main():
    {within} lease() as held:
        if os.fork() == 0:
            held.release("by the child")
            {LEAVES[within]}
        os.wait()
        print(held.state)
anyio.run(main)
"""
    with serving(alone) as service:
        assert run(world, alone, code, REAPER_URL=service.local_url).endswith("live\n")
        causes = [record.cause for record in service.records().values()]
    assert causes == ["released"]


def test_children_that_enter_one_lease_get_one_each(world: World, alone: Path) -> None:
    """The first one's end would end the other's otherwise."""
    code = """
import os, sys
from reaper import lease
shared = lease()
for _ in range(2):
    if os.fork() == 0:
        with shared as held:
            print(held.id, flush=True)
        sys.exit(0)
    os.wait()
"""
    with serving(alone) as service:
        ids = run(world, alone, code, REAPER_URL=service.local_url).split()
    assert len(set(ids)) == 2

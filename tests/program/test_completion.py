"""``reaper completion``: what a shell offers when the script that it prints is loaded."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from reaper.cli import build_parser
from reaper.cli.completion import subcommands
from tests.program.wrapped import imported
from tests.run import Program

SHELLS = ("bash", "zsh", "tcsh")


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A script for bash that completes its arguments: it prints a line for each word that is offered."""
    folder = tmp_path_factory.mktemp("completion")
    ended = Program(folder)("completion", "bash")
    assert (ended.code, ended.err) == (0, "")
    script = folder / "complete.bash"
    offer = """
COMP_WORDS=(reaper "$@") COMP_CWORD=$#
function=$(complete -p reaper) && [[ $function =~ -F\\ ([^ ]+)\\ reaper$ ]] && "${BASH_REMATCH[1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
    script.write_text(f"eval {shlex.quote(ended.out)}\n{offer}")
    return script


def offered(script: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    command = ["bash", "--norc", str(script), *words]
    ended = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr == ""
    return set(ended.stdout.split())


def test_bash_offers_every_command(bash: Path) -> None:
    assert offered(bash, "") == set(subcommands(build_parser()))
    assert offered(bash, "--json", "--only", "docker", "ch") == {"check"}


def test_bash_offers_the_options_of_the_program_and_of_each_command(bash: Path) -> None:
    assert offered(bash, "-") == set(build_parser()._option_string_actions)
    for name, parser in subcommands(build_parser()).items():
        assert offered(bash, name, "-") == set(parser._option_string_actions), name
    assert offered(bash, "history", "--unt") == {"--until"}
    assert offered(bash, "simulate", "--fa") == {"--fault"}


def test_bash_offers_the_values_of_an_option(bash: Path) -> None:
    assert offered(bash, "--log-format", "") == {"console", "json"}
    assert offered(bash, "ryuk", "--log-level", "d") == {"debug"}
    assert offered(bash, "config", "s") == {"show", "schema"}
    assert offered(bash, "completion", "") == set(SHELLS)


def test_bash_offers_files_where_a_file_is_named(bash: Path) -> None:
    assert offered(bash, "--config", "comp") == {"complete.bash"}
    assert offered(bash, "--once", "--metrics-textfile", "comp") == {"complete.bash"}
    assert offered(bash, "list", "--only", "comp") == set(), "an endpoint is no file"


def test_bash_offers_commands_and_files_to_run(bash: Path) -> None:
    assert offered(bash, "run", "--strict", "") == {"--"}
    assert {"complete", "complete.bash"} <= offered(bash, "run", "--only", "docker", "--", "comp")
    assert offered(bash, "run", "--", "cat", "comp") == {"complete.bash"}
    assert offered(bash, "run", "--", "cat", "-") == set(), "the options of other programs are not known"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_valid_in_its_shell(program: Program, shell: str) -> None:
    if (found := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not installed")
    ended = program("completion", shell)
    checked = subprocess.run([found, "-n"], input=ended.out, capture_output=True, text=True, timeout=60, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_a_script_for_the_command(program: Program, shell: str) -> None:
    ended = program("completion", shell)
    assert (ended.code, ended.err) == (0, "")
    assert {"reaper", "history", "completion"} <= set(
        ended.out.replace(":", " ").replace("(", " ").replace(")", " ").split()
    )


def test_a_shell_that_starts_does_not_wait_for_what_a_sweep_needs(program: Program) -> None:
    modules = imported(program, "completion", "bash")
    assert "shtab" in modules
    assert modules & {"asyncio", "pydantic", "aiohttp", "structlog", "anyio", "rich", "reaper.cli.commands"} == set()

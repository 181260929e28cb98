"""A password that was written into a host, or a key in the environment, never appears in any output."""

from pathlib import Path

import pytest

from tests.run import Program

SECRET = "hunter2-s3cr3t"
HOSTS = [
    f"tcp://user:{SECRET}@gpu-1:2376",
    f"tcp://{SECRET}@gpu-1",
    f"https://user:{SECRET}@gpu-1:2376/",
    f"tcp://user:{SECRET}/with/slashes@gpu-1:2376",
    f"tcp://user:{SECRET} with blanks@gpu-1:2376",
    f"ssh://user:{SECRET}@gpu-1",
    f"user:{SECRET}@gpu-1:2376",
    f"ftp://user:{SECRET}@gpu-1",
]


@pytest.mark.parametrize("host", HOSTS)
def test_a_password_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str) -> None:
    from reaper.cli import main

    file = tmp_path / "mine.toml"
    for text in (
        f'[[docker]]\nname = "a"\nhost = "{host}"\n',
        f'docker = "{host}"\n',
        f'docker = ["{host}"]\n',
        f'[docker]\nhost = "{host}"\n',
        f'[[docker]]\nname = "a"\nhost = ["{host}"]\n',
    ):
        file.write_text(text)
        for arguments in (["--once"], ["config", "check"], ["config", "show"]):
            assert main([*arguments, "--config", str(file)]) == 2
            out, err = capsys.readouterr()
            assert SECRET not in out + err
            assert str(file) in err


@pytest.mark.parametrize("host", HOSTS)
def test_a_password_in_a_variable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str) -> None:
    from reaper.cli import main

    monkeypatch.setenv("DOCKER_HOST", host)
    for arguments in (["--once"], ["list"], ["config", "check"]):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert SECRET not in out + err
        assert err.startswith("reaper: DOCKER_HOST: ")


def test_the_program_says_that_it_is_no_place_for_a_password(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'[[docker]]\nname = "a"\nhost = "{HOSTS[0]}"\n')
    ended = program("--once", "--config", str(file), "--log-level", "debug")
    assert (ended.code, ended.out) == (2, "")
    assert "the host holds a user or a password" in ended.err
    assert "use TLS certificates" in ended.err
    assert 'host = "tcp://***@gpu-1:2376"' in ended.err
    assert SECRET not in ended.err

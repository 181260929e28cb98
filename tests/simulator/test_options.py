"""The options of ``reaper simulate``: what cannot be is refused with what could."""

import pytest

from reaper.simulator.__main__ import build_parser


@pytest.mark.parametrize(
    "option",
    [
        *("--rate=-1", "--rate=nan", "--rate=inf", "--rate=x", "--odd=2", "--odd=-0.1", "--odd=nan", "--containers=-1"),
        *("--sandboxes=many", "--docker-port=-1", "--docker-port=65536", "--daytona-port=70000", "--daytona-port=x"),
    ],
)
def test_a_number_that_cannot_be_is_refused_with_one_that_can(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([option])
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert option.partition("=")[0] in error
    assert repr(option.partition("=")[2]) in error

"""The tables of what the service offers: where it listens, the leases that it grants, and to whom."""

import re
from datetime import timedelta
from ipaddress import ip_address
from typing import Annotated, Self

from pydantic import StrictBool, StrictStr, field_validator, model_validator

from reaper.paths import LISTEN, LONGEST_PATH, NOWHERE, RYUK_LISTEN, host_and_port
from reaper.providers.fields import Duration, Globs, Positive, Table, at_least, check_one_of

MINUTE, DEFAULT_CATCH_UP = timedelta(minutes=1), timedelta(hours=1)

_LISTEN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^/:@\s\[\]]+):\d{1,5}")


def _check_listen(listen: str, example: str) -> str:
    """``listen`` when it can be listened on, or is "none". Raises ValueError with the hint."""
    if listen != NOWHERE and not _LISTEN.fullmatch(listen):
        host, _, port = example.rpartition(":")
        raise ValueError(
            f'{listen!r} is no address; write HOST:PORT, for example "{host}:{port}" or "[::1]:{port}", or "none"'
        )
    if (place := host_and_port(listen)) is not None and not 0 < place[1] <= 65535:
        raise ValueError(f'{listen!r} has no port between 1 and 65535; write for example "{example}"')
    return listen


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False  # what a name stands for may change


class ServiceTable(Table):
    """[service]: how ``reaper`` without arguments runs. ``listen`` "none" serves no page, no metrics and no health.

    ``catch_up`` is how late a policy with ``cron`` may still run when its time was missed.
    """

    listen: StrictStr = LISTEN
    sweep_at_start: StrictBool = True
    catch_up: Annotated[
        Duration, at_least(MINUTE, 'it is at least one minute, which a busy host may need; write for example "1h"')
    ] = DEFAULT_CATCH_UP
    jitter: Duration = timedelta(seconds=5)
    sweep_timeout: Positive = timedelta(minutes=30)
    drain_timeout: Duration = timedelta(seconds=20)
    docker_events: StrictBool = True
    dry_run: StrictBool = False

    @field_validator("listen")
    @classmethod
    def _address(cls, listen: str) -> str:
        return _check_listen(listen, LISTEN)

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on; None where nothing is to be served."""
        return host_and_port(self.listen)


class LeasesTable(Table):
    """[leases]: what running benchmarks claim. The token is never written here, but named.

    Without a token only this host can take leases, and claim by these label keys alone, each with its value; over the local
    socket root, the service's own user and the trusted ones may claim everything. ``socket`` "none" makes none. A lease that
    is older than ``max_age`` ends, although its holder lives; "none" lets it become as old as that likes.
    """

    enabled: StrictBool = True
    socket: StrictStr | None = None
    trusted_users: tuple[StrictStr, ...] = ()
    token_env: StrictStr | None = None
    token_file: StrictStr | None = None
    claimable: Globs = ("org.testcontainers.*",)
    max_age: Annotated[Duration, at_least(MINUTE, 'it is at least one minute; write for example "3d", or "none"')] | None = (
        None
    )

    @field_validator("max_age", mode="before")
    @classmethod
    def _unbounded(cls, value: object) -> object:
        return None if value == "none" else value

    @field_validator("socket")
    @classmethod
    def _path(cls, socket: str | None) -> str | None:
        if socket in (None, NOWHERE):
            return socket
        if not socket.startswith("/") or socket.endswith("/") or "\0" in socket:
            raise ValueError('it is no absolute path of a file; write for example "/run/reaper/reaper.sock", or "none"')
        if (length := len(socket.encode(errors="replace"))) > LONGEST_PATH:
            raise ValueError(f"it has {length} bytes, and a socket's path has {LONGEST_PATH} at most; name a shorter one")
        return socket

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        check_one_of(self, "token_env", "token_file")
        return self


class RyukTable(Table):
    """[ryuk]: where the service speaks the Ryuk protocol, by which Testcontainers' libraries hold leases.

    Who can connect can have deleted what others have labelled, within what [leases] claimable allows. So an address that
    others reach needs a secret, which is never written here, but named.
    """

    listen: StrictStr = NOWHERE
    secret_env: StrictStr | None = None
    secret_file: StrictStr | None = None

    @field_validator("listen")
    @classmethod
    def _address(cls, listen: str) -> str:
        return _check_listen(listen, RYUK_LISTEN)

    @model_validator(mode="after")
    def _is_guarded(self) -> Self:
        check_one_of(self, "secret_env", "secret_file")
        if self.address is not None and not _is_loopback(self.address[0]) and not self.has_secret:
            raise ValueError(
                f"listen = {self.listen!r} can be reached from elsewhere, so it needs a secret: name one with secret_file or"
                f' secret_env, or write for example listen = "{RYUK_LISTEN}"'
            )
        return self

    @property
    def has_secret(self) -> bool:
        """Whether clients have to show one."""
        return self.secret_env is not None or self.secret_file is not None

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on; None where it is not wanted."""
        return host_and_port(self.listen)

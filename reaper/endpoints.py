"""The tables of the file that name endpoints: what is needed to reach each, and how it wants to be treated."""

import re
from datetime import timedelta
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StrictStr, field_validator, model_validator

from reaper.fields import Duration, Name, Table, masked

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
DEFAULT_TLS_HOST = "tcp://localhost:2376"
"""Of the docker command, where it is told of TLS and of no host."""
DEFAULT_API_URL = "https://app.daytona.io/api"
DEFAULT_API_KEY = "DAYTONA_API_KEY"
PROVIDERS = ("docker", "daytona")

_HOST = re.compile(r"unix:///.+|(tcp|http|https)://(\[[0-9A-Fa-f:.]+\]|[^/:@\s]+)(:\d{1,5})?/?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _no_provider(name: str) -> str:
    if name in PROVIDERS:
        raise ValueError(f"{name!r} cannot be the name of an endpoint: --only {name} means all endpoints of that kind")
    return name


EndpointName = Annotated[Name, AfterValidator(_no_provider)]


class DockerTable(Table):
    """[[docker]]: one engine.

    ``removals`` and ``stops`` bound what is asked of it at the same time: an engine gains nothing from more than about
    eight removals, while stopping waits for the container and wants all of them at once.
    """

    name: EndpointName
    host: StrictStr = DEFAULT_SOCKET
    tls_ca: StrictStr | None = None
    tls_cert: StrictStr | None = None
    tls_key: StrictStr | None = None
    tls_verify: StrictBool = True
    removals: Annotated[StrictInt, Field(ge=1, le=64)] = 8
    stops: Annotated[StrictInt, Field(ge=1, le=4096)] = 128

    @field_validator("host")
    @classmethod
    def _speakable(cls, host: str) -> str:
        return check_docker_host(host)

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: a client certificate needs both")
        if self.tls and not self.host.startswith(("tcp://", "https://")):
            raise ValueError("tls_ca, tls_cert and tls_key are for tcp:// hosts")
        return self

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.host.startswith("https://") or any((self.tls_ca, self.tls_cert)) or not self.tls_verify


def check_docker_host(host: str) -> str:
    """``host`` when the Docker provider can speak to it. Raises ValueError with the cure."""
    if host.startswith("ssh://"):
        raise ValueError(
            f"{masked(host)!r}: ssh is not supported; forward the socket, ssh -L ./docker.sock:/var/run/docker.sock HOST"
        )
    if host.startswith("/"):
        raise ValueError(f'{host!r} lacks its scheme; write "unix://{host}"')
    if "@" in host and not host.startswith("unix:"):
        raise ValueError("the host holds a user or a password, which Docker engines do not take; use TLS certificates")
    if not _HOST.fullmatch(host):
        raise ValueError(f'{host!r} is no Docker host; write for example "{DEFAULT_SOCKET}" or "tcp://10.0.0.5:2376"')
    return host


class DaytonaTable(Table):
    """[[daytona]]: one organisation. Its API key is never written here, but named.

    Without ``api_url`` it is where DAYTONA_API_URL says, as for Daytona's own tools: a key must not go to another server.
    ``max_rate_share`` is the share of the organisation's rate limits that may be used, since its runs live on the rest.
    """

    name: EndpointName
    api_url: StrictStr | None = None
    api_key_env: StrictStr | None = None
    api_key_file: StrictStr | None = None
    target: StrictStr | None = None
    ca_file: StrictStr | None = None
    page_size: Annotated[StrictInt, Field(ge=1, le=200)] = 200
    max_rate_share: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.5
    concurrency: Annotated[StrictInt, Field(ge=1, le=256)] = 32
    confirm_within: Duration = timedelta(seconds=60)

    @field_validator("api_url")
    @classmethod
    def _speakable_url(cls, url: str | None) -> str | None:
        return None if url is None else check_api_url(url)

    @field_validator("api_key_env")
    @classmethod
    def _variable(cls, name: str | None) -> str | None:
        if name is not None and not _VARIABLE.fullmatch(name):
            # It may be the key itself, so it is not repeated.
            raise ValueError(
                f'it names an environment variable, and is not the key itself; write for example "{DEFAULT_API_KEY}"'
            )
        return name

    @field_validator("confirm_within")
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if not value:
            raise ValueError('a deletion takes its time; write for example "60s"')
        return value

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("api_key_env and api_key_file exclude each other; leave one out")
        return self


def check_api_url(url: str) -> str:
    """``url`` when it can be Daytona's API, without a slash at its end. Raises ValueError with the cure."""
    cure = f'write for example "{DEFAULT_API_URL}"'
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError:
        raise ValueError(f"{masked(url)!r} is no URL; {cure}") from None
    if "@" in parts.netloc:
        raise ValueError("the URL holds a user or a password, which Daytona does not take; the key goes into api_key_env")
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in url):
        raise ValueError(f"{masked(url)!r} is no http or https URL; {cure}")
    if parts.query or parts.fragment:
        raise ValueError(f"{masked(url)!r} has a query or a fragment, which no API's URL has; {cure}")
    return url.rstrip("/")

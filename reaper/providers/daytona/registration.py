"""Daytona organisations, as the rest of the program knows them."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from reaper.core.model import Kind
from reaper.errors import ConfigError
from reaper.providers.daytona.address import authority
from reaper.providers.daytona.settings import (
    API_URLS,
    DEFAULT_API_KEY,
    DEFAULT_API_URL,
    DEFAULT_ORGANISATION,
    DEFAULT_V2_API_URL,
    DaytonaTable,
    check_api_url,
)
from reaper.providers.daytona.states import STATES
from reaper.providers.registration import Connection, Registration, SecretSource
from reaper.retry.budget import Budget

_HINT = (
    "set it to an API key of the organisation (Daytona's dashboard makes them), or name another variable or a file with"
    " api_key_env or api_key_file in [[daytona]]"
)


class _Daytona(Registration[DaytonaTable]):
    name = "daytona"
    title = "Daytona"
    table = DaytonaTable
    kinds = (Kind.SANDBOX,)
    states = STATES
    default_name = DEFAULT_ORGANISATION
    without_table = "DAYTONA_API_KEY names one then"

    def has_default(self, env: Mapping[str, str]) -> bool:
        """Whether the environment has an API key."""
        return self.secret(DaytonaTable(name=DEFAULT_ORGANISATION)).is_named(env)

    def default(self, env: Mapping[str, str]) -> DaytonaTable:
        """The organisation of that key."""
        return DaytonaTable(name=DEFAULT_ORGANISATION, target=env.get("DAYTONA_TARGET") or None)

    def resolve(self, table: DaytonaTable, env: Mapping[str, str]) -> DaytonaTable:
        """Without ``api_url`` both platforms are where the variables of Daytona's own tools say. Raises ConfigError.

        With it, the second one is known of Daytona's own URL only: a key must not go to another server.
        """
        first, second = table.api_url, table.v2_api_url
        if first is None:
            first = next((url for name in API_URLS if (url := _url(env, name))), DEFAULT_API_URL)
            second = _url(env, "DAYTONA_V2_API_URL") if second is None else second
        if second is None and urlsplit(first).hostname == urlsplit(DEFAULT_API_URL).hostname:
            second = DEFAULT_V2_API_URL
        return table.model_copy(update={"api_url": first, "v2_api_url": second})

    def check(self, table: DaytonaTable) -> None:
        """Raise ConfigError for a certificate file that cannot be used."""
        authority(table)

    def secret(self, table: DaytonaTable) -> SecretSource:
        """The organisation's API key."""
        return SecretSource(table.api_key_env or DEFAULT_API_KEY, table.api_key_file, hint=_HINT)

    def address(self, table: DaytonaTable) -> str:
        """The URL of the API."""
        return str(table.api_url)

    def connect(self, table: DaytonaTable, secret: str, state: Path, *, act: bool) -> Connection:
        """A client of the organisation. Every sandbox carries its own signs of ownership: nothing has to be remembered."""
        from reaper.providers.daytona import client, links  # noqa: PLC0415 - they bring an HTTP client

        make = client.DaytonaProvider if act else client.DaytonaReader
        reading = Budget(table.max_rate_share, cautious=True)
        changing = Budget(table.max_rate_share, cautious=True)
        known = links.Links(state, f"{table.api_url} {table.name}")
        return Connection(make(table, secret, reading, changing, known), reading, changing)


def _url(env: Mapping[str, str], variable: str) -> str | None:
    """The URL in a variable; None where it is unset. Raises ConfigError."""
    try:
        return check_api_url(url) if (url := env.get(variable)) else None
    except ValueError as error:
        raise ConfigError(str(error), where=variable) from None


REGISTRATION = _Daytona()

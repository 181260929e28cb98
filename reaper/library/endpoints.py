"""The endpoints that the managers are for: given by their address, or found in the configuration."""

import os
from collections.abc import Sequence
from contextlib import suppress

from reaper.config import load
from reaper.config.secrets import with_secret
from reaper.config.settings import Settings
from reaper.errors import ConfigError
from reaper.library.access import Access
from reaper.library.sdk import organisation_of
from reaper.providers.daytona.registration import REGISTRATION as DAYTONA
from reaper.providers.daytona.settings import DEFAULT_ORGANISATION, DaytonaTable, check_api_url
from reaper.providers.docker.registration import REGISTRATION as DOCKER
from reaper.providers.docker.settings import DEFAULT_ENGINE, DockerTable, check_docker_host
from reaper.providers.docker.upstream import engine_behind
from reaper.providers.fields import did_you_mean
from reaper.providers.registration import EndpointSpec


def docker(
    *, host: str | None = None, endpoint: str | None = None, config_file: str | None = None, timeout: float | None = None
) -> Access:
    """A Docker engine.

    Args:
        host: where it is. Without it, it is an engine of the configuration, or the one that the docker command would use.
        endpoint: its name in the configuration, where that has several.
        config_file: the configuration; found as the command finds it when None.
        timeout: seconds for one operation.
    """
    settings = load.load(config_file).settings
    if host is not None:
        try:
            check_docker_host(host)
        except ValueError as error:
            raise ConfigError(str(error), where="host") from None
        table = engine_behind(DockerTable(name=endpoint or DEFAULT_ENGINE, host=host))
        return Access(EndpointSpec(DOCKER, table), settings, timeout)
    return Access(_pick(_configured(settings, DOCKER.name), endpoint, DOCKER.name), settings, timeout)


def daytona(
    *,
    api_key: str | None = None,
    api_url: str | None = None,
    endpoint: str | None = None,
    config_file: str | None = None,
    timeout: float | None = None,
    holder: object = None,
) -> Access:
    """A Daytona organisation.

    Args:
        api_key: its key. Without it, it is an organisation of the configuration, or that of DAYTONA_API_KEY.
        api_url: where the API is, for a given key; DAYTONA_API_URL, or Daytona's own, when None.
        endpoint: its name in the configuration, where that has several.
        config_file: the configuration; found as the command finds it when None.
        timeout: seconds for one operation.
        holder: a client of the package ``daytona``, or an object of one: its organisation, where none of these names one.
    """
    settings = load.load(config_file).settings
    if api_key is None and endpoint is None and holder is not None and (found_key := organisation_of(holder)) is not None:
        return Access(_with_key(settings, *found_key), settings, timeout)
    if api_key is not None:
        try:
            url = check_api_url(api_url) if api_url else None
        except ValueError as error:
            raise ConfigError(str(error), where="api_url") from None
        table = DaytonaTable(name=endpoint or DEFAULT_ORGANISATION, api_url=url)
        table = DAYTONA.resolve(table, os.environ if url is None else {})
        return Access(EndpointSpec(DAYTONA, table, api_key), settings, timeout)
    if api_url is not None:
        raise ConfigError("api_url goes with api_key: a key must not go to another server", "give both, or neither")
    found = _configured(settings, DAYTONA.name)
    if not found:
        with_secret(EndpointSpec(DAYTONA, DaytonaTable(name=DEFAULT_ORGANISATION)), os.environ)  # says that it is not set
    return Access(with_secret(_pick(found, endpoint, DAYTONA.name), os.environ), settings, timeout)


def _with_key(settings: Settings, key: str, url: str) -> EndpointSpec:
    """The organisation of a key: one of the configuration where that has it, since it may have a certificate of its own."""
    url = check_api_url(url)
    for spec in _configured(settings, DAYTONA.name):
        with suppress(ConfigError):
            known = with_secret(spec, os.environ)
            if known.secret == key and known.address == url:
                return known
    return EndpointSpec(DAYTONA, DAYTONA.resolve(DaytonaTable(name=DEFAULT_ORGANISATION, api_url=url), {}), key)


def _configured(settings: Settings, provider: str) -> tuple[EndpointSpec, ...]:
    """Those of the configuration; where it has none of this provider, that of the environment."""
    return load.endpoints(settings, os.environ, {provider}) or load.endpoints(Settings(), os.environ, {provider})


def _pick(found: Sequence[EndpointSpec], name: str | None, provider: str) -> EndpointSpec:
    names = [spec.name for spec in found]
    if name is None and len(found) > 1:
        raise ConfigError(f"the configuration has several [[{provider}]]", f"name one with endpoint=: {', '.join(names)}")
    if name is not None and name not in names:
        raise ConfigError(f"no [[{provider}]] is called {name!r}", did_you_mean(name, names))
    return next(spec for spec in found if name in (None, spec.name))

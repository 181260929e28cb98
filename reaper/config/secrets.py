"""Where the secrets are: in the environment or in a file, and nowhere in the settings. No error repeats one."""

from collections.abc import Mapping
from dataclasses import replace

from reaper.config.service_tables import LeasesTable, RyukTable
from reaper.config.trust import read_own
from reaper.errors import ConfigError
from reaper.providers.registration import FILE_SUFFIX, EndpointSpec


def with_secret(endpoint: EndpointSpec, env: Mapping[str, str]) -> EndpointSpec:
    """The endpoint with its secret. Raises ConfigError when it needs one and there is none, or nothing that could be one."""
    source = endpoint.registration.secret(endpoint.table)
    if source is None:
        return endpoint
    if source.file is not None:
        where = f"{source.file_key} = {source.file!r} of endpoint {endpoint.name}"
        text = _read(source.file, where)
    else:
        where, text = _of_variable(source.variable, env, source.hint)
    return replace(endpoint, secret=_checked(text, where, source.what))


def lease_token(leases: LeasesTable, env: Mapping[str, str]) -> str | None:
    """What clients must send to take leases, where they must. Raises ConfigError when it is named and not there."""
    return _shared(leases.token_file, leases.token_env, env, "leases", "token")


def ryuk_secret(ryuk: RyukTable, env: Mapping[str, str]) -> str | None:
    """What Ryuk's clients must send first, where they must. Raises ConfigError when it is named and not there."""
    return _shared(ryuk.secret_file, ryuk.secret_env, env, "ryuk", "secret")


def _shared(file: str | None, variable: str | None, env: Mapping[str, str], table: str, what: str) -> str | None:
    if file is not None:
        where = f"{what}_file = {file!r} of [{table}]"
        return _checked(_read(file, where), where, what)
    if variable is not None:
        hint = f"set it to the {what}, or name another variable or a file with {what}_env or {what}_file in [{table}]"
        where, text = _of_variable(variable, env, hint)
        return _checked(text, where, what)
    return None


def _checked(text: str, where: str, what: str) -> str:
    key, word = text.strip(), what.rpartition(" ")[2]
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{where} holds no {what}", f"it must hold the {word} alone, without spaces or line breaks")
    return key


def _of_variable(variable: str, env: Mapping[str, str], hint: str) -> tuple[str, str]:
    """Where the secret of this name stands, for people, and the text there."""
    text, by_file = env.get(variable, ""), variable + FILE_SUFFIX
    if not (path := env.get(by_file, "").strip()):
        if not text.strip():
            raise ConfigError(f"{variable} is not set", hint)
        return variable, text
    if text.strip():
        raise ConfigError(f"{variable} and {by_file} are both set", "leave one of them out")
    if not path.startswith("/"):  # it may be the key itself, so it is not repeated
        raise ConfigError(
            f"{by_file} is no absolute path",
            'it names the file that holds the key, and is not the key itself; write for example "/run/secrets/daytona"',
        )
    where = f"{by_file} = {path!r}"
    return where, _read(path, where)


def _read(path: str, where: str) -> str:
    try:
        return read_own(path, "ascii")
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}", "name a file that holds the key alone") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where} holds no API key", "it must hold the key alone, as plain text") from None

"""Where the secrets are: in the environment or in a file, and nowhere in the settings. No error repeats one."""

from collections.abc import Mapping
from pathlib import Path

from reaper.endpoints import DEFAULT_API_KEY, DaytonaTable
from reaper.errors import ConfigError

_CURE = (
    "set it to an API key of the organisation (Daytona's dashboard makes them), or name another variable or a file with"
    " api_key_env or api_key_file in [[daytona]]"
)


def api_key(organisation: DaytonaTable, env: Mapping[str, str]) -> str:
    """The organisation's API key. Raises ConfigError when there is none, or nothing that could be one."""
    if organisation.api_key_file is not None:
        where = f"api_key_file = {organisation.api_key_file!r} of endpoint {organisation.name}"
        try:
            text = Path(organisation.api_key_file).read_text(encoding="ascii")
        except OSError as error:
            raise ConfigError(f"{where} cannot be read: {error.strerror}", "name a file that holds the key alone") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{where} holds no API key", "it must hold the key alone, as plain text") from None
    else:
        where = organisation.api_key_env or DEFAULT_API_KEY
        text = env.get(where, "")
        if not text.strip():
            raise ConfigError(f"{where} is not set", _CURE)
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{where} holds no API key", "it must hold the key alone, without spaces or line breaks")
    return key

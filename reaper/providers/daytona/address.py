"""What a server of Daytona is trusted by."""

import ssl

from reaper.errors import ConfigError
from reaper.providers.daytona.settings import DaytonaTable


def authority(organisation: DaytonaTable) -> ssl.SSLContext | bool:
    """What the server's certificate is checked by. Raises ConfigError for a file that cannot be used."""
    file = organisation.ca_file
    if file is None:
        return True
    try:
        return ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"endpoint {organisation.name}: ca_file = {file!r} cannot be used: {error}", "name a readable PEM file"
        ) from None

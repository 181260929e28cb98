"""The table of the file that names an organisation of Daytona."""

import re
from datetime import timedelta
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, StrictInt, StrictStr, ValidationInfo, field_validator, model_validator

from reaper.core.safety_net import SafetyNet
from reaper.providers.fields import Duration, Positive, Table, at_least, check_one_of, masked
from reaper.providers.registration import EndpointTable

DEFAULT_API_URL = "https://app.daytona.io/api"


DEFAULT_V2_API_URL = "https://api.daytona.com"
"""Of Daytona's second platform, where the keys of the first one are good."""

DEFAULT_API_KEY = "DAYTONA_API_KEY"

API_URLS = "DAYTONA_API_URL", "DAYTONA_SERVER_URL"
"""The variables of the API's URL; the second one is the older name, which Daytona's own tools still read."""


_OUTLASTS_TRIALS = (
    "it is at least 8 hours: an agent may be at work for so long without one call from outside, and the platform"
    ' would stop it; write for example "1d", or leave stopping to a policy with idle_for'
)


_VARIABLE, _KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "dtn_"  # a key could be the name of a variable


class SafetyNetTable(Table):
    """[daytona.safety_net]: the platform's own timers for owned sandboxes that have them off; they outlive this program."""

    auto_stop: Annotated[Duration, at_least(timedelta(hours=8), _OUTLASTS_TRIALS)] | None = None
    auto_delete: (
        Annotated[Duration, at_least(timedelta(hours=1), 'it is at least one hour after the stop; write for example "3d"')]
        | None
    ) = None

    @model_validator(mode="after")
    def _sets_something(self) -> Self:
        if self.auto_stop is None and self.auto_delete is None:
            raise ValueError('it sets no timer; write for example auto_stop = "1d" and auto_delete = "3d", or leave it out')
        return self

    def net(self) -> SafetyNet:
        """The intervals, as the sweep sets them."""
        return SafetyNet(self.auto_stop, self.auto_delete)


class DaytonaTable(EndpointTable):
    """[[daytona]]: one organisation. Its API key is never written here, but named.

    Without ``api_url`` it is where ``API_URLS`` say, as for Daytona's own tools: a key must not go to another server.
    ``v2_api_url`` is Daytona's second platform, which is asked whether the organisation has sandboxes there; not if empty.
    ``max_rate_share`` is the share of the organisation's rate limits that may be used, since its runs live on the rest.
    """

    addresses = frozenset({"api_url", "v2_api_url"})
    unprintable = frozenset({"api_key_env"})

    api_url: StrictStr | None = None
    v2_api_url: StrictStr | None = None
    api_key_env: StrictStr | None = None
    api_key_file: StrictStr | None = None
    target: StrictStr | None = None
    ca_file: StrictStr | None = None
    page_size: Annotated[StrictInt, Field(ge=1, le=200)] = 200
    max_rate_share: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.5
    concurrency: Annotated[StrictInt, Field(ge=1, le=256)] = 32
    confirm_within: Positive = timedelta(seconds=60)
    safety_net: SafetyNetTable | None = None

    @field_validator("api_url", "v2_api_url")
    @classmethod
    def _speakable_url(cls, url: str | None, info: ValidationInfo) -> str | None:
        return url if url is None or (not url and info.field_name == "v2_api_url") else check_api_url(url)

    @field_validator("api_key_env")
    @classmethod
    def _variable(cls, name: str | None) -> str | None:
        if name is not None and (not _VARIABLE.fullmatch(name) or name.startswith(_KEY)):
            # It may be the key itself, so it is not repeated.
            raise ValueError(
                f'it names an environment variable, and is not the key itself; write for example "{DEFAULT_API_KEY}"'
            )
        return name

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        check_one_of(self, "api_key_env", "api_key_file")
        return self


def check_api_url(url: str) -> str:
    """``url`` when it can be Daytona's API, without a slash at its end. Raises ValueError with the hint."""
    hint = f'write for example "{DEFAULT_API_URL}"'
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError:
        raise ValueError(f"{masked(url)!r} is no URL; {hint}") from None
    if "@" in parts.netloc:
        raise ValueError("the URL holds a user or a password, which Daytona does not take; the key goes into api_key_env")
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in url):
        raise ValueError(f"{masked(url)!r} is no http or https URL; {hint}")
    if parts.query or parts.fragment:
        raise ValueError(f"{masked(url)!r} has a query or a fragment, which no API's URL has; {hint}")
    return url.rstrip("/")


DEFAULT_ORGANISATION = "default"

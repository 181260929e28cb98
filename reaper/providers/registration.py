"""What the rest of the program knows of a provider: one ``Registration`` for each, and what comes of it.

Nothing here imports a client: a registration is read by commands that ask nothing of any endpoint.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import field_validator

from reaper.core.model import Kind, State
from reaper.providers import registry
from reaper.providers.base import Reader
from reaper.providers.fields import Name, Table

if TYPE_CHECKING:
    from reaper.retry.budget import Budget

FILE_SUFFIX = "_FILE"
"""Ends the name of a variable that holds the path of a secret in place of the secret: no environment shows that one."""


class EndpointTable(Table):
    """The table of the configuration that names one endpoint; each provider adds its keys."""

    addresses: ClassVar[frozenset[str]] = frozenset()
    """Keys whose value may hold a password by mistake: messages mask it."""
    unprintable: ClassVar[frozenset[str]] = frozenset()
    """Keys whose value may be a secret by mistake: messages leave it out."""

    name: Name

    @field_validator("name")
    @classmethod
    def _is_no_provider(cls, name: str) -> str:
        if name in registry.names():
            raise ValueError(f"{name!r} cannot be the name of an endpoint: --only {name} means all endpoints of that kind")
        return name


T = TypeVar("T", bound=EndpointTable)


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where the secret of an endpoint is; the configuration never holds it.

    Args:
        variable: the environment variable that holds it; with ``_FILE`` at the end of its name, the path of its file.
        file: its file, which takes precedence.
        file_key: the key of the table that names ``file``.
        what: it is, for messages.
        hint: what to do when it is missing.
    """

    variable: str
    file: str | None = None
    file_key: str = "api_key_file"
    what: str = "API key"
    hint: str = ""

    def is_named(self, env: Mapping[str, str]) -> bool:
        """Whether the environment has it, or the path of its file."""
        return bool(env.get(self.variable, "").strip() or env.get(self.variable + FILE_SUFFIX, "").strip())


@dataclass(frozen=True, slots=True)
class Connection:
    """A client of one endpoint, and what its calls share.

    Args:
        reader: a ``Provider`` where it may delete.
        reading: the budget of calls that only read, where the endpoint limits their rate.
        changing: the budget of calls that change something.
        remembered_as: under which address it is remembered what is owned there; None where nothing has to be.
    """

    reader: Reader
    reading: "Budget | None" = None
    changing: "Budget | None" = None
    remembered_as: str | None = None


class Registration(ABC, Generic[T]):
    """A provider: its table, its kinds and states, and how a table becomes a client.

    Attributes:
        name: of its tables, ``[[name]]``, and for ``--only``.
        title: as people write it.
        table: the model of its tables.
        kinds: what an endpoint may hold. Policies judge those that run.
        states: what its raw states mean. Whatever is missing is unknown, and kept.
        has_events: whether its reader is ``Watched``.
        default_name: of the endpoint that the environment names.
        without_table: for people: what names an endpoint where the file has no table.
        pinned: keys that a written table always has, since without them the environment decides anew.
    """

    name: str
    title: str
    table: type[T]
    kinds: tuple[Kind, ...]
    states: Mapping[str, State]
    has_events: bool = False
    default_name: str | None = None
    without_table: str = ""
    pinned: frozenset[str] = frozenset()

    def has_default(self, env: Mapping[str, str]) -> bool:  # noqa: ARG002
        """Whether there is an endpoint to sweep where the configuration names none of any provider."""
        return False

    def default(self, env: Mapping[str, str]) -> T:
        """That endpoint. Raises ConfigError."""
        raise NotImplementedError

    def resolve(self, table: T, env: Mapping[str, str]) -> T:  # noqa: ARG002
        """``table`` with what the environment adds to it. Raises ConfigError."""
        return table

    def of_host(self, address: str, shared: Mapping[str, object]) -> dict[str, str]:
        """The keys of its own that a host of a file has: its address and its name, where tables have ``hosts_file``.

        Args:
            address: as it stands in the file.
            shared: the other keys of the table that names the file.

        Raises ValueError for what is no address.
        """
        raise NotImplementedError

    def place(self, table: T) -> Hashable:
        """What two tables have in common that lead to one endpoint."""
        return self.address(table)

    def check(self, table: T) -> None:
        """Raise ConfigError for files that cannot be used, before any endpoint is asked."""

    def secret(self, table: T) -> SecretSource | None:  # noqa: ARG002
        """Where its secret is; None where it needs none."""
        return None

    @abstractmethod
    def address(self, table: T) -> str:
        """Where the endpoint is. It is masked before it is printed."""

    @abstractmethod
    def connect(self, table: T, secret: str, state: Path, *, act: bool) -> Connection:
        """A client for life. Nothing is asked of the endpoint yet, and SDKs are imported here, not with the module.

        Args:
            table: the endpoint.
            secret: what ``secret`` named; empty where it needs none.
            state: the state directory.
            act: False gives a client that has no method to change anything.
        """


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One endpoint to sweep: its provider, its table, and its secret once that has been read."""

    registration: Registration[Any]
    table: EndpointTable
    secret: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.table.name

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self.registration.name

    @property
    def address(self) -> str:
        """Where it is. It is masked before it is printed."""
        return self.registration.address(self.table)

"""Which providers there are: the built-in ones, and those that other packages bring.

A package brings one with an entry point of the group ``reaper.providers``, whose name is that of the provider's tables. It
is loaded only for a configuration that has such a table, so that no package that happens to be installed changes what is
swept.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from reaper.core.model import Kind, State
from reaper.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from reaper.providers.registration import Registration

GROUP = "reaper.providers"
BUILT_IN: Mapping[str, str] = {
    "docker": "reaper.providers.docker.registration",
    "daytona": "reaper.providers.daytona.registration",
}
"""The modules of the built-in providers, each with its ``REGISTRATION``, in the order in which they are swept."""

_found: "dict[str, Registration[Any]]" = {}


def names() -> tuple[str, ...]:
    """The names of the built-in providers, and of those that were found for the configuration."""
    return (*BUILT_IN, *(name for name in _found if name not in BUILT_IN))


def built_in() -> "tuple[Registration[Any], ...]":
    """The built-in providers."""
    return tuple(map(get, BUILT_IN))


def get(name: str) -> "Registration[Any]":
    """The provider of that name. Raises KeyError when there is none, ConfigError when it cannot be loaded."""
    if (registration := find(name)) is None:
        raise KeyError(name)
    return registration


def find(name: str) -> "Registration[Any] | None":
    """The provider of that name; None when there is none. Raises ConfigError for one that cannot be loaded."""
    if name not in _found:
        registration = import_module(BUILT_IN[name]).REGISTRATION if name in BUILT_IN else _of_package(name)
        if registration is None:
            return None
        _found[name] = registration
    return _found[name]


def states() -> frozenset[str]:
    """The names of all states, the normalised ones and the providers' own."""
    return frozenset(State).union(*(get(name).states for name in names()))


def kinds_of(provider: str) -> tuple[Kind, ...]:
    """What an endpoint of this provider may hold; all kinds where the provider is not known."""
    return get(provider).kinds if provider in names() else tuple(Kind)


def _of_package(name: str) -> "Registration[Any] | None":
    if not name.isidentifier():  # no table that REAPER_ variables could name
        return None
    from importlib.metadata import entry_points  # noqa: PLC0415 - 20 ms that only other packages' providers need

    found = sorted(set(entry_points(group=GROUP, name=name)), key=lambda point: point.value)
    if not found:
        return None
    where = f"[[{name}]]"
    if len(found) > 1:
        bringing = " and ".join(_described(point) for point in found)
        raise ConfigError(f"two packages bring a provider of this name: {bringing}", "uninstall one of them", where)
    return _loaded(found[0], where)


def _loaded(point: "EntryPoint", where: str) -> "Registration[Any]":
    from reaper.providers.registration import Registration  # noqa: PLC0415 - it imports this module

    try:
        registration = point.load()
    except Exception as error:  # noqa: BLE001 - another package's code is run
        why = " ".join(f"{type(error).__name__}: {error}".split())
        hint = "update or uninstall that package"
        raise ConfigError(f"its provider cannot be loaded, {_described(point)}: {why}", hint, where) from None
    if not isinstance(registration, Registration) or registration.name != point.name:
        raise ConfigError(
            f"{_described(point)} is no registration of a provider called {point.name!r}",
            "update or uninstall that package",
            where,
        )
    return registration


def _described(point: "EntryPoint") -> str:
    package = f" of the package {point.dist.name}" if point.dist is not None else ""
    return f"{point.value}{package}"

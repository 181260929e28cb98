"""From a TOML file and the environment to frozen ``Settings``, with the origin of every value.

An override names its place with double underscores, REAPER_RETRY__ATTEMPTS, and an entry of a list by its name,
REAPER_POLICY__STOPPED_CONTAINERS__EVERY. Other variables that begin with REAPER_ are no settings.
"""

import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from reaper import paths
from reaper.config.hosts import Hosts, Key, expand
from reaper.config.policies import DEFAULT_POLICIES
from reaper.config.settings import Settings
from reaper.config.trust import read_own
from reaper.errors import ConfigError
from reaper.paths import CANDIDATES, is_there
from reaper.providers import registry
from reaper.providers.fields import did_you_mean, masked, toml_value
from reaper.providers.registration import EndpointSpec, EndpointTable

PREFIX = "REAPER_"
DEEPEST = 20  # tables in one another
OTHER_VARIABLES = frozenset(
    {"REAPER_CONFIG", "REAPER_LEASE", "REAPER_LABEL", "REAPER_IMAGE_LABEL", "REAPER_URL", "REAPER_TOKEN"}
)

TOP_LEVEL = ("default_policies",)  # keys that stand above all tables


@dataclass(frozen=True, slots=True)
class Config:
    """The settings and where they come from.

    Args:
        file: the file that was read, or None when there is none.
        text: what stands in it; empty without one.
        hosts: what files of hosts have named.
        origins: for each value that is not the default: "file" or the name of a variable, by its place.
    """

    settings: Settings
    file: Path | None
    origins: Mapping[Key, str]
    text: str = ""
    hosts: Hosts = field(default_factory=Hosts)

    def origin(self, key: Key) -> str:
        """Where the value at ``key`` comes from, for people."""
        return _origin(key, self.origins) or "default"


def _origin(key: Key, origins: Mapping[Key, str]) -> str | None:
    return next((origin for length in range(len(key), 0, -1) if (origin := origins.get(key[:length]))), None)


def find_file(explicit: str | None, env: Mapping[str, str]) -> Path | None:
    """The configuration file that counts, or None when the defaults do. Raises ConfigError for one that is missing."""
    for name, where in ((explicit, "--config"), (env.get("REAPER_CONFIG"), "REAPER_CONFIG")):
        if name is not None and not name.strip():
            raise ConfigError("it is empty, which names no file", "name a TOML file, or leave it out", where)
        if name is not None:
            if not is_there(name):
                raise ConfigError(f"{name} does not exist", "name a TOML file", where)
            return Path(name)
    return next((Path(path) for path in CANDIDATES if is_there(path)), None)


def load(explicit: str | None = None, env: Mapping[str, str] | None = None) -> Config:
    """Read, merge and check the configuration. Raises ConfigError that names file, key, value and hint."""
    env = os.environ if env is None else env
    return _load(find_file(explicit, env), env)


def with_hosts_of_now(before: Config, env: Mapping[str, str]) -> Config:
    """The same configuration, with its files of hosts read again. Raises ConfigError."""
    return _load(before.file, env, before.text)


def of_environment(env: Mapping[str, str]) -> Config:
    """The configuration of a command that reads no file: the defaults, and what REAPER_ variables override.

    Raises ConfigError.
    """
    return _load(None, env)


def _load(file: Path | None, env: Mapping[str, str], text: str | None = None) -> Config:
    text = (_read(file) if file else "") if text is None else text
    raw, keys = _parse(file, text) if file else ({}, ())
    model = _model(raw)
    origins: dict[Key, str] = dict.fromkeys(keys, str(file))
    for variable in sorted(env):
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in TOP_LEVEL:
            raw[name], origins[name,] = _value(env[variable], str(model.model_fields[name].annotation), variable), variable
        elif "__" in variable:
            origins[_override(model, raw, variable, env[variable])] = variable
        elif (meant := _meant(model, variable, raw)) is not None:
            raise ConfigError("it is no setting", f"did you mean {meant}, with two underscores?", variable)
    hosts = expand(raw, origins, file.parent if file else Path())
    try:
        settings = model.model_validate(raw)
    except ValidationError as error:
        raise _explain(error, model, raw, origins, file) from None
    return Config(settings.with_groups(hosts.groups), file, origins, text, hosts)


def _read(file: Path) -> str:
    try:
        text = read_own(file, "utf-8-sig")  # editors on Windows begin a file with a byte order mark
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", "name a TOML file that this user can read, with --config", str(file)
        ) from None
    except ValueError as error:
        raise _no_toml(file, error) from None
    if not text.strip() and file.is_file():
        # What an editor leaves on a full disk; the defaults would delete what it protected. /dev/null means them.
        raise ConfigError("it is empty", "restore it; for the defaults write a comment into it, or remove it", str(file))
    return text


def _parse(file: Path, text: str) -> tuple[dict[str, Any], Collection[Key]]:
    """The content of the file, and the place of each value in it."""
    try:
        raw = tomllib.loads(text)
        return raw, tuple(_leaves(raw))
    except (ValueError, RecursionError) as error:  # no TOML, numbers or nesting beyond what Python reads
        raise _no_toml(file, error) from None


def _no_toml(file: Path, error: Exception) -> ConfigError:
    return ConfigError(f"is not TOML: {error}", "reaper.example.toml shows how it is written", str(file))


def _model(raw: Mapping[str, Any]) -> type[Settings]:
    """The settings with the tables of the providers that other packages bring, where ``raw`` has such tables."""
    unknown = [table for table in raw if table not in Settings.model_fields]
    return Settings.with_tables_of(found for table in unknown if (found := registry.find(table)) is not None)


def _leaves(value: object, key: Key = ()) -> Iterator[Key]:
    """The places of the values. Raises ValueError for what is nested far beyond any setting."""
    if len(key) > DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, (*key, name))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for i, inner in enumerate(value):
            yield from _leaves(inner, (*key, i))
    else:
        yield key


def _variable_form(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _override(model_of_all: type[Settings], raw: dict[str, Any], variable: str, text: str) -> Key:
    """Put the variable's value into ``raw`` at the place that it names, and return that place."""
    key: Key
    path = variable.removeprefix(PREFIX).split("__")
    table = path[0].lower()
    field = model_of_all.model_fields.get(table)
    if field is None or table in TOP_LEVEL:
        tables = [name for name in model_of_all.model_fields if name not in TOP_LEVEL]
        raise ConfigError(f"there is no table [{table}]", did_you_mean(table, tables), variable)
    model = _entry(table, model_of_all)
    if model is not field.annotation:
        if len(path) != 3:
            raise ConfigError("it names no entry", f"write {PREFIX}{table.upper()}__NAME__KEY", variable)
        if table == "policy":
            raw["policy"] = _with_default_policies(raw)
        entries = raw.get(table, [])
        if not isinstance(entries, list):
            raise ConfigError(f"{table} is no list of tables in the file", f"write [[{table}]] there", variable)
        names = {_variable_form(str(e.get("name"))): i for i, e in enumerate(entries) if isinstance(e, dict)}
        if path[1] not in names:
            hint = did_you_mean(path[1], names) if names else f"the file has no [[{table}]]{_without(table)}"
            raise ConfigError(f"no [[{table}]] has this name", hint, variable)
        target, key = entries[names[path[1]]], (table, names[path[1]], path[2].lower())
    else:
        if len(path) != 2:
            raise ConfigError("it names no key", f"write {PREFIX}{table.upper()}__KEY", variable)
        target, key = raw.setdefault(table, {}), (table, path[1].lower())
    name = str(key[-1])
    if name not in model.model_fields:
        raise ConfigError(f"[{table}] has no key {name!r}", did_you_mean(name, model.model_fields), variable)
    if not isinstance(target, dict):
        raise ConfigError(f"{table} is no table in the file", f"write [{table}] there", variable)
    target[name] = _value(text, str(model.model_fields[name].annotation), variable)
    return key


def _with_default_policies(raw: Mapping[str, Any]) -> object:
    """The file's policies and the built-in ones that hold beside them: a variable may name these, too."""
    policies = raw.get("policy")
    if policies is not None and (raw.get("default_policies") is not True or not isinstance(policies, list)):
        return policies
    named = {entry.get("name") for entry in policies or () if isinstance(entry, dict)}
    return [*(policies or ()), *(dict(policy) for policy in DEFAULT_POLICIES if policy["name"] not in named)]


def _without(table: str) -> str:
    text = registry.get(table).without_table if table in registry.names() else ""
    return text and f"; {text}"


def _meant(model_of_all: type[Settings], variable: str, raw: Mapping[str, Any]) -> str | None:
    """The setting that ``variable`` names but for its table or underscores: REAPER_SCOPE__LABELS for REAPER_SCOPE_LABELS."""
    key, tables = variable.removeprefix(PREFIX).lower(), model_of_all.model_fields.items()
    if of := [f"{PREFIX}{name}__{key}".upper() for name, f in tables if key in getattr(f.annotation, "model_fields", ())]:
        return " or ".join(of) + (" (for one sweep --dry-run)" if key == "dry_run" else "")
    table, _, rest = variable.removeprefix(PREFIX).partition("_")
    field = model_of_all.model_fields.get(table.lower())
    if field is None or not rest:
        return None
    model = _entry(table.lower(), model_of_all)
    if model is field.annotation:
        return f"{PREFIX}{table}__{rest}" if rest.lower() in model.model_fields else None
    entries = _with_default_policies(raw) if table == "POLICY" else raw.get(table.lower(), ())
    for entry in entries if isinstance(entries, list | tuple) else ():
        name = _variable_form(str(entry.get("name"))) if isinstance(entry, dict) else ""
        key = rest.removeprefix(f"{name}_").lower()
        if rest.startswith(f"{name}_") and key in model.model_fields:
            return f"{PREFIX}{table}__{name}__{key.upper()}"
    return None


def unknown_variables(settings: Settings, env: Mapping[str, str]) -> list[str]:
    """The variables that begin with REAPER_ and mean nothing to this program."""
    sources = [provider.secret(table) for provider, table in settings.endpoints()]
    named = {settings.leases.token_env, settings.ryuk.secret_env, *(source.variable for source in sources if source)}
    known = {*OTHER_VARIABLES, *(name for name in named if name), *(f"{name}_FILE" for name in named if name)}
    return sorted(name for name in env if name.startswith(PREFIX) and "__" not in name and name not in known)


def _value(text: str, annotation: str, variable: str) -> object:
    """A variable's text as the TOML value that a field of this type would have in the file. Raises ConfigError."""
    is_list = annotation.startswith("tuple")
    if not text.strip(" ,"):
        # Such as a variable of Compose that is not set: it must not take away what the file says.
        empty = "; for an empty list write []" if is_list else ""
        raise ConfigError("it is empty, which is no value", f"set it, or leave the variable out{empty}", variable)
    if is_list:
        if not text.lstrip().startswith("["):
            return [part.strip() for part in text.split(",") if part.strip()]
        try:
            return tomllib.loads(f"v = {text}")["v"]
        except (ValueError, RecursionError):
            raise ConfigError(f"{text!r} is no list", 'write a,b or ["a", "b"]', variable) from None
    if text.lstrip().startswith("{") or any(scalar in annotation for scalar in ("int", "float", "bool", "dict")):
        try:
            return tomllib.loads(f"v = {text}")["v"]
        except (ValueError, RecursionError):
            return text
    return text


_HINTS = {
    "int_type": "write a whole number, for example 4",
    "float_type": "write a number, for example 2.0",
    "bool_type": "write true or false, without quotes",
    "string_type": "write a text in quotes",
    "dict_type": "write a table, for example { a = 1 }",
    "tuple_type": 'write a list, for example ["a", "b"]',
    "too_short": 'write at least one, for example ["container"]',
}
_EXAMPLES = {"name": '"a-name"', "kinds": '["container"]'}


def _explain(
    error: ValidationError, model: type[Settings], raw: dict[str, Any], origins: Mapping[Key, str], file: Path | None
) -> ConfigError:
    """Pydantic's errors as sentences that name place, value and hint; all of them, since people mend all at once."""
    details = error.errors(include_url=False, include_input=True)
    found = [(_where(tuple(detail["loc"]), origins, file), _sentence(detail, model, raw)) for detail in details]
    first = found[0][0]
    lines = [line if where == first else f"{where}: {line}" for where, line in found]
    return ConfigError("\n  ".join(lines), where=first)


def _where(loc: Key, origins: Mapping[Key, str], file: Path | None) -> str:
    """Where the value at ``loc`` was set; for a whole table, all places that set something in it."""
    if origin := _origin(loc, origins):
        return origin
    within = [origin for key, origin in origins.items() if loc and key[: len(loc)] == loc]
    return " and ".join(dict.fromkeys(within)) or str(file or "the environment")


def _sentence(detail: ErrorDetails, model: type[Settings], raw: dict[str, Any]) -> str:
    loc = [part for part in detail["loc"] if part != "[key]"]
    place, key = _place(loc, raw)
    message = _HINTS.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    if detail["type"] == "extra_forbidden":
        elsewhere = loc[-1] in TOP_LEVEL
        hint = "it stands at the top of the file, above the first table" if elsewhere else _known_keys(loc, model)
        return f"{place}: unknown key {key!r}; {hint}"
    if detail["type"] == "missing":
        return f"{place}: {key!r} is missing; write for example {key} = {_EXAMPLES.get(key, '...')}"
    scalar, of_table = loc[:1] in [[key] for key in TOP_LEVEL], len(loc) == 1 and detail["type"] == "value_error"
    if not of_table and not scalar and (len(loc) == 1 or detail["type"] == "model_type"):
        single = isinstance(model.model_fields[str(loc[0])].default, BaseModel)
        table = f"[{'.'.join(map(str, loc))}]" if single else f"[[{loc[0]}]]"
        return f"{place}: {key or 'it'} is no table; write {table} and its keys below it"
    if of_table or not key:
        place = f"[{key}]" if of_table else place
        return f"{place}: {message}" if place else message
    given = detail["input"]
    text = toml_value(given)
    entry = _entry(str(loc[0]), model)
    if issubclass(entry, EndpointTable) and key in entry.unprintable:
        return f"{place}: {key}: {message}"  # the secret itself may have been written there
    if issubclass(entry, EndpointTable) and key in entry.addresses:
        text = toml_value(masked(given)) if isinstance(given, str) else masked(text)
    value = "" if isinstance(given, dict) else f" = {text}"
    return f"{place}: {key}{value}: {message[:1].lower()}{message[1:]}"


def _place(loc: list[str | int], raw: dict[str, Any]) -> tuple[str, str]:
    """The table as it is written in the file, with its name where it is one of a list, and the key in it."""
    if not loc:
        return "", ""
    table = str(loc[0])
    if len(loc) > 1 and isinstance(loc[1], int):
        entries = raw.get(table)
        entry = entries[loc[1]] if isinstance(entries, list) and loc[1] < len(entries) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        return f"[[{table}]] {name!r}" if name else f"[[{table}]] number {loc[1] + 1}", _nested(loc[2:])
    if len(loc) == 1:
        return "the file", table
    if all(isinstance(part, str) for part in loc):  # a table in a table
        return f"[{'.'.join(map(str, loc[:-1]))}]", str(loc[-1])
    return f"[{table}]", str(loc[1])


def _nested(loc: list[str | int]) -> str:
    """The key, with that of a table in it: "exclude.labels"."""
    return ".".join(str(part) for i, part in enumerate(loc[:2]) if i == 0 or isinstance(part, str))


def _known_keys(loc: list[str | int], model: type[Settings]) -> str:
    known: type[BaseModel] = model
    for part in loc[:-1]:
        if part in known.model_fields:
            known = _entry(str(part), known)
    return did_you_mean(str(loc[-1]), known.model_fields)


def _entry(table: str, model: type[BaseModel]) -> type[BaseModel]:
    """The model of a table, or of each table where there may be several."""
    annotation = model.model_fields[table].annotation
    models = [annotation, *get_args(annotation)]
    return next((m for m in models if isinstance(m, type) and issubclass(m, BaseModel)), model)


def endpoints(
    settings: Settings, env: Mapping[str, str], providers: Collection[str] | None = None
) -> tuple[EndpointSpec, ...]:
    """The configured endpoints, without their secrets; where none is configured, those that the environment names.

    Args:
        settings: the configuration.
        env: the environment.
        providers: the names of those to ask; None means all.

    Raises ConfigError.
    """
    found = settings.endpoints()
    if not found:
        named = (p for p in registry.built_in() if (providers is None or p.name in providers) and p.has_default(env))
        found = tuple((provider, provider.default(env)) for provider in named)
    return tuple(
        EndpointSpec(provider, provider.resolve(table, env))
        for provider, table in found
        if providers is None or provider.name in providers
    )


def state_directory(env: Mapping[str, str]) -> Path:
    """Where this program keeps what it must remember. It may not exist yet."""
    return Path(paths.state_directory(env))

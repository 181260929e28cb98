"""A provider is one folder: which modules elsewhere name one in their code, and why."""

import ast
from collections.abc import Iterator
from pathlib import Path

import reaper
from reaper.providers import registry

PRODUCT = Path(reaper.__file__).parent
ALLOWED = {
    "the public names of the package": {"__init__.py"},
    "the managers of the library, each for one provider": {
        "library/creation.py",
        "library/docker.py",
        "library/daytona.py",
        "library/sdk.py",
        "library/managed.py",
        "library/endpoints.py",
    },
    "the labelling proxy of reaper run, which is Docker's own": {
        "run/command.py",
        "run/recorder.py",
        "run/proxy/__init__.py",
        "run/proxy/server.py",
    },
    "the Harbor plugin, which labels Harbor's own kinds of environments": {"harbor.py"},
    "Ryuk, which is Docker's own": {"ryuk/command.py"},
    "a hint with a command of docker compose": {"observers/hints.py"},
    "the key [service] docker_events": {"config/service_tables.py", "service/loaded.py"},
}


def _names(tree: ast.AST) -> Iterator[str]:
    """Identifiers, imported modules, and texts that are a name alone."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ImportFrom(module=str(module), names=names):
                yield from (module, *(alias.name for alias in names))
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.Constant(value=str(text)) if text.isidentifier():
                yield text
            case _:
                pass


def naming() -> set[str]:
    """The modules outside of the providers and the simulator whose code names a built-in provider."""
    files = (file.relative_to(PRODUCT) for file in PRODUCT.rglob("*.py"))
    return {
        str(file)
        for file in files
        if file.parts[0] not in ("providers", "simulator")
        for name in _names(ast.parse((PRODUCT / file).read_text()))
        if any(provider in name.casefold() for provider in registry.BUILT_IN)
    }


def test_no_module_names_a_provider_but_those_whose_feature_is_one_providers_own() -> None:
    allowed = set().union(*ALLOWED.values())
    assert naming() - allowed == set(), "reach it through its registration (reaper/providers/registration.py)"
    assert allowed - naming() == set(), "strike it off the list"

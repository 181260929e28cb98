"""A provider as another package would bring it: a sandbox is a JSON file in a folder. CONTRIBUTING.md walks through it."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import StrictStr

from reaper.core.model import Kind, Resource, State
from reaper.errors import NotFoundError, UnreadableError
from reaper.providers.base import NOTHING_ELSE, Also, Call, Inventory, Limits, Listed, Traits
from reaper.providers.registration import Connection, EndpointTable, Registration, SecretSource

STATES = {"up": State.RUNNING, "down": State.STOPPED, "booting": State.CHANGING}


class ExampleTable(EndpointTable):
    """[[example]]: one folder."""

    addresses = frozenset({"folder"})

    folder: StrictStr
    token_env: StrictStr = "EXAMPLE_TOKEN"


class ExampleReader:
    """Lists and inspects; has no method that changes anything, so that a dry run cannot delete."""

    provider = "example"
    traits = Traits(stops_first=False, kinds=frozenset({Kind.SANDBOX}))
    limits = Limits()

    def __init__(self, table: ExampleTable) -> None:
        self.endpoint = table.name
        self.identity = table.folder
        self.endpoint_id: str | None = None
        self._folder = Path(table.folder)

    async def list(self, call: Call, label_keys: frozenset[str] = frozenset(), also: Also = NOTHING_ELSE) -> Inventory:  # noqa: ARG002
        """Everything in the folder. A partial answer must be an error: what is absent from it counts as gone."""

        async def read() -> Inventory:
            try:
                files = sorted(self._folder.glob("*.json"))
                self._folder.stat()
            except OSError as error:
                raise UnreadableError(f"{self._folder} cannot be listed: {error.strerror}") from error
            return Inventory(tuple(self._resource(file) for file in files))

        await self.identify(call)
        return await call(f"list {self.endpoint}", read)  # with retries, a time-out and the endpoint's limits

    async def identify(self, call: Call) -> None:  # noqa: ARG002
        """What tells it from every other endpoint."""
        self.endpoint_id = f"example:{self._folder.resolve()}"

    async def inspect(self, resource: Resource) -> Resource:
        """The sandbox as it is now, by id. Raises NotFoundError."""
        return self._resource(self._file(resource))

    async def members(self, resource: Resource, call: Call) -> Sequence[Resource]:  # noqa: ARG002
        """There are no groups."""
        return (resource,)

    async def dependents(self, resources: Sequence[Resource], listed: Listed, call: Call) -> Sequence[Resource]:  # noqa: ARG002
        """Nothing uses a sandbox."""
        return ()

    async def close(self) -> None:
        """There is no connection to close."""

    def _file(self, resource: Resource) -> Path:
        file = self._folder / f"{resource.id}.json"
        if not file.is_file():
            raise NotFoundError(f"no sandbox {resource.id}")
        return file

    def _resource(self, file: Path) -> Resource:
        """Missing or odd values become None or ``unreadable``, which keeps the sandbox: never a default."""
        row: Mapping[str, Any] = {}
        unreadable = created = None
        try:
            row = json.loads(file.read_text())
            created = datetime.fromisoformat(row["created"])
        except FileNotFoundError as error:
            raise NotFoundError(f"no sandbox {file.stem}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            unreadable = f"{type(error).__name__} in {file.name}"
        raw_state = str(row.get("state"))
        return Resource(
            provider=self.provider,
            endpoint=self.endpoint,
            kind=Kind.SANDBOX,
            id=file.stem,
            name=file.stem,
            state=STATES.get(raw_state, State.UNKNOWN),
            raw_state=raw_state,
            created_at=created,
            labels=row.get("labels"),
            unreadable=unreadable,
        )


class ExampleProvider(ExampleReader):
    """A reader that can also act."""

    async def stop(self, resource: Resource, grace: timedelta) -> None:  # noqa: ARG002
        """Asked for only where a deletion was denied, since the traits say that nothing has to stop first."""
        self._file(resource)

    async def delete(self, resource: Resource, *, force: bool = False) -> None:  # noqa: ARG002
        """Delete it by id. Raises NotFoundError when it is gone already."""
        self._file(resource).unlink(missing_ok=True)


class _Example(Registration[ExampleTable]):
    name = "example"
    title = "Example"
    table = ExampleTable
    kinds = (Kind.SANDBOX,)
    states = STATES

    def secret(self, table: ExampleTable) -> SecretSource:
        """The token that a real service would ask for."""
        return SecretSource(table.token_env, what="token", hint="set it to the token of the service")

    def address(self, table: ExampleTable) -> str:
        """The folder."""
        return table.folder

    def connect(self, table: ExampleTable, secret: str, state: Path, *, act: bool) -> Connection:  # noqa: ARG002
        """An SDK would be imported here, so that commands that ask nothing of any endpoint do without it."""
        return Connection(ExampleProvider(table) if act else ExampleReader(table))


REGISTRATION = _Example()

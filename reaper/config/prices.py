"""[prices]: what turns the time that deletions have avoided into money."""

import re
from typing import Annotated

from pydantic import Field, StrictStr, field_validator

from reaper.core.savings import Prices, Rates
from reaper.providers.fields import Name, Table

Price = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)", re.ASCII)


class RatesTable(Table):
    """What an hour costs; without a key it has no price."""

    container_hour: Price | None = None
    cpu_hour: Price | None = None
    memory_gib_hour: Price | None = None
    disk_gib_hour: Price | None = None

    def rates(self) -> Rates:
        """The rates as the summary reads them."""
        return Rates(self.container_hour, self.cpu_hour, self.memory_gib_hour, self.disk_gib_hour)


class PricesTable(RatesTable):
    """[prices]: what an hour of what would have gone on costs, for `reaper history --summary` and the metrics."""

    currency: StrictStr = "USD"
    sizes: dict[StrictStr, Price] = Field(default={})
    endpoints: dict[Name, RatesTable] = Field(default={})

    @field_validator("currency")
    @classmethod
    def _short(cls, currency: str) -> str:
        if not 0 < len(currency) <= 8 or not currency.isprintable() or currency != currency.strip():
            raise ValueError(f'{currency!r} is no short name of a currency; write for example "USD"')
        return currency

    @field_validator("sizes")
    @classmethod
    def _are_sizes(cls, sizes: dict[str, float]) -> dict[str, float]:
        for size in sizes:
            if not _SIZE.fullmatch(size):
                raise ValueError(
                    f"{size!r} is no size of a sandbox; write its CPUs and the GiB of its memory and its disk, for example"
                    ' "4x8x10" = 0.33'
                )
        return sizes

    def prices(self) -> Prices:
        """The prices as the summary reads them."""
        sizes = {_size(size): price for size, price in self.sizes.items()}
        return Prices(self.currency, self.rates(), {name: table.rates() for name, table in self.endpoints.items()}, sizes)


def _size(text: str) -> tuple[float, float, float]:
    found = _SIZE.fullmatch(text)
    assert found is not None
    cpu, memory, disk = map(float, found.groups())
    return cpu, memory, disk

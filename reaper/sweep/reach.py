"""What an endpoint holds, or may hold, that its sweep could not see: an endpoint of which that is known is not clean."""

from collections.abc import Mapping

from reaper.core.model import Kind
from reaper.errors import PartlyListedError, ProviderError
from reaper.providers.abilities import Elsewhere
from reaper.providers.base import Reader

PARTLY = PartlyListedError.label


async def check_reach(reader: Reader, unlisted: Mapping[Kind, str], warnings: list[str], *, ask: bool) -> None:
    """Raise PartlyListedError when something there was out of reach.

    Args:
        reader: of the endpoint, which has been swept.
        unlisted: the kinds that could not be listed, each with the error.
        warnings: gets a sentence where it is unknown whether it holds anything elsewhere.
        ask: whether there is time to ask that.
    """
    found = [f"its {kind}s could not be listed: {why}" for kind, why in unlisted.items()]
    if ask and isinstance(reader, Elsewhere):
        try:
            if (elsewhere := await reader.elsewhere()) is not None:
                found.append(elsewhere)
        except ProviderError as error:
            warnings.append(f"whether it holds anything elsewhere is unknown: {error}")
    if found:
        raise PartlyListedError("; ".join(found))

"""In which order things go that use each other. Pure."""

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

T = TypeVar("T")


def users_first(
    items: Sequence[T], ids: Callable[[T], Collection[str]], uses: Callable[[T], Collection[str]]
) -> list[list[T]]:
    """The items in layers: what uses another one is in an earlier layer. A circle is one layer.

    Args:
        items: what is to be ordered.
        ids: what others may use it by.
        uses: what it uses.
    """
    owners = {id_: number for number, item in enumerate(items) for id_ in ids(item)}
    users: list[set[int]] = [set() for _ in items]
    for number, item in enumerate(items):
        for used in uses(item):
            owner = owners.get(used, number)
            if owner != number:
                users[owner].add(number)
    layers: list[list[T]] = []
    left = set(range(len(items)))
    while left:
        ready = {number for number in left if not users[number] & left} or left
        layers.append([items[number] for number in sorted(ready)])
        left = left - ready
    return layers

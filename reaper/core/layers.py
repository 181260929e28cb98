"""Which images others were built on, as their layers show. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from reaper.core.model import Decision, Kind, Resource

Layers = tuple[str, ...]


def images_below(reaped: Iterable[Resource], kept: Iterable[Resource]) -> Mapping[str, str]:
    """By the id of each image that is to go the name of a kept one that was built on it.

    BuildKit writes no parent into an image, so the layers tell: those of what it was built on are the first of its own.
    Where a kept image has exactly the same layers, that is the one that others were built on.
    """
    kept = [image for image in kept if image.layers]
    stays = {image.layers for image in kept}
    children: dict[Layers, str] = {}
    for image in kept:
        for below in _below(image.layers):
            children.setdefault(below, image.name)
    found = {}
    for image in reaped:
        child = children.get(image.layers) if image.layers and image.layers not in stays else None
        if child is not None:
            found[image.id] = child
    return found


def images_under(images: Iterable[Resource]) -> dict[str, list[Resource]]:
    """By the id of each image with layers the others that it may have been built on."""
    with_layers = [image for image in images if image.kind is Kind.IMAGE and image.layers]
    by_layers: dict[Layers, list[Resource]] = {}
    for image in with_layers:
        by_layers.setdefault(image.layers, []).append(image)
    return {i.id: [parent for below in _below(i.layers) for parent in by_layers.get(below, ())] for i in with_layers}


def mark_inherited(resources: Iterable[Resource]) -> list[Resource]:
    """The resources with the labels marked that an image has from another one that it was built on."""
    resources = list(resources)
    if not any(one.layers for one in resources):
        return resources
    under = images_under(resources)
    images = {one.id: one for one in resources if one.kind is Kind.IMAGE}
    return [
        _marked(one, [*under[one.id], *_tagged_below(one, images)]) if one.id in under and one.labels else one
        for one in resources
    ]


def _tagged_below(image: Resource, images: Mapping[str, Resource]) -> Iterator[Resource]:
    """What the engine says that it was built on, as far as that has a tag; without one it may be a step of the same build.

    The layers do not tell of what added none, such as ``FROM other`` with ``ENV`` or ``CMD`` alone.
    """
    new, seen = [image], {image.id}
    while new:
        for id_ in new.pop().uses & images.keys() - seen:
            seen.add(id_)
            new.append(images[id_])
            if images[id_].tags:
                yield images[id_]


def _marked(image: Resource, parents: Iterable[Resource]) -> Resource:
    labels = image.labels or {}
    inherited = frozenset(
        key for parent in parents for key, value in (parent.labels or {}).items() if labels.get(key) == value
    )
    return replace(image, inherited=inherited) if inherited != image.inherited else image


def _below(layers: Layers) -> Iterator[Layers]:
    """The layers of each image that one may have been built on."""
    return (layers[:length] for length in range(1, len(layers)))


def unread_images(decisions: Iterable[Decision]) -> list[Resource]:
    """The images whose layers have to be read before another one may go: they may have been built on that."""
    images = [decision for decision in decisions if decision.resource.kind is Kind.IMAGE]
    if not any(decision.reap for decision in images):
        return []
    return [d.resource for d in images if not d.resource.layers and not d.resource.inspected]

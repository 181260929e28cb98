"""The metrics as others read them: over HTTP in what format they ask for, and as a file for node_exporter."""

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, write_to_textfile
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest

from reaper.errors import ConfigError


class Tidy:
    """What a registry collects, without the time of creation of each series, which doubles their number for nothing.

    prometheus_client has a switch for that, but it is the whole process's, and others may live in it.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """See ``prometheus_client.registry.Collector``."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

    def render(self, accept: str) -> tuple[bytes, str]:
        """Body and content type for an Accept header. May be called in any thread, while the loop goes on counting."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # it asks for a version that is no number
            encode, content_type = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
        return encode(self), content_type

    def write_textfile(self, path: Path) -> None:
        """Write everything for node_exporter, which never sees a part of it. Raises ConfigError when that cannot be done."""
        try:
            write_to_textfile(str(path), self)
        except OSError as error:
            raise ConfigError(f"the metrics cannot be written: {error.strerror or error}", where=str(path)) from error

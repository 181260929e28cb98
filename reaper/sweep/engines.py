"""Which endpoint leads to which engine: one that has two names is swept under the first alone."""

from reaper.errors import SameEndpointError


class Engines:
    """What the endpoints of one process lead to."""

    def __init__(self) -> None:
        self._by_name: dict[str, str] = {}

    def claim(self, name: str, engine: str | None) -> None:
        """Note what an endpoint leads to. Raises SameEndpointError where another one has led there before."""
        self.release(name)
        if engine is None:
            return
        if (other := next((other for other, known in self._by_name.items() if known == engine), None)) is not None:
            raise SameEndpointError(f"it is the engine of endpoint {other} by another address: name it once")
        self._by_name[name] = engine

    def release(self, name: str) -> None:
        """The endpoint is swept no more."""
        self._by_name.pop(name, None)

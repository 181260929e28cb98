"""A page as a list of elements, read strictly: whatever is unbalanced, unknown or open fails."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br"}
_BODY = "header nav main footer section article div p h1 h2 h3 a span strong code bdi time ul li dl dt dd details summary"
_TABLE = "table caption thead tbody tr th td"
KNOWN = VOID | {"html", "head", "title", "style", "body"} | set(f"{_BODY} {_TABLE}".split())


class Document(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.doctype = ""
        self.feed(text)
        self.close()
        assert self._open == [], "not closed"

    def handle_decl(self, decl: str) -> None:
        self.doctype = decl

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in KNOWN, tag
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        assert not [name for name in names if name.startswith("on") or name == "style"], names
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - the parser's
        raise AssertionError(f"<{tag}/>")

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"<!--{data}-->")

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self._open[-1], data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag: str) -> list[str]:
        """The texts that stand directly in elements of this name."""
        return [text for name, text in self.texts if name == tag]

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]

    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """What is left of it without texts and values."""
        return [(tag, tuple(attributes)) for tag, attributes in self.elements]

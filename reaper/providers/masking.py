"""Takes the secrets out of what an endpoint says of a resource, and out of what that wrote.

A name or a form tells which values are secret. Too much is masked rather than too little.
"""

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from reaper.errors import UnreadableError
from reaper.providers.fields import masked

MASK = "***"
LONGEST = 4096  # characters of one text
MOST = 500  # entries of one list or object, and secrets that are looked for in a text
DEEPEST = 12  # lists and objects in one another
SHORTEST = 6  # characters of a secret that is looked for elsewhere: a shorter one would be found in every other word

_SECRET_NAME = re.compile(
    r"secret|token|passw|passphrase|passcode|credential|cookie|bearer|webhook|jwt|dsn|api_?key|auth(?!or(?!i))|netrc|kubeconfig"
    r"|(?:^|[^a-z])(?:key|pass|pwd|pw|pat|psk|pem|sas|otp|pin|creds?)(?:[^a-z]|$)|key$|pwd$|pass$",
    re.IGNORECASE,
)
_NOT_SECRET = re.compile(r"(?:OLD)?PWD|\w*(?:Error|Exception)")  # a directory, and what Python says of a key
_COMMON = frozenset({"bearer", "digest", "default", "disabled", "enabled"})  # no secrets, although they stand in their place
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PIECE = re.compile(r"[A-Za-z0-9+/]{20,}")
# No pattern here looks further than a hundred characters for its beginning: a log is as hostile as it likes.
_URL = re.compile(r"(?<![\w+.-])[A-Za-z][\w+.-]{0,30}://[^\s\"'<>]+")
_PASSWORD = re.compile(r"[\w+.-]+://[^/@]*:([^/@]+)@")
_NAMED = re.compile(
    r"(?<![\w.-])(?:(--?[A-Za-z][\w.-]{0,100})(?:=|\s{1,3})|([A-Za-z_][\w.-]{0,100})\\?[\"']?\s{0,3}[=:]\s{0,3})"
)
_VALUE = re.compile(
    r"(?:\\?[\"']?(?:bearer|basic|token|digest)\s{1,3})?(?!-)(\\?\"[^\"\n]*\"?|'[^'\n]*'?|[^\s\"']+)", re.IGNORECASE
)
_HEADER = re.compile(r"(?:.*-)?(?:cookie|authorization)", re.IGNORECASE)
_LINE = re.compile(r"([^\n\"']+)")
_USER = re.compile(r"(?<![\w-])(?:-u|--user)(?:=|\s{1,3})[\"']?[^\s:\"']{1,100}:([^\s\"']*[^\s\"'\d][^\s\"']*)")


def is_secret_name(name: str) -> bool:
    """Whether the value of a variable, a field, an option or a label of this name may be a secret."""
    return not _NOT_SECRET.fullmatch(name) and _SECRET_NAME.search(_CAMEL.sub("_", name)) is not None


def _looks_random(word: str) -> bool:
    """Whether a part of it has the form of a key: many letters and digits, mixed."""
    return any(
        re.search("[0-9]", piece) and re.search("[A-Za-z]", piece) and "/" not in piece.strip("/")
        for piece in _PIECE.findall(word)
    )


class Mask:
    """Masks the secrets of one resource, and remembers them: they may stand elsewhere in its inspection, and in its log."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def inspection(self, document: dict[str, object]) -> dict[str, object]:
        """An inspection without secrets, within bounds. Raises UnreadableError where it has too many."""
        found = self._document(document)
        return {key: self._again(value) for key, value in found.items()} if isinstance(found, dict) else {}

    def text(self, text: str) -> str:
        """``text`` without the secrets that the inspection had, and without what looks like one. Raises UnreadableError."""
        if len(self._secrets) > MOST:
            raise UnreadableError("it has too many secrets to mask them all")
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return self._plain(text, learn=False)

    def _again(self, value: object) -> object:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._again(one) for one in value]
        return {key: self._again(one) for key, one in value.items()} if isinstance(value, dict) else value

    def _document(self, value: object, depth: int = 0) -> object:
        if depth > DEEPEST:
            return "..."
        if isinstance(value, str):
            return self._plain(_cut(value), learn=False)
        if isinstance(value, list):
            return [self._document(one, depth + 1) for one in value[:MOST]]
        if isinstance(value, dict):
            return {_cut(str(key)): self._field(str(key), one, depth) for key, one in list(value.items())[:MOST]}
        return value

    def _field(self, key: str, value: object, depth: int) -> object:
        match key.lower(), value:
            case "env", list():
                words = [entry.partition("=") for entry in value[:MOST] if isinstance(entry, str)]
                return [f"{_cut(name)}{equals}{self._variable(name, of_it)}" for name, equals, of_it in words]
            case "env", dict():
                return {_cut(str(name)): self._variable(str(name), str(of_it)) for name, of_it in list(value.items())[:MOST]}
            case "cmd" | "args" | "entrypoint" | "test" | "command", list():
                return list(self._arguments(value[:MOST]))
            case _, str() | list() | dict() if value and is_secret_name(_cut(key)):
                self._learn(value if isinstance(value, str) else "")
                return MASK
        return self._document(value, depth + 1)

    def _variable(self, name: str, value: str) -> str:
        if value and (is_secret_name(_cut(name)) or _looks_random(value)):
            self._learn(value)
            return MASK
        return self._plain(_cut(value), learn=True)

    def _arguments(self, words: Iterable[object]) -> Iterator[str]:
        """The words of a command line, scripts among them: an option and its value may be one word or two."""
        before = ""
        for word in (_cut(word) for word in words if isinstance(word, str)):
            if not word.startswith("-") and before.startswith("-") and "=" not in before and is_secret_name(before):
                self._learn(word)
                yield MASK
            elif before in ("-u", "--user") and _USER.match(f"-u {word}"):
                self._learn(word.partition(":")[2])
                yield f"{word.partition(':')[0]}:{MASK}"
            else:
                yield " ".join(self._argument(part) for part in self._plain(word, learn=True).split(" "))
            before = word

    def _argument(self, word: str) -> str:
        if not _looks_random(word):
            return word
        self._learn(word.strip("\"';,"))
        return MASK

    def _plain(self, text: str, *, learn: bool) -> str:
        """Any text without the passwords of URLs and without what stands behind the name of a secret."""

        def url(found: re.Match[str]) -> str:
            if learn and (password := _PASSWORD.match(found[0])) is not None:
                self._learn(password[1])
            return masked(found[0])

        def user(found: re.Match[str]) -> str:
            if learn:
                self._learn(found[1])
            return f"{found[0].removesuffix(found[1])}{MASK}"

        parts: list[str] = []
        at = 0
        text = _USER.sub(user, _URL.sub(url, text))
        for found in _NAMED.finditer(text):
            name = (found[1] or found[2]).lstrip("-")
            if found.start() < at or not is_secret_name(name):
                continue
            of_header = ":" in found[0] and _HEADER.fullmatch(name)
            if (value := (_LINE if of_header else _VALUE).match(text, found.end())) is not None:
                if learn:
                    for word in re.split(r"[;\s]+", value[1]) if of_header else (value[1].strip("\\\"',;"),):
                        self._learn(word.partition("=")[2] or word if of_header else word)
                parts += [text[at : value.start(1)], MASK]
                at = value.end(1)
        return "".join([*parts, text[at:]])

    def _learn(self, secret: str) -> None:
        for line in {secret, *secret.splitlines()}:
            word = line.strip()
            if len(word) >= SHORTEST and MASK not in word and word.lower() not in _COMMON:
                self._secrets |= {word, quote(word, safe=""), json.dumps(word)[1:-1]}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."

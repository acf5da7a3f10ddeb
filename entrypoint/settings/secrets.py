"""Secrets inside of other values: command lines of engines, as settings give them and as plans show them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from entrypoint.settings.origin import REDACTED

_WORDS = frozenset(
    ("password", "passwd", "passphrase", "secret", "credential", "credentials", "apikey", "bearer")
)
"""An option with one of them in its name has a secret for its value."""
_KEYS = frozenset(("api", "access", "admin", "auth", "private", "secret", "account", "encryption"))
"""Before `key`."""
_PATHS = frozenset(("file", "path", "dir"))
"""At the end of a name: the value is where the secret is."""
_SHORTENED = ("--api-key", "--admin-api-key")
"""SGLang's, which argparse takes abbreviated too."""
_INSIDE = re.compile(
    r"://[^/@\s]*:[^/@\s]+@"  # user and password of a URL
    r"|[\"']?[\w-]*(?:password|passwd|secret|api[_-]?key|private[_-]?key|(?<![a-z])token)[\"']?\s*[=:]\s*[\"']?[^\s\"']"
    r"|\b(?:bearer|basic)\s+\S",  # a header
    re.IGNORECASE,
)

_IN_TEXT = re.compile(
    r"(?P<user>://[^/@\s:]*:)[^/@\s]+(?=@)"
    r"|(?P<name>(?:password|passwd|secret|api[_-]?key|private[_-]?key|(?<![a-z])token)"
    r"(?:=|[\"']\s*[=:]\s*)[\"']?)[^\s\"',;}]+"
    r"|(?P<option>--[\w-]*(?:key|token|password|secret)\s+)[^\s\"']+"
    r"|(?P<header>\b(?:bearer|basic)\s+)[\w+/=.~-]{8,}",
    re.IGNORECASE,
)
"""A secret in a line that somebody wrote, after what says that it is one."""
_VARIABLE = re.compile(
    r"(?:PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIALS?|(?:API|ACCESS|PRIVATE|AUTH)_?KEY|NKEY)$"
)
_SHORTEST = 4
"""Characters of a secret that is looked for in a text: of fewer there are too many."""


def values(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What variables with the name of a secret have for a value."""
    return tuple(value for name, value in environ.items() if _VARIABLE.search(name))


def hidden(text: str, known: Iterable[str] = ()) -> str:
    """`text` with every secret that is `known`, and everything that looks like one, replaced by ``***``."""
    for value in sorted({v for v in known if len(v) >= _SHORTEST}, key=len, reverse=True):
        text = text.replace(value, REDACTED)
    return _IN_TEXT.sub(lambda m: f"{next(filter(None, m.groups()), '')}{REDACTED}", text)


def is_secret_option(flag: str) -> bool:
    """Whether the value of option `flag` is a secret, by the words of its name."""
    words = re.split(r"[-_.]+", flag.lower().strip("-"))
    if words[-1] in _PATHS:
        return False
    if len(flag) > len("--ad") and any(name.startswith(flag) for name in _SHORTENED):
        return True
    after = pairwise(words)
    return (
        bool(_WORDS & {*words})
        or words[-1] == "token"
        or any(second in ("key", "keys") and first in _KEYS for first, second in after)
    )


def redacted(argv: Iterable[str]) -> tuple[str, ...]:
    """A command line with every secret's value replaced by ``***``."""
    return tuple(_redacted(argv))


def _redacted(argv: Iterable[str]) -> Iterator[str]:
    hide = False
    for word in argv:
        flag, equals, value = word.partition("=")
        if word.startswith("--"):
            hide = is_secret_option(flag) and not equals
            yield (
                f"{flag}={REDACTED}" if equals and (is_secret_option(flag) or _INSIDE.search(value)) else word
            )
        else:
            yield REDACTED if hide or _INSIDE.search(word) else word


def redacted_text(text: str) -> str:
    """Arguments as a person has written them, shell-quoted; as they are where none of them is a secret."""
    try:
        words = shlex.split(text)
    except ValueError:  # it is refused for that: where a value ends nobody knows
        return REDACTED if list(redacted(text.split())) != text.split() else text
    shown = redacted(words)
    return text if list(shown) == words else " ".join(w if w == REDACTED else shlex.quote(w) for w in shown)

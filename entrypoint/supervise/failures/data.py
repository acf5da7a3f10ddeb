"""Why a server could not open its data, read from its last lines. Pure.

A server that ends for that ends again with every restart, and its own exit code (1 or 2) says nothing.
Texts of etcd 3.4 and 3.5 (main, bbolt, wal, the Go runtime) and nats-server 2.15.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from entrypoint.base.foreign import json_object
from entrypoint.errors import ExitCode
from entrypoint.plan.types import Data

_FATAL = re.compile(
    r"\S+ \S+ C \| (?:\S+: )?(?P<capnslog>.*)|\[\d+\] \S+ \S+ \[FTL\] (?P<nats>.*)"
    r"|panic: (?P<panic>.*)|fatal error: (?P<runtime>.*)"
)
_FATAL_LEVELS = ("dpanic", "panic", "fatal")
_NETWORK = re.compile(r"\b(?:listen|bind|lookup|dial|address|certificate|flags?)\b")
"""An end that no data brought about, whatever else it says."""
_UNWRITABLE = re.compile(
    r"permission denied|operation not permitted|read-only file system|no space left on device"
    r"|disk quota exceeded|input/output error|stale (?:NFS )?file handle|(?:is )?not a directory|file exists"
    r"|too many levels of symbolic links"
)
_FULL = ("no space", "quota")
_DATA = re.compile(
    r"\b(?:walpb|wal|WAL|crc|snap(?:shot)?\w*|db|database|datadir|proto|raft|pages?|freepages|downgraded"
    r"|JetStream|none as id|data dir)\b|^fault$"
)
_REFUSED = re.compile(r"\S+ join the other etcd members: ")
"""What `discovery.joining` has said."""
QUOTED = 200
"""Characters of a server's words that are quoted."""
_CODE = re.compile(r"\bgo\.etcd\.io/bbolt\b|\betcd/(?:\S+/)?(?:wal|mvcc|raft|snap)\b|/raft/v3\b")
"""A line of a stack that is within the code that reads data."""


def unusable(name: str, data: Data, lines: Iterable[str]) -> tuple[ExitCode, str] | None:
    """The exit code and the reason when the server `name` ended for its data; None: it did not.

    73: its directory cannot be written. 69: what is in it cannot be read.
    """
    last = [*lines]
    if said := next((line for line in reversed(last) if _REFUSED.match(line)), None):
        return ExitCode.UNAVAILABLE, said
    words, stack = _last_words(last)
    if not words or _NETWORK.search(words):
        return None
    where = f"cannot start {name}: {data.directory}"
    if (found := _UNWRITABLE.search(words)) is not None:
        what = found[0]
        if any(word in what for word in _FULL):
            remedy = f"make room there, 200 MB, or set {data.setting} to another directory"
        else:
            remedy = f"set {data.setting} to a directory that this user may write, or unset it"
        return ExitCode.CANTCREAT, f"{where}: {what}: {remedy}"
    if _DATA.search(words) or _CODE.search(stack):
        return ExitCode.UNAVAILABLE, (
            f"{where}: its data there cannot be read ({words[:QUOTED]}): they are damaged or of another "
            "release: move that directory away and start again: workers register anew"
        )
    return None


def _last_words(lines: list[str]) -> tuple[str, str]:
    """What a server wrote as the reason of its end, and the stack that follows it; empty: nothing."""
    for number, line in enumerate(lines):
        if line.startswith("{"):
            record = json_object(line)
            if record.get("level") in _FATAL_LEVELS:
                error = f": {record['error']}" if record.get("error") else ""
                return f"{record.get('msg', '')}{error}", str(record.get("stacktrace", ""))
        elif (found := _FATAL.match(line)) is not None:
            words = next((text for text in found.groups() if text is not None), "")
            return words.strip(), "\n".join(lines[number + 1 :])
    return "", ""

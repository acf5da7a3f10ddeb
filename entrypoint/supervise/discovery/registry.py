"""Where Dynamo lists its workers: etcd, or a directory of files. Only what the runner needs of it."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from entrypoint.base.foreign import from_json

if TYPE_CHECKING:
    import httpx

TIMEOUT = 3.0
"""Seconds that a store gets for each answer: a stop must not hang on it."""
INSTANCES = "v1/instances/"
"""Where Dynamo lists its instances, in either store."""
CARDS = "v1/mdc/"
"""And the cards of their models, under the same names."""


class RegistryError(Exception):
    """The store cannot be asked, or says no."""


@dataclass(frozen=True)
class Entry:
    """One instance in the list."""

    key: str
    value: str
    """JSON: component, endpoint, transport."""
    lease: int = 0
    """etcd's lease that all keys of its worker hang on; 0: none."""


class Place(Protocol):
    """Where the list is."""

    @property
    def store(self) -> str:
        """`etcd` or `file`."""

    @property
    def where(self) -> str:
        """URL of an etcd endpoint, or the directory of the file store."""

    @property
    def ca_file(self) -> str | None:
        """What an etcd's certificate is checked against."""


class Registry(Protocol):
    """A store of either kind. All may raise RegistryError or OSError."""

    def instances(self) -> list[Entry]:
        """All that is listed."""

    def cards(self) -> list[Entry]:
        """Their model cards."""

    def remove(self, entry: Entry) -> None:
        """Take one instance off the list; its worker lives."""

    def bury(self, entry: Entry) -> None:
        """Take it and all that belongs to it off; its worker is dead."""


@contextlib.contextmanager
def open_registry(place: Place, environ: Mapping[str, str]) -> Iterator[Registry]:
    """The store that `place` names. `environ` may hold Dynamo's ETCD_AUTH_* variables."""
    if place.store == "file":
        yield _Files(Path(place.where))
        return
    import httpx

    try:
        with _client(place, environ) as client:
            yield _Etcd(client)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        raise RegistryError(str(error) or type(error).__name__) from error


class _Files:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def instances(self) -> list[Entry]:
        return self._below(INSTANCES)

    def cards(self) -> list[Entry]:
        return self._below(CARDS)

    def _below(self, prefix: str) -> list[Entry]:
        found = []
        for path in sorted((self._directory / prefix).glob("**/*")):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                name = str(path.relative_to(self._directory / prefix))
                found.append(Entry(name, path.read_text(errors="replace")))
        return found

    def remove(self, entry: Entry) -> None:
        (self._directory / INSTANCES / entry.key).unlink(missing_ok=True)

    def bury(self, entry: Entry) -> None:
        self.remove(entry)
        (self._directory / CARDS / entry.key).unlink(missing_ok=True)


class _Etcd:
    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def instances(self) -> list[Entry]:
        return self._below(INSTANCES)

    def cards(self) -> list[Entry]:
        return self._below(CARDS)

    def _below(self, prefix: str) -> list[Entry]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        answer = self._post("/v3/kv/range", key=_encode(prefix), range_end=_encode(end))
        return [
            Entry(_decode(pair["key"]), _decode(pair["value"]), int(pair.get("lease", 0)))
            for pair in answer.get("kvs", [])
        ]

    def remove(self, entry: Entry) -> None:
        self._post("/v3/kv/deleterange", key=_encode(entry.key))

    def bury(self, entry: Entry) -> None:
        self.remove(entry)
        if entry.lease:
            # A second entry of the same worker finds its lease gone: that is no error.
            self._client.post("/v3/lease/revoke", json={"ID": str(entry.lease)})

    def _post(self, path: str, **body: str) -> dict[str, Any]:
        answer: dict[str, Any] = from_json(self._client.post(path, json=body).raise_for_status().content)
        return answer


def _client(place: Place, environ: Mapping[str, str]) -> httpx.Client:
    import ssl

    import httpx

    verify: Any = True
    if place.where.startswith("https"):
        verify = ssl.create_default_context(cafile=place.ca_file)
        if certificate := environ.get("ETCD_AUTH_CLIENT_CERT"):
            verify.load_cert_chain(certificate, environ.get("ETCD_AUTH_CLIENT_KEY"))
    client = httpx.Client(base_url=place.where, verify=verify, trust_env=False, timeout=TIMEOUT)
    user, password = environ.get("ETCD_AUTH_USERNAME"), environ.get("ETCD_AUTH_PASSWORD")
    if user and password:
        answer = client.post("/v3/auth/authenticate", json={"name": user, "password": password})
        client.headers["Authorization"] = from_json(answer.raise_for_status().content)["token"]
    return client


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()

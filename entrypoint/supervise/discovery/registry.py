"""Where Dynamo lists its workers: etcd, or a directory of files. Only what the runner needs of it."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from entrypoint.base import tls
from entrypoint.base.foreign import from_json

if TYPE_CHECKING:
    import ssl

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
        """etcd's endpoints, joined by commas, or the directory of the file store."""

    @property
    def ca_file(self) -> str | None:
        """What an etcd's certificate is checked against: a file, or its text."""

    @property
    def tls_dir(self) -> str | None:
        """Where the certificates are that etcd asks for."""


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
    try:
        with etcds(place.where, place.ca_file, environ, place.tls_dir) as etcd:
            yield _Etcd(etcd)
    except (ValueError, KeyError) as error:
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
    def __init__(self, etcd: Etcds) -> None:
        self._etcd = etcd

    def instances(self) -> list[Entry]:
        return self._below(INSTANCES)

    def cards(self) -> list[Entry]:
        return self._below(CARDS)

    def _below(self, prefix: str) -> list[Entry]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        answer = self._etcd.post("/v3/kv/range", key=_encode(prefix), range_end=_encode(end))
        return [
            Entry(_decode(pair["key"]), _decode(pair["value"]), int(pair.get("lease", 0)))
            for pair in answer.get("kvs", [])
        ]

    def remove(self, entry: Entry) -> None:
        self._etcd.post("/v3/kv/deleterange", key=_encode(entry.key))

    def bury(self, entry: Entry) -> None:
        self.remove(entry)
        if entry.lease:
            # A second entry of the same worker finds its lease gone: that is no error.
            with contextlib.suppress(RegistryError):
                self._etcd.post("/v3/lease/revoke", ID=str(entry.lease))


class Etcds:
    """An etcd of one or several members, any of which is asked."""

    def __init__(self, urls: Sequence[str], client: httpx.Client, environ: Mapping[str, str]) -> None:
        self._urls, self._client = list(urls), client
        user, password = environ.get("ETCD_AUTH_USERNAME"), environ.get("ETCD_AUTH_PASSWORD")
        self._credentials = {"name": user, "password": password} if user and password else None
        self.answered = False
        """One of them has said something, be it that it cannot."""

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """What the first member says that can. RegistryError: none can, with what one said, if any."""
        if self._credentials is not None and "Authorization" not in self._client.headers:
            told = self._ask("/v3/auth/authenticate", self._credentials)
            self._client.headers["Authorization"] = str(told["token"])
        return self._ask(path, body)

    def _ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        import httpx

        why = told = ""
        for url in list(self._urls):
            try:
                response = self._client.post(url + path, json=body)
                self.answered = True
                if response.is_success:
                    answer: dict[str, Any] = from_json(response.content)
                    return answer
                told = f"{url} answers {response.status_code} {_words(response)}".rstrip()
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                why = f"{url}: {error or type(error).__name__}"
            # The next question goes to another one first.
            self._urls.append(self._urls.pop(0))
        raise RegistryError(told or why)


def _words(response: httpx.Response) -> str:
    """etcd's own words for its refusal."""
    try:
        said = from_json(response.content)
    except ValueError:
        return ""
    return str(said.get("error", "")) if isinstance(said, dict) else ""


@contextlib.contextmanager
def etcds(
    where: str, ca_file: str | None, environ: Mapping[str, str], tls_dir: str | None = None
) -> Iterator[Etcds]:
    """The etcd at the endpoints `where`, joined by commas. `environ` may hold Dynamo's ETCD_AUTH_* variables.

    RegistryError when certificates cannot be read.
    """
    import httpx

    urls = where.split(",")
    # Never looked at without TLS; a context of its own would load OpenSSL, 5 MB for every worker.
    verify: Any = object()
    try:
        if any(url.startswith("https") for url in urls):
            verify = _context(ca_file, tls_dir, environ)
    except OSError as error:
        raise RegistryError(str(error)) from error
    with httpx.Client(verify=verify, trust_env=False, timeout=TIMEOUT) as client:
        yield Etcds(urls, client, environ)


def _context(ca_file: str | None, tls_dir: str | None, environ: Mapping[str, str]) -> ssl.SSLContext:
    from tempfile import TemporaryDirectory

    context = tls.context(ca_file, tls_dir)
    if tls_dir is not None:
        return context
    certificate, key = environ.get("ETCD_AUTH_CLIENT_CERT"), environ.get("ETCD_AUTH_CLIENT_KEY")
    if certificate and key and tls.PEM in certificate:
        # Dynamo has them as text; OpenSSL reads files only.
        with TemporaryDirectory() as directory:
            crt, own = Path(directory, "crt"), Path(directory, "key")
            crt.write_text(certificate)
            own.write_text(key)
            context.load_cert_chain(crt, own)
    elif certificate:
        context.load_cert_chain(certificate, key)
    return context


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()

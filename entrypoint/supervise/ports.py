"""Who listens on the ports of a plan: nobody before a start, and only our own processes after it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from entrypoint.errors import ConfigError

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from entrypoint.plan.endpoint import Endpoint

PATIENCE = 5.0
"""Seconds that a port may still be taken at a start: what ended just now may take a moment to let it go."""
LISTENS = "0A"
"""State of a listening socket (proc_net_tcp(5))."""


def problems(endpoints: Iterable[Endpoint]) -> Iterator[str]:
    """One line for each port that cannot be bound now."""
    for endpoint in endpoints:
        if (error := _refusal(endpoint)) is not None:
            yield _line(endpoint, error)


def must_be_free(endpoints: Iterable[Endpoint]) -> None:
    """Raise ConfigError (78) when a port is still taken after PATIENCE seconds.

    Of an address that is not this machine's, its process will say so.
    """
    endpoints = [*endpoints]

    def taken() -> list[tuple[Endpoint, OSError]]:
        refused = [(e, error) for e in endpoints if (error := _refusal(e)) is not None]
        return [(e, error) for e, error in refused if error.errno == errno.EADDRINUSE]

    if not taken():
        return
    from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

    def give_up(state: RetryCallState) -> NoReturn:
        assert state.outcome is not None
        raise ConfigError(_line(endpoint, error) for endpoint, error in state.outcome.result())

    Retrying(
        retry=retry_if_result(bool), wait=wait_fixed(0.1), stop=stop_after_delay(PATIENCE),
        retry_error_callback=give_up,
    )(taken)  # fmt: skip


def _refusal(endpoint: Endpoint) -> OSError | None:
    """Why it cannot be bound; None: it can."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((endpoint.host.strip("[]"), endpoint.number))
    except OSError as error:
        return error
    return None


def _line(endpoint: Endpoint, error: OSError) -> str:
    who = holder(endpoint)
    by = f" by {who}" if who else ""
    return (
        f"cannot listen on {endpoint.host}:{endpoint.number} for {endpoint.process}: "
        f"{error.strerror}{by}: {remedy(endpoint)}"
    )


def remedy(endpoint: Endpoint) -> str:
    """What a person may do about a port that is taken."""
    return f"stop that, or change {endpoint.setting or 'its setting'}"


def taken_from(endpoints: Iterable[Endpoint]) -> str | None:
    """One line when a stranger listens on a port of `endpoints`, which are of one of our processes.

    A stranger is no descendant of this process. Where that cannot be seen, nobody is called one.
    """
    for endpoint in endpoints:
        inodes = _listening(endpoint)
        if not inodes:
            continue
        ours = _ours(inodes)
        if ours is not False:
            continue
        who = holder(endpoint)
        if who is not None:
            return (
                f"cannot listen on {endpoint.host}:{endpoint.number} for {endpoint.process}: {who} does: "
                f"{remedy(endpoint)}"
            )
    return None


def holder(endpoint: Endpoint) -> str | None:
    """Which process listens where `endpoint` would, as ``name (pid)``; None when it cannot be seen."""
    inodes = _listening(endpoint)
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        with contextlib.suppress(OSError):
            if _holds(process, inodes):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None


def _ours(inodes: set[str]) -> bool | None:
    """Whether this process or one below it holds one of these sockets; None: some of them cannot be seen."""
    from entrypoint.supervise import process_tree

    unseen = False
    todo = [os.getpid()]
    while todo:
        pid = todo.pop()
        todo += process_tree.children(pid)
        try:
            if _holds(Path(f"/proc/{pid}"), inodes):
                return True
        except FileNotFoundError:
            continue
        except OSError:
            unseen = True
    return None if unseen else False


def _holds(process: Path, inodes: set[str]) -> bool:
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if str(descriptor.readlink()) in inodes:
                return True
    return False


def _listening(endpoint: Endpoint) -> set[str]:
    """The listening sockets that take what comes for `endpoint`, as /proc/PID/fd names them.

    One on the same port of another address is no concern of its.
    """
    inodes = set()
    host = endpoint.host.strip("[]")
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, rows):
            where, _, port = fields[1].rpartition(":")
            if fields[3] != LISTENS or int(port, 16) != endpoint.number:
                continue
            if endpoint.everywhere or not _is_address(host) or _address(where) in (host, "0.0.0.0", "::"):
                inodes.add(f"socket:[{fields[9]}]")
    return inodes


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False


def _address(digits: str) -> str:
    """An address of /proc/net/tcp: words of 32 bits in the order of bytes of x86 and Arm."""
    words = bytes.fromhex(digits)
    packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)

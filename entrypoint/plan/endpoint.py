"""Where a server listens and where it is reached: the one type for every address of a plan. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from entrypoint.node.network import is_loopback

LOOPBACK = "127.0.0.1"
ANY = "0.0.0.0"
ANY6 = "::"


def bare(host: str) -> str:
    """`host` without the brackets of an IPv6 address."""
    return host.strip("[]")


def bracketed(host: str) -> str:
    """`host` as it stands before a port: an IPv6 address gets its brackets."""
    return f"[{bare(host)}]" if ":" in host else host


@dataclass(frozen=True)
class Endpoint:
    """A TCP port that a process of this container binds."""

    name: str
    number: int
    host: str
    """What it listens on: an address or name, `0.0.0.0` or `::` for every one."""
    process: str
    """The process that binds it; `health` for the runner's own endpoint."""
    setting: str = ""
    """The setting, variable or extra argument that moves it."""

    @property
    def everywhere(self) -> bool:
        """It listens on every address of its machine."""
        return bare(self.host) in (ANY, ANY6, "")

    @property
    def only_here(self) -> bool:
        """Nobody on another machine reaches it."""
        return is_loopback(bare(self.host))

    @property
    def where(self) -> str:
        """``host:port`` for those in the same container."""
        # Linux takes IPv4 on `::` too, and a container may lack an IPv6 loopback.
        return f"{LOOPBACK if self.everywhere else bracketed(self.host)}:{self.number}"

    @property
    def url(self) -> str:
        """Its URL for those in the same container."""
        return f"http://{self.where}"

    def where_from_outside(self, node: str) -> str:
        """``host:port`` for other machines, which know this one as `node`."""
        return f"{bracketed(node if self.everywhere else self.host)}:{self.number}"

    def url_from_outside(self, node: str) -> str:
        """Its URL for other machines, which know this one as `node`."""
        return f"http://{self.where_from_outside(node)}"

    def clashes(self, other: Endpoint) -> bool:
        """The two cannot both be bound."""
        wide = self.everywhere or other.everywhere
        return self.number == other.number and (wide or bare(self.host) == bare(other.host))

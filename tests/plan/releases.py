"""Where the releases' own code listens, registers and announces: their functions, run without their imports.

Only names of hosts are made up, and what the functions take from a running engine.
"""

from __future__ import annotations

import ast
import ipaddress
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from entrypoint.plan.types import Process
from tests.plan.sources import source

PAIRS = {
    "0.5.6.post2": "0.8.1",
    "0.5.9": "1.0.2",
    "0.5.14": "1.3.1",
    "0.5.18": "1.3.1",
    "0.5.23": "1.6.1",
}
"""Dynamo by SGLang."""
HOSTS = {"node2": "10.0.0.2", "localhost": "127.0.0.1"}
DEFAULT_HOST = "127.0.0.1"
"""Of `--host`, in all of them."""


@dataclass(frozen=True)
class Served:
    """One prefill rank, as a release would run it."""

    listens: str
    """Host that its bootstrap server is bound to, if it is rank 0."""
    announced: str
    """Host that decode workers are told."""
    registers: str
    """Host that the rank itself asks."""


class _Nothing:
    """Stands for parts of an engine that do not matter here."""

    def __getattr__(self, name: str) -> Any:
        return 0 if name.endswith(("size", "rank", "port")) else self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __bool__(self) -> bool:
        return False


def serve(process: Process, sglang: str, native: Mapping[str, str]) -> Served:
    """What `process` does on this release of SGLang and its Dynamo."""
    environ = {**process.env, **native}
    args = SimpleNamespace(
        host=_value(process, "--host") or DEFAULT_HOST,
        dist_init_addr=_value(process, "--dist-init-addr"),
        disaggregation_bootstrap_port=30001,
        nnodes=int(_value(process, "--nnodes") or 1),
    )
    names = _names(sglang, environ)
    return Served(args.host, _announced(sglang, args, names), _registers(sglang, args, names))


def _value(process: Process, flag: str) -> str | None:
    argv = process.argv
    return argv[len(argv) - argv[::-1].index(flag)] if flag in argv else None


def _names(sglang: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """The helpers for addresses that a release's functions use."""
    names: dict[str, Any] = {
        "socket": _Resolver(), "ipaddress": ipaddress, "logging": logging, "dataclass": dataclass,
        "logger": logging.getLogger("release"), "os": SimpleNamespace(getenv=environ.get),
    }  # fmt: skip
    path = (
        "sglang/srt/utils/network.py"
        if sglang not in ("0.5.6.post2", "0.5.9")
        else "sglang/srt/utils/common.py"
    )
    wanted = (
        "get_local_ip_auto", "is_valid_ipv6_address", "maybe_wrap_ipv6_address", "_is_ipv6", "_wrap",
        "_parse_port", "NetworkAddress",
    )  # fmt: skip
    _define(source(f"sglang=={sglang}", path).body, wanted, names)
    return names


def _announced(sglang: str, args: SimpleNamespace, names: dict[str, Any]) -> str:
    dynamo = PAIRS[sglang]
    new = dynamo in ("1.3.1", "1.6.1")
    function = "compute_bootstrap_address" if new else "_get_bootstrap_info_for_config"
    path = "dynamo/sglang/_disagg.py" if new else "dynamo/sglang/register.py"
    names = {**names, "sgl": _Nothing(), "Optional": None}
    _define(source(f"ai-dynamo=={dynamo}", path).body, (function,), names)
    engine = SimpleNamespace(tokenizer_manager=SimpleNamespace(server_args=args))
    host, port = names[function](engine)
    assert port == 30001
    return str(host)


def _registers(sglang: str, args: SimpleNamespace, names: dict[str, Any]) -> str:
    module = source(f"sglang=={sglang}", "sglang/srt/disaggregation/common/conn.py")
    (manager,) = (n for n in module.body if isinstance(n, ast.ClassDef) and n.name == "CommonKVManager")
    asked: list[str] = []

    class Rank(_Nothing):
        bootstrap_host = args.host
        bootstrap_port = args.disaggregation_bootstrap_port
        dist_init_addr = args.dist_init_addr
        local_ip = names["get_local_ip_auto"]()

        def _register_topology_row(self, url: str, payload: object) -> None:
            asked.append(url)

    def put(url: str, **rest: object) -> SimpleNamespace:
        asked.append(url)
        return SimpleNamespace(status_code=200)

    nothing = _Nothing()
    names = {
        **names, "requests": SimpleNamespace(put=put), "envs": nothing, "get_parallel": nothing,
        "get_serving": nothing, "get_disagg": nothing,
    }  # fmt: skip
    wanted = ("_register_to_bootstrap", "register_to_bootstrap")
    _define(manager.body, wanted, names)
    (register,) = (names[name] for name in wanted if name in names)
    register(Rank())
    (url,) = asked
    return url.removeprefix("http://").removesuffix(":30001/route")


def _define(body: list[ast.stmt], wanted: tuple[str, ...], names: dict[str, Any]) -> None:
    kinds = (ast.FunctionDef, ast.ClassDef)
    nodes = [node for node in body if isinstance(node, kinds) and node.name in wanted]
    future = ast.parse("from __future__ import annotations").body
    inner = [node for made in nodes for node in ast.walk(made)]
    for node in inner:  # imports of the release itself: what they would bring is in `names`
        if isinstance(node, ast.FunctionDef):
            node.body = [line for line in node.body if not isinstance(line, ast.ImportFrom)]
    exec(compile(ast.Module([*future, *nodes], []), "<release>", "exec"), names)


class _Resolver:
    """The `socket` module with HOSTS for names."""

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    def gethostbyname(self, host: str) -> str:
        return HOSTS.get(host, host)

    def getaddrinfo(self, host: str, port: int | None, *rest: Any, **more: Any) -> Any:
        return socket.getaddrinfo(HOSTS.get(host, host), port, type=socket.SOCK_STREAM)

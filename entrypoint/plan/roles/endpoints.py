"""Where everything of a deployment listens: worked out once, from settings, extra arguments and the engine's
own variables. Pure.

For the frontend `--http-port` and `--http-host` in GLM47_FRONTEND_EXTRA_ARGS win over DYN_HTTP_PORT and
DYN_HTTP_HOST, those over GLM47_HTTP_PORT and GLM47_HTTP_HOST. nginx, where it stands in front, has the
settings' own address, and its frontends GLM47_UPSTREAM_PORT in place of GLM47_HTTP_PORT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from entrypoint.plan import arguments
from entrypoint.plan.endpoint import Endpoint
from entrypoint.settings.schema import Settings

EXTRA = "GLM47_FRONTEND_EXTRA_ARGS"
SYSTEM_PORT_LIMIT = 32768
"""Dynamo takes system ports below this only."""


@dataclass(frozen=True)
class Api:
    """The deployment's API."""

    frontend: Endpoint
    """Of every frontend of the deployment, each on its own node."""
    entry: Endpoint
    """What clients ask: nginx where it stands in front of the frontends, else a frontend."""
    host_setting: str
    """What says where frontends listen."""
    problems: tuple[str, ...] = ()

    @property
    def behind_nginx(self) -> bool:
        """nginx has the API's port, and frontends another."""
        return self.entry.process == "nginx"


def api(s: Settings, native: Mapping[str, str], *, behind_nginx: bool) -> Api:
    """The API of the deployment that `s` and the engine's variables `native` describe."""
    try:
        given = arguments.Options(arguments.parse(s.frontend_extra_args, EXTRA))
    except arguments.ArgumentsError:  # said where the frontend's options are made
        given = arguments.Options()
    problems: list[str] = []
    number, setting = s.http_port, "GLM47_HTTP_PORT"
    if behind_nginx:
        number, setting = s.upstream_port, "GLM47_UPSTREAM_PORT"
    number, setting = from_variable(native, "DYN_HTTP_PORT", number, setting, problems)
    if (option := given.get("--http-port")) is not None:
        text, setting = " ".join(option.values), f"{EXTRA} --http-port"
        if is_port(text):
            number = int(text)
        else:
            problems.append(f"cannot use {setting}: {text or 'no value'}: give a port from 1 to 65535")
    hosts = {
        f"{EXTRA} --http-host": given.value("--http-host"),
        "DYN_HTTP_HOST": native.get("DYN_HTTP_HOST"),
        "GLM47_HTTP_HOST": s.http_host,
    }
    host_setting, host = next((name, text) for name, text in hosts.items() if text)
    secured = {f"{EXTRA} --tls-cert-path": given.value("--tls-cert-path")}
    secured["DYN_TLS_CERT_PATH"] = native.get("DYN_TLS_CERT_PATH") or None
    problems += [
        f"cannot use {name}: {path}: the runner asks its frontend over plain HTTP: leave it out, and end TLS "
        "in a proxy in front"
        for name, path in secured.items()
        if path is not None
    ]
    frontend = Endpoint("http", number, host, "frontend", setting)
    entry = frontend
    if behind_nginx:
        entry = Endpoint("nginx", s.http_port, s.http_host, "nginx", "GLM47_HTTP_PORT")
    return Api(frontend, entry, host_setting, tuple(problems))


def health(s: Settings) -> Endpoint:
    """The runner's own endpoint, the same in every container of a deployment."""
    return Endpoint("health", s.health_port, s.health_host, "health", "GLM47_HEALTH_PORT")


def system(s: Settings, native: Mapping[str, str], index: int = 0) -> tuple[int, str, list[str]]:
    """(port of the system server of a container's worker `index`, what set it, problems)."""
    problems: list[str] = []
    own = s.system_port + index
    number, setting = from_variable(native, "DYN_SYSTEM_PORT", own, "GLM47_SYSTEM_PORT", problems)
    if number >= SYSTEM_PORT_LIMIT:
        problems.append(
            f"cannot use {setting}: {number}: Dynamo takes system ports below {SYSTEM_PORT_LIMIT} only: "
            f"give a lower one, such as {8081 + index}"
        )
    return number, setting, problems


def bootstrap(s: Settings, given: arguments.Options) -> tuple[int, str, list[str]]:
    """(port of a prefill worker's bootstrap server with the options `given`, what set it, problems)."""
    flag = "--bootstrap-ports" if s.engine == "mocker" else "--disaggregation-bootstrap-port"
    number, setting = s.bootstrap_port, "GLM47_BOOTSTRAP_PORT"
    if (option := given.get(flag)) is None or not option.source:
        return number, setting, []
    text, setting = " ".join(option.values), f"{option.source} {option.flag}"
    if is_port(text):
        return int(text), setting, []
    return number, setting, [f"cannot use {setting}: {text or 'no value'}: give a port from 1 to 65535"]


def dist_init(s: Settings, given: arguments.Options) -> tuple[int, str, list[str]]:
    """(port at which the ranks of a worker with the options `given` meet, what set it, problems)."""
    number, setting = s.dist_init_port, "GLM47_DIST_INIT_PORT"
    if (option := given.get("--dist-init-addr")) is None or not option.source:
        return number, setting, []
    text, setting = " ".join(option.values), f"{option.source} {option.flag}"
    port = text.rpartition(":")[2]
    if is_port(port):
        return int(port), setting, []
    return number, setting, [f"cannot use {setting}: {text or 'no value'}: give host:port of the leader"]


def from_variable(
    native: Mapping[str, str], variable: str, number: int, setting: str, problems: list[str]
) -> tuple[int, str]:
    """(number, what set it) of a port that the engine's own `variable` may move."""
    text = native.get(variable)
    if not text:
        return number, setting
    if not is_port(text):
        problems.append(f"cannot use {variable}: {text}: give a port, 1 to 65535, or unset it")
        return number, setting
    return int(text), variable


def is_port(text: str) -> bool:
    """Whether `text` is the number of a TCP port."""
    return text.isascii() and text.isdigit() and 1 <= int(text) <= 65535

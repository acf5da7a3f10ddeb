"""The real etcd as three members: first starts, losses, and members that come back with nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from entrypoint.plan.diagnostics import Level, texts
from entrypoint.plan.roles.etcd import GATEWAY, about_list
from entrypoint.supervise.discovery.registry import Etcds, RegistryError, etcds
from tests.support.etcd_members import START, Members
from tests.support.runner import free_port, until
from tests.support.stack import ENGINE

pytestmark = pytest.mark.stack


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Members]:
    """Three members, ready."""
    with ExitStack() as stack:
        made = Members(tmp_path, stack)
        made.start()
        made.until_ready()
        yield made


@contextmanager
def client(members: Members) -> Iterator[Etcds]:
    with etcds(members.urls, None, {}) as etcd:
        yield etcd


def put(members: Members, key: str) -> None:
    with client(members) as etcd:
        etcd.post("/v3/kv/put", key=key, value=key)


def names(members: Members) -> list[str]:
    with client(members) as etcd:
        return sorted(one.get("name", "") for one in etcd.post("/v3/cluster/member/list")["members"])


def has(members: Members, key: str) -> bool:
    with client(members) as etcd:
        return bool(etcd.post("/v3/kv/range", key=key).get("kvs"))


def test_one_of_three_is_lost_and_comes_back(three: Members) -> None:
    """The others serve on; a second one lost leaves the third not ready, and says so."""
    put(three, "aaaa")
    three.kill("a")
    put(three, "bbbb")
    three.kill("b")
    until(lambda: not three.ready("c"), "c alone is not ready", START)
    assert three.runners["c"].get("/livez")[0] == 200
    three.start("a")
    three.until_ready("a", "c")
    assert has(three, "aaaa") and has(three, "bbbb")
    three.start("b")
    three.until_ready()
    three.stop("a", "b", "c")


@pytest.mark.parametrize("leftover", [False, True])
def test_each_may_lose_its_data(three: Members, leftover: bool) -> None:
    """It is taken out and added anew: the leader, too; also over what etcd made before it had a log."""
    put(three, "aaaa")
    for name in ("a", "b", "c"):
        three.kill(name)
        three.lose(name) if not leftover else shutil.rmtree(three.data(name) / "member" / "wal")
        three.start(name)
        three.until_ready()
        assert "etcd   | joins " in three.runners[name].text()
        assert names(three) == ["a", "b", "c"] and has(three, "aaaa")
    three.stop("a", "b", "c")


def test_all_lose_their_data(three: Members) -> None:
    """All of them start for the first time again."""
    put(three, "aaaa")
    three.kill("a", "b", "c")
    three.lose("a", "b", "c")
    three.start()
    three.until_ready()
    assert not has(three, "aaaa") and names(three) == ["a", "b", "c"]


def test_most_lose_their_data(three: Members) -> None:
    """The last one that has them cannot let anybody in alone: one line, what to do, 69."""
    three.kill("a", "b")
    three.lose("a", "b")
    three.start("a", "b", GLM47_SERVER_TIMEOUT="4", GLM47_MAX_RESTARTS="1")
    for name in ("a", "b"):
        runner = three.runners.pop(name)
        assert runner.wait(START) == 69, runner.text()
        assert "cannot join the other etcd members: " in runner.lines[-1]
        assert "empty the data directories of all" in runner.lines[-1]
    three.kill("c")
    three.lose("c")
    three.start()
    three.until_ready()


def test_one_that_was_taken_out_and_never_came(three: Members) -> None:
    """Added by another start of it, or by hand: it takes that place."""
    three.kill("a")
    three.lose("a")
    with client(three) as etcd:
        listed = etcd.post("/v3/cluster/member/list")["members"]
        etcd.post("/v3/cluster/member/remove", ID=next(m["ID"] for m in listed if m["name"] == "a"))
        peer = f"http://{three.hosts['a']}:{three.ports['GLM47_ETCD_PEER_PORT']}"
        until(lambda: added(etcd, peer), "etcd takes it")
    three.start("a")
    three.until_ready()
    assert names(three) == ["a", "b", "c"]


def added(etcd: Etcds, peer: str) -> bool:
    """It is on the list: etcd takes nobody in before it has been in touch with the others for 5 s."""
    listed = etcd.post("/v3/cluster/member/list")["members"]
    if not any(peer in member["peerURLs"] for member in listed):
        with suppress(RegistryError):
            etcd.post("/v3/cluster/member/add", peerURLs=[peer])
        return False
    return True


def test_the_gateway_that_a_plan_names(three: Members, tmp_path: Path) -> None:
    """Its command, as it stands but for the port, leads to members that serve, whichever is gone."""
    (told,) = texts(about_list(three.urls), Level.WARNING)
    port = free_port()
    command = re.findall("`(.+)`", told)[0].replace(str(GATEWAY), str(port)).split()
    one = f"http://127.0.0.1:{port}"
    assert one in told.replace(str(GATEWAY), str(port))
    with subprocess.Popen([ENGINE / command[0], *command[1:]], stderr=subprocess.DEVNULL) as gateway:
        try:
            for name in ("a", "b", "c"):
                until(lambda: stored(one, 4 * name), f"a key is taken with all but {name}", START)  # noqa: B023
                three.kill(name)
                until(lambda: stored(one, 8 * name), f"{name} is not missed", START)  # noqa: B023
                three.start(name)
                three.until_ready()
        finally:
            gateway.terminate()


def stored(url: str, key: str) -> bool:
    """A key can be written through `url`."""
    with suppress(RegistryError), etcds(url, None, {}) as etcd:
        etcd.post("/v3/kv/put", key=key, value=key)
        return True
    return False


def test_three_become_five(three: Members, tmp_path: Path) -> None:
    """New members are added to those that run; their names are in the list of the new ones only."""
    put(three, "aaaa")
    with ExitStack() as stack:
        five = Members(tmp_path, stack, 5)
        five.ports = three.ports
        five.start("d")
        five.until_ready("d")
        five.start("e")
        five.until_ready("e")
        assert names(three) == ["a", "b", "c", "d", "e"] and has(five, "aaaa")

"""The edits on files: whole or not at all, whoever else is at work and whatever breaks."""

from __future__ import annotations

import hashlib
import os
import py_compile
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from entrypoint.errors import CannotWriteError, PatchError
from entrypoint.prepare.patches import catalog, inplace, modelopt
from entrypoint.prepare.patches.apply import Applied, Where, apply_all, check_all, revert_all
from tests.prepare.patches import sample

ROOT = Path(__file__).resolve().parents[3]
NEW = catalog.judge(catalog.MODELOPT, sample.MODELOPT, "pad").text
APPLY = """
import sys
from pathlib import Path
from entrypoint.errors import RunnerError
from entrypoint.prepare.patches.apply import apply_all
run_dir = Path(sys.argv[3])
try:
    done = apply_all(Path(sys.argv[1]), modelopt="pad", where=sys.argv[2], run_dir=run_dir, environ={})
except RunnerError as error:
    sys.exit(f"{int(error.exit_code)} {error}")
print(done.where, *done.env.values())
"""


def in_place(source_dir: Path, mode: str = "pad") -> Applied:
    return apply_all(source_dir, modelopt=mode, where="inplace", run_dir=source_dir, environ={})  # type: ignore[arg-type]


def apply_elsewhere(
    source_dir: Path, where: str, run_dir: Path, *prefix: str, **options: Any
) -> subprocess.CompletedProcess[str]:
    """`apply_all` in a process of its own, started by `prefix`."""
    return subprocess.run(
        [*prefix, sys.executable, "-c", APPLY, str(source_dir), where, str(run_dir)],
        cwd=ROOT, capture_output=True, text=True, **options,
    )  # fmt: skip


def files(directory: Path) -> dict[str, bytes]:
    """Every file below `directory` but the lock."""
    return {
        str(p.relative_to(directory)): p.read_bytes()
        for p in sorted(directory.rglob("*"))
        if p.is_file() and p.name != inplace.LOCK
    }


def test_apply_twice_and_revert(source_dir: Path) -> None:
    before = files(source_dir)
    assert [s.state for s in check_all(source_dir, "pad")] == ["needed", "needed"]
    first = in_place(source_dir)
    assert first.where == "inplace" and len(first.changed) == 2 and not first.env
    assert [s.state for s in first.edits] == ["applied", "applied"]
    patched = files(source_dir)
    stamp = sample.source(source_dir).stat()
    again = in_place(source_dir)
    assert again.changed == () and again.edits == first.edits
    assert files(source_dir) == patched
    assert sample.source(source_dir).stat().st_mtime_ns == stamp.st_mtime_ns
    assert len(revert_all(source_dir).changed) == 2
    assert files(source_dir) == before
    assert revert_all(source_dir).changed == ()


def test_windows_line_ends(tmp_path: Path) -> None:
    sample.write(tmp_path, text=sample.MODELOPT.replace("\n", "\r\n"))
    before = files(tmp_path)
    in_place(tmp_path)
    patched = sample.source(tmp_path).read_bytes()
    assert (
        patched
        == NEW.replace("\n", "\r\n")
        .replace(
            hashlib.sha256(sample.MODELOPT.encode()).hexdigest(),
            hashlib.sha256(sample.MODELOPT.replace("\n", "\r\n").encode()).hexdigest(),
        )
        .encode()
    )
    revert_all(tmp_path)
    assert files(tmp_path) == before


def test_image_build_and_start_agree(source_dir: Path, tmp_path: Path) -> None:
    in_place(source_dir)
    patched = files(source_dir)
    wheres: tuple[Where, ...] = ("auto", "overlay", "inplace")
    for where in wheres:
        done = apply_all(source_dir, modelopt="pad", where=where, run_dir=tmp_path / "run", environ={})
        assert (done.where, done.changed, dict(done.env)) == ("inplace", (), {})
    assert files(source_dir) == patched
    assert not (tmp_path / "run").exists()


def test_off_looks_at_nothing(tmp_path: Path) -> None:
    sample.write(tmp_path, text="nothing of the kind")
    done = apply_all(tmp_path, modelopt="off", where="auto", run_dir=tmp_path, environ={})
    assert (done.where, done.edits) == ("nowhere", ())


def test_mode_and_owner_are_kept(source_dir: Path) -> None:
    path = sample.source(source_dir)
    path.chmod(0o640)
    if os.getuid() == 0:
        os.chown(path, 1234, 2345)
    before = path.stat()
    in_place(source_dir)
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_hard_links_of_a_package_managers_store_keep_the_original(source_dir: Path, tmp_path: Path) -> None:
    path, store = sample.source(source_dir), tmp_path / "store.py"
    os.link(path, store)
    in_place(source_dir)
    assert store.read_text() == sample.MODELOPT and path.read_text() == NEW


@pytest.mark.parametrize("link", ["tree", "file"])
def test_links_stay_links(source_dir: Path, tmp_path: Path, link: str) -> None:
    if link == "tree":
        (tmp_path / "linked").symlink_to(source_dir, target_is_directory=True)
        given, real = tmp_path / "linked", sample.source(source_dir)
    else:
        real = tmp_path / "elsewhere.py"
        sample.source(source_dir).rename(real)
        sample.source(source_dir).symlink_to(real)
        given = source_dir
    in_place(given)
    assert real.read_text() == NEW and not real.is_symlink()
    assert sample.source(given).is_symlink() == (link == "file")


def test_stale_bytecode_goes_even_where_it_never_expires(source_dir: Path) -> None:
    path = sample.source(source_dir)
    path.write_text(sample.MODELOPT + "VALUE = 'old'\n")
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compiled = py_compile.compile(str(path), invalidation_mode=unchecked)
    assert compiled and Path(compiled).exists()
    in_place(source_dir)
    assert not Path(compiled).exists()


def test_killed_200_times_leaves_the_old_file_or_the_new_one(source_dir: Path) -> None:
    path = sample.source(source_dir)
    old, rng, seen = path.read_bytes(), random.Random(3), set()
    started = time.monotonic()
    in_place(source_dir)
    typical = time.monotonic() - started
    revert_all(source_dir)
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            try:
                in_place(source_dir)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0, 1.5 * typical))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        content = path.read_bytes()
        assert content in (old, NEW.encode())
        seen.add(content)
        revert_all(source_dir)
    assert len(seen) == 2, "kills came before and after the replacement"
    in_place(source_dir)
    assert path.read_text() == NEW
    assert not list(path.parent.glob(f"{inplace._TMP}*")), "what the killed ones left is cleared away"


def test_many_containers_at_once(source_dir: Path, tmp_path: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", APPLY, str(source_dir), "auto", str(tmp_path)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(6)
    ]  # fmt: skip
    assert [child.communicate(timeout=60)[0].strip() for child in children] == ["inplace"] * 6
    assert sample.source(source_dir).read_text() == NEW


def test_a_lock_that_is_never_released(
    source_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = sample.source(source_dir).parent
    real = inplace.locked
    monkeypatch.setattr(inplace, "locked", lambda d: real(d, timeout=0.05))
    with real(directory):
        with pytest.raises(CannotWriteError, match=r"another process holds .*\.glm47-runner\.lock"):
            in_place(source_dir)
        done = apply_all(source_dir, modelopt="pad", where="auto", run_dir=tmp_path / "run", environ={})
    assert done.where == "overlay" and sample.source(source_dir).read_text() == sample.MODELOPT


def test_disk_full(source_dir: Path, tmp_path: Path) -> None:
    def no_more_than_a_kilobyte() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    before = files(source_dir)
    for where in ("inplace", "overlay", "auto"):
        done = apply_elsewhere(source_dir, where, tmp_path / "run", preexec_fn=no_more_than_a_kilobyte)
        assert done.stderr.startswith("73 cannot "), done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert files(source_dir) == before
    assert files(tmp_path / "run") == {}


def test_a_user_who_may_not_write_the_package() -> None:
    """In place is refused in one line; auto makes an overlay. As root, a child becomes someone else."""
    from entrypoint.prepare.patches import overlay

    with tempfile.TemporaryDirectory() as name:
        place, run_dir = Path(name), Path(name, "run")
        sample.write(place)
        run_dir.mkdir()
        Path(name).chmod(0o755)
        run_dir.chmod(0o777)
        for path in place.rglob("*"):
            if path.is_dir() and run_dir != path:
                path.chmod(0o555)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                assert overlay.__name__
                if os.getuid() == 0:
                    os.setgroups([])
                    os.setgid(65534)
                    os.setuid(65534)
                try:
                    refused = str(in_place(place))
                except CannotWriteError as error:
                    refused = str(error)
                done = apply_all(place, modelopt="pad", where="auto", run_dir=run_dir, environ={})
                os.write(writer, f"{refused}\n{done.where}\n{done.env['PYTHONPATH']}\n".encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            refused, where, path_entry = file.read().splitlines()
        os.waitpid(pid, 0)
        for path in place.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)
        assert refused.startswith("cannot patch sglang in place: ") and "Permission denied" in refused
        assert where == "overlay" and path_entry.startswith(str(run_dir))
        assert sample.source(place).read_text() == sample.MODELOPT


def test_read_only_mount(source_dir: Path, tmp_path: Path, unshare: list[str]) -> None:
    shell = f'mount --bind {source_dir} {source_dir} && mount -o remount,ro,bind {source_dir} && exec "$@"'
    prefix = [*unshare, "sh", "-c", shell, "sh"]
    refused = apply_elsewhere(source_dir, "inplace", tmp_path / "run", *prefix)
    assert refused.stderr.startswith("73 ") and "Read-only file system" in refused.stderr
    done = apply_elsewhere(source_dir, "auto", tmp_path / "run", *prefix)
    assert done.stdout.startswith("overlay "), done.stderr


def test_full_file_system(source_dir: Path, tmp_path: Path, unshare: list[str]) -> None:
    """A tmpfs without room: in place fails whole, and an overlay elsewhere takes over."""
    small = tmp_path / "small"
    small.mkdir()
    shell = (
        f"mount -t tmpfs -o size=64k none {small} && cp -r {source_dir}/sglang {small}/ && "
        f'(dd if=/dev/zero of={small}/filler 2>/dev/null; true) && "$@"; '
        f"cmp {small}/sglang/{modelopt.PATH} {sample.source(source_dir)} && echo unchanged"
    )
    prefix = [*unshare, "sh", "-c", shell, "sh"]
    refused = apply_elsewhere(small, "inplace", tmp_path / "run", *prefix)
    assert "No space left on device" in refused.stderr and refused.stderr.startswith("73 ")
    assert refused.stdout.strip() == "unchanged"
    done = apply_elsewhere(small, "auto", tmp_path / "run", *prefix)
    assert done.stdout.startswith("overlay ") and done.stdout.endswith("unchanged\n"), done.stderr


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = 1\n", "not recognised"),
        ("", "not recognised"),
        (NEW.replace("% 64", "% 8"), "changed by hand"),
    ],
)
def test_unknown_source_changes_nothing(tmp_path: Path, text: str, why: str) -> None:
    sample.write(tmp_path, text=text, version="0.9.9")
    before = files(tmp_path)
    with pytest.raises(PatchError, match=why) as caught:
        in_place(tmp_path)
    assert str(caught.value).startswith("cannot patch sglang 0.9.9: ") and "\n" not in str(caught.value)
    assert files(tmp_path) == before, "not the other file either"


def test_undecodable_and_missing_sources(tmp_path: Path) -> None:
    sample.write(tmp_path)
    sample.source(tmp_path).write_bytes(b"\xff\xfe")
    with pytest.raises(PatchError, match="not UTF-8 at byte 0"):
        in_place(tmp_path)
    sample.source(tmp_path).unlink()
    with pytest.raises(PatchError, match="No such file"):
        in_place(tmp_path)
    with pytest.raises(PatchError, match="no sglang package in it"):
        in_place(tmp_path / "nowhere")

"""The corrected view of a model: a directory of links to the original files beside the corrected ones.

A view appears in one rename and is replaced in one exchange, so whoever looks, at any instant, and whatever
is killed, sees the old view or the new one. Processes that prepare at once take turns on a lock file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from entrypoint.errors import CannotWriteError, ModelError
from entrypoint.node.model import directory


def prepare(source: str, view: Path, *, bos_token_id: int) -> bool:
    """Make `view`: a directory of links to the files of `source`, beside a generation_config.json that
    has `bos_token_id` where the model lacks it. Whether something was written; `source` never is.

    Raises ModelError (66) when the model cannot be used, CannotWriteError (73) when the view cannot be made.
    """
    found = directory.inspect(source)
    if found.facts.error:
        raise ModelError(found.facts.error)
    files = {}
    if found.facts.needs_bos_fix:
        text = corrected(found.generation_config, found.config or {}, bos_token_id)
        files[directory.GENERATION_CONFIG] = text
    return make_view(source, view, files)


def corrected(generation: Mapping[str, Any] | None, config: Mapping[str, Any], bos_token_id: int) -> str:
    """generation_config.json's text with `bos_token_id`; all other keys keep their value and order.

    Without an original it holds the ids only, so that nothing else of the engine's defaults changes.
    """
    if generation is None:
        kept = {key: config[key] for key in ("eos_token_id", "pad_token_id") if config.get(key) is not None}
        generation = {"_from_model_config": True, **kept}
    return json.dumps({**generation, "bos_token_id": bos_token_id}, indent=2) + "\n"


def make_view(source: str, view: Path, files: Mapping[str, str]) -> bool:
    """Make `view` show the directory `source` with `files` (name to text) in place of its own.

    Returns whether anything changed. Raises ModelError when `source` cannot be listed, CannotWriteError
    when the view cannot be written or something that is no view stands in its place.
    """
    links = _links(source, view, files)
    if _matches(view, links, files):
        return False
    try:
        view.parent.mkdir(parents=True, exist_ok=True)
        with _locked(view.with_name(f".{view.name}.lock")):
            return _make(view, links, files)
    except OSError as error:
        raise CannotWriteError(
            f"cannot make the corrected view of the model: {view}: {error.strerror}: "
            "set GLM47_RUN_DIR to a writable directory with free space"
        ) from error


def _make(view: Path, links: Mapping[str, str], files: Mapping[str, str]) -> bool:
    # Whoever held the lock before us may have done the work; what it left half done is ours to remove.
    for entry in os.scandir(view.parent):
        if entry.name.startswith(f".{view.name}.new-"):
            shutil.rmtree(entry.path)
    if _matches(view, links, files):
        return False
    if os.path.lexists(view) and not _is_view(view):
        raise CannotWriteError(
            f"cannot make the corrected view of the model: {view}: something else is there: "
            "move it away, or set GLM47_RUN_DIR to another directory"
        )
    new = view.with_name(f".{view.name}.new-{os.urandom(4).hex()}")
    try:
        new.mkdir()
        for name, target in links.items():
            (new / name).symlink_to(target)
        for name, text in files.items():
            (new / name).write_text(text, encoding="utf-8")
        _put(new, view)
    finally:
        # After an exchange this is the old view, after a failure the half-made new one.
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(new)
    return True


def _links(source: str, view: Path, files: Mapping[str, str]) -> dict[str, str]:
    with contextlib.suppress(OSError):
        if view.samefile(source):
            raise ModelError(
                f"cannot use the model: GLM47_MODEL_PATH={source} is the runner's own view of a model: "
                "set it to the original directory"
            )
    # realpath, unlike Path.resolve, puts up with a loop of links.
    if Path(os.path.realpath(source)) in Path(os.path.realpath(view)).parents:
        raise CannotWriteError(
            f"cannot make the corrected view of the model: {view}: it would lie in the model itself, "
            "which is never written: set GLM47_RUN_DIR to a directory outside GLM47_MODEL_PATH"
        )
    try:
        names = sorted(entry.name for entry in os.scandir(source))
    except OSError as error:
        raise ModelError(
            f"cannot use the model: GLM47_MODEL_PATH={source} cannot be read ({error.strerror}): "
            "make it readable"
        ) from error
    # Not resolved: the path that the user gave is the one that is mounted in every container.
    base = Path(source).absolute()
    return {name: str(base / name) for name in names if name not in files}


def _matches(view: Path, links: Mapping[str, str], files: Mapping[str, str]) -> bool:
    try:
        if not stat.S_ISDIR(view.lstat().st_mode) or {e.name for e in os.scandir(view)} != {*links, *files}:
            return False
        if any(str((view / name).readlink()) != target for name, target in links.items()):
            return False
        return all(
            stat.S_ISREG((view / name).lstat().st_mode) and (view / name).read_bytes() == text.encode("utf-8")
            for name, text in files.items()
        )
    except OSError:
        return False


def _is_view(path: Path) -> bool:
    """Whether `path` is a directory with links in it, as ours are whatever else was left there, or empty."""
    if not stat.S_ISDIR(path.lstat().st_mode):
        return False
    entries = list(os.scandir(path))
    return not entries or any(entry.is_symlink() for entry in entries)


def _put(new: Path, view: Path) -> None:
    """Put `new` in the place of `view`; afterwards `new` is the old view, if there was one."""
    if not os.path.lexists(view):
        new.rename(view)
        return
    if _exchange(new, view):
        return
    # File systems that cannot exchange: for an instant there is no view, but never half a one.
    aside = new.with_name(new.name + "-old")
    view.rename(aside)
    new.rename(view)
    shutil.rmtree(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step (Linux renameat2); False where that is not to be had."""
    import ctypes

    at_cwd, rename_exchange = -100, 2
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if call(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), rename_exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(other))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

"""Edits of the installed sglang without which GLM-4.7-NVFP4 does not run, or runs wrongly.

Pure: `blocks` (reversible text edits), `modelopt`, `glm4_moe` (the edits), `catalog` (states).
Effects: `sources`, `inplace`, `overlay`, and the three verbs here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from entrypoint.errors import CannotWriteError, PatchError
from entrypoint.prepare.patches import catalog, sources
from entrypoint.prepare.patches.catalog import Judged, Mode, State

Where = Literal["auto", "inplace", "overlay"]


@dataclass(frozen=True)
class EditState:
    """One edit with regard to one sglang package."""

    edit: str
    """`modelopt` or `glm4_moe_routing`."""
    state: State
    path: str
    """The file that it is about."""
    sglang: str
    """The package's version; "unknown" when it does not say."""
    sha256: str
    """Of the file as it is on the disk."""
    mode: str
    """The mode that was asked for: pad, assert, on or off."""
    detail: str

    @property
    def line(self) -> str:
        """One line for people."""
        file = f"{self.path} (sglang {self.sglang}, sha256 {self.sha256[:12]})"
        return f"{self.edit}: {self.state} ({self.detail}): {file}"


@dataclass(frozen=True)
class Applied:
    """What `apply_all` did."""

    edits: tuple[EditState, ...]
    """States after it: applied, not needed."""
    where: Literal["inplace", "overlay", "nowhere"]
    """Where the patched sources are; nowhere: no edit was wanted or needed."""
    changed: tuple[str, ...]
    """Files of the package that were rewritten."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables that every engine process must get (overlay)."""


@dataclass(frozen=True)
class _File:
    name: str
    """Inside the package."""
    path: Path
    data: bytes
    judged: tuple[tuple[catalog.Edit, str | None, Judged], ...]

    @property
    def wanted(self) -> bytes:
        return self.judged[-1][2].text.encode("utf-8")


def check_all(source_dir: Path, modelopt: Mode) -> tuple[EditState, ...]:
    """The state of every edit for the sglang package in `source_dir`. PatchError (73) when unreadable."""
    package = sources.package_dir(source_dir)
    return _states(package, _look(package, modelopt), modelopt)


def apply_all(
    source_dir: Path,
    *,
    modelopt: Mode,
    where: Where,
    run_dir: Path,
    environ: Mapping[str, str],
) -> Applied:
    """Make every edit that is needed, in the package or as an overlay in `run_dir`. Idempotent.

    `environ` is what the engine's processes will inherit; its PYTHONPATH is kept.
    PatchError (73) when a source is not recognised, CannotWriteError (73) when nothing can be written. Either
    way every file is the old one or the new one.
    """
    package = sources.package_dir(source_dir)
    if modelopt == "off":
        return Applied((), "nowhere", ())
    files = _look(package, modelopt)
    _refuse_unknown(package, files, modelopt)
    if where != "overlay":
        try:
            return _in_place(package, files, modelopt)
        except OSError as error:
            if where == "inplace":
                raise CannotWriteError(
                    f"cannot patch sglang in place: {error.filename or package}: {error.strerror or error}: "
                    "make it writable, or set GLM47_PATCH_MODE=auto or overlay"
                ) from None
    return _overlay(package, modelopt, run_dir, environ)


def revert_all(source_dir: Path) -> Applied:
    """Take every edit of ours out of the package's files; other people's changes stay. Idempotent."""
    package = sources.package_dir(source_dir)
    try:
        return _in_place(package, _look(package, "off"), "off", take_out=True)
    except OSError as error:
        raise CannotWriteError(
            f"cannot revert the patch: {error.filename or package}: {error.strerror or error}: "
            "make it writable"
        ) from None


def _look(package: Path, modelopt: Mode) -> tuple[_File, ...]:
    by_path: dict[str, list[catalog.Edit]] = {}
    for edit in catalog.CATALOG:
        by_path.setdefault(edit.path, []).append(edit)
    found = []
    for name, edits in by_path.items():
        path = (package / name).resolve()
        if not path.exists() and name != catalog.MODELOPT.path:
            continue
        text = sources.read(path)
        data, judged = text.encode("utf-8"), []
        for edit in edits:
            mode = catalog.mode_of(edit, modelopt)
            result = catalog.judge(edit, text, mode)
            judged.append((edit, mode, result))
            text = result.text
        found.append(_File(name, path, data, tuple(judged)))
    return tuple(found)


def _states(package: Path, files: tuple[_File, ...], modelopt: Mode) -> tuple[EditState, ...]:
    version = sources.release(package)
    return tuple(
        EditState(
            edit.name,
            result.state,
            str(file.path),
            version,
            hashlib.sha256(file.data).hexdigest(),
            mode or "off",
            result.detail,
        )
        for file in files
        for edit, mode, result in file.judged
    )


def _refuse_unknown(package: Path, files: tuple[_File, ...], modelopt: Mode) -> None:
    for state in _states(package, files, modelopt):
        if state.state == "not recognised":
            raise PatchError(
                f"cannot patch sglang {state.sglang}: {state.path} (sha256 {state.sha256[:12]}): "
                f"not recognised, {state.detail}: use an sglang release that docs/patches.md lists, "
                "or set GLM47_MODELOPT_PATCH=off"
            )


def _in_place(package: Path, files: tuple[_File, ...], modelopt: Mode, take_out: bool = False) -> Applied:
    """Rewrite what has to change. OSError with every file whole when that cannot be done."""
    changed, late = [], False
    for file in files:
        if _change(file, take_out) is None:
            continue
        late = True
        from entrypoint.prepare.patches import inplace

        with inplace.locked(file.path.parent):
            # Someone else may have been here while we waited.
            now = next(f for f in _look(package, modelopt) if f.name == file.name)
            _refuse_unknown(package, (now,), modelopt)
            data = _change(now, take_out)
            if data is not None:
                inplace.replace(now.path, data)
                changed.append(str(now.path))
    states = _states(package, _look(package, modelopt) if late else files, modelopt)
    made = any(s.state == "applied" for s in states)
    return Applied(states, "inplace" if made else "nowhere", tuple(changed))


def _change(file: _File, take_out: bool) -> bytes | None:
    """The new content of `file`; None when it may stay as it is."""
    data = file.judged[-1][2].original.encode("utf-8") if take_out else file.wanted
    return None if data == file.data else data


def _overlay(package: Path, modelopt: Mode, run_dir: Path, environ: Mapping[str, str]) -> Applied:
    from entrypoint.prepare.patches import overlay

    files = _look(package, modelopt)
    _refuse_unknown(package, files, modelopt)
    copies = [overlay.Copy(file.name, file.wanted, file.data) for file in files if file.wanted != file.data]
    states = tuple(_as_applied(s) for s in _states(package, files, modelopt))
    if not copies:
        made = any(s.state == "applied" for s in states)
        return Applied(states, "inplace" if made else "nowhere", ())
    try:
        env = overlay.write(run_dir, copies, environ)
    except OSError as error:
        raise CannotWriteError(
            "cannot write the patched copies of sglang: "
            f"{error.filename or run_dir}: {error.strerror or error}: "
            "set GLM47_RUN_DIR to a writable directory with a few megabytes to spare"
        ) from None
    return Applied(states, "overlay", (), env)


def _as_applied(state: EditState) -> EditState:
    import dataclasses

    return dataclasses.replace(state, state="applied") if state.state == "needed" else state

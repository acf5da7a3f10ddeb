"""Finding, reading and naming the sglang package to patch. Every error is a PatchError (73)."""

from __future__ import annotations

import re
from pathlib import Path

from entrypoint.errors import PatchError

_VERSION = re.compile(r"""^(?:__version__|version)\s*=\s*(?:version\s*=\s*)?["']([^"']+)["']""", re.MULTILINE)


def package_dir(source: Path) -> Path:
    """The sglang package in `source`: a directory that holds it, or itself. Links are followed."""
    for candidate in (source / "sglang", source):
        if (candidate / "srt").is_dir():
            return candidate.resolve()
    raise PatchError(
        f"cannot patch sglang: {source}: no sglang package in it: name the directory that holds `sglang` "
        "(an unpacked wheel, site-packages)"
    )


def installed(python: str | None, environ: dict[str, str], prefix: str) -> Path:
    """The sglang package that GLM47_PYTHON would import."""
    from entrypoint.node import engine

    interpreter = engine.find_python(python, environ, prefix)
    if interpreter is None:
        raise PatchError(
            f"cannot patch sglang: GLM47_PYTHON: {python or 'not set'}: no such interpreter: "
            "set it to the image's python, or name a directory with --source"
        )
    found = engine.read_site(engine.site_packages(interpreter)).get("sglang_dir")
    found = found or engine.ask(interpreter).get("sglang_dir")
    if not found:
        raise PatchError(
            f"cannot patch sglang: {interpreter}: it cannot import sglang: "
            "set GLM47_PYTHON to the interpreter that can, or name a directory with --source"
        )
    return package_dir(Path(found))


def release(package: Path) -> str:
    """The sglang version that `package` says it is, or that its dist-info says; "unknown" otherwise."""
    for name in ("_version.py", "version.py"):
        try:
            found = _VERSION.search((package / name).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found and found[1] != "0.0.0.dev0":
            return found[1]
    names = sorted(p.name for p in package.parent.glob("sglang-*.dist-info"))
    return names[0].removesuffix(".dist-info").split("-")[1] if len(names) == 1 else "unknown"


def read(path: Path) -> str:
    """The text of `path`, line ends and a byte order mark as they are."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise PatchError(
            f"cannot patch sglang: {path}: not UTF-8 at byte {error.start}: install an unchanged sglang"
        ) from None
    except OSError as error:
        raise PatchError(
            f"cannot read the source to patch: {path}: {error.strerror}: "
            "use an sglang release that docs/patches.md lists, or set GLM47_MODELOPT_PATCH=off"
        ) from None

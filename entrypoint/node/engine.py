"""What is installed for the engine: its interpreter, the versions beside it, the servers' executables.

Versions are read from the names of ``*.dist-info`` directories, sglang's place from there and from ``.pth``
files: a few milliseconds. Only when those do not tell (an unusual layout) the interpreter is asked once, and
even then the engine is not imported.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from entrypoint.base.foreign import from_json
from entrypoint.node.facts import EngineFacts

IMAGE_PYTHON = "/opt/dynamo/venv/bin/python3"
"""Where the upstream image keeps the interpreter that holds dynamo and sglang."""
IMAGE_BINARIES = {
    # In the upstream image `/usr/local/bin/etcd` is a directory, with the executable in it.
    "etcd": ("/usr/local/bin/etcd/etcd",),
    "nats-server": ("/usr/bin/nats-server", "/usr/local/bin/nats-server"),
    "nginx": ("/usr/sbin/nginx", "/usr/local/sbin/nginx"),
}
PACKAGES = {
    "dynamo": ("ai_dynamo",),
    "sglang": ("sglang",),
    "flashinfer": ("flashinfer_python", "flashinfer"),
}
"""Distribution names as they appear in ``NAME-VERSION.dist-info``."""
TRANSFER_BACKENDS = ("nixl", "mooncake")
"""Those whose code has been measured: entrypoint/plan/engine/kv_layout_table.py."""
MODULES = ("sglang", "flashinfer", "flashinfer_cubin")
"""Packages whose directories are wanted."""
ASK_TIMEOUT = 20.0
"""Seconds the interpreter gets to answer; a cold network file system is slow."""

_DIST_INFO = re.compile(r"^(?P<name>[A-Za-z0-9_.]+)-(?P<version>[^-]+)\.dist-info$")
_ASK = """
import importlib.metadata as m, importlib.util as u, json
out = {}
for key, names in %r.items():
    for name in names:
        try:
            out[key] = m.version(name)
            break
        except m.PackageNotFoundError:
            pass
for name in %r:
    spec = u.find_spec(name)
    out[name + "_dir"] = next(iter(spec.submodule_search_locations or ()), None) if spec else None
print(json.dumps(out))
"""


def gather(python: str | None, environ: Mapping[str, str], prefix: str = sys.prefix) -> EngineFacts:
    """Facts of the engine; never raises. `python` is GLM47_PYTHON, `prefix` the runner's own environment."""
    interpreter = find_python(python, environ, prefix)
    found: dict[str, str | None] = {}
    if interpreter is not None:
        found = read_site(site_packages(interpreter))
        if found.get("dynamo") is None or (found.get("sglang") and not found.get("sglang_dir")):
            found = {**found, **{k: v for k, v in ask(interpreter).items() if v is not None}}
    return EngineFacts(
        python=interpreter,
        dynamo=found.get("dynamo"),
        sglang=found.get("sglang"),
        flashinfer=found.get("flashinfer"),
        sglang_dir=found.get("sglang_dir"),
        flashinfer_dir=found.get("flashinfer_dir"),
        flashinfer_cubin_dir=found.get("flashinfer_cubin_dir"),
        binaries=find_binaries(interpreter, environ),
        transfer_code=transfer_code(found.get("sglang_dir")),
    )


def transfer_code(sglang_dir: str | None) -> dict[str, str]:
    """By transfer backend, a digest of the code that hands KV caches over; empty where there is none.

    `sglang_dir` is the directory of the sglang package.
    """
    found: dict[str, str] = {}
    if sglang_dir is None:
        return found
    import hashlib

    place = Path(sglang_dir, "srt", "disaggregation")
    for backend in TRANSFER_BACKENDS:
        digest = hashlib.sha256()
        try:
            digest.update((place / backend / "conn.py").read_bytes())
            for name in ("conn.py", "utils.py", "staging_buffer.py"):
                file = place / "common" / name
                digest.update(file.read_bytes() if file.exists() else b"")
        except OSError:
            continue
        found[backend] = digest.hexdigest()[:16]
    return found


def find_python(given: str | None, environ: Mapping[str, str], prefix: str) -> str | None:
    """The engine's interpreter: `given`, the image's, the one beside us, or the first foreign one on PATH."""
    if given is not None:
        return shutil.which(given, path=environ.get("PATH", os.defpath))
    for candidate in (IMAGE_PYTHON, f"{prefix}/engine/bin/python"):
        if os.access(candidate, os.X_OK):
            return candidate
    own = Path(prefix, "bin")
    for directory in environ.get("PATH", os.defpath).split(os.pathsep):
        candidate = f"{directory}/python3"
        if directory and Path(directory) != own and os.access(candidate, os.X_OK):
            return candidate
    return None


def site_packages(python: str) -> list[Path]:
    """Directories that `python` imports packages from, judged by its place alone."""
    prefixes = [Path(python).parent.parent]
    config = prefixes[0] / "pyvenv.cfg"
    if config.is_file():
        text = config.read_text(errors="replace").lower().replace(" ", "")
        if "include-system-site-packages=true" in text:
            prefixes.append(Path(python).resolve().parent.parent)
    else:
        prefixes.append(Path(python).resolve().parent.parent)
    patterns = ("lib/python3*/site-packages", "lib/python3*/dist-packages", "lib/python3/dist-packages")
    seen: dict[Path, None] = {}
    for prefix in prefixes:
        for base in (prefix, prefix / "local"):
            for pattern in patterns:
                seen.update(dict.fromkeys(sorted(base.glob(pattern))))
    return list(seen)


def read_site(directories: Iterable[Path]) -> dict[str, str | None]:
    """Versions and directories of packages as `directories` show them; the first that has one wins.

    An editable install, which is elsewhere, is looked for only of sglang.
    """
    found: dict[str, str | None] = {}
    names = {name: key for key, distributions in PACKAGES.items() for name in distributions}
    for directory in directories:
        try:
            entries = {path.name for path in directory.iterdir()}
        except OSError:
            continue
        for entry in entries:
            match = _DIST_INFO.match(entry)
            key = names.get(re.sub(r"[.-]+", "_", match["name"]).lower()) if match else None
            if match and key is not None:
                found.setdefault(key, match["version"])
        for name in entries.intersection(MODULES):
            if (directory / name / "__init__.py").is_file():
                found.setdefault(f"{name}_dir", str(directory / name))
        for place in _linked(directory, entries) if "sglang_dir" not in found else ():
            if (place / "sglang" / "__init__.py").is_file():
                found.setdefault("sglang_dir", str(place / "sglang"))
    return found


def _linked(directory: Path, entries: Iterable[str]) -> Iterator[Path]:
    """The directories that the .pth files of a site directory add to it, as Python's `site` reads them."""
    for entry in sorted(entries):
        if not entry.endswith(".pth") or entry.startswith("."):
            continue
        try:
            lines = (directory / entry).read_text().splitlines()
        except (OSError, ValueError):
            continue
        for line in map(str.strip, lines):
            if line and not line.startswith(("#", "import ", "import\t")):
                yield directory / line


def ask(python: str) -> dict[str, str | None]:
    """The same from the interpreter itself; empty when it does not answer."""
    try:
        done = subprocess.run(
            [python, "-c", _ASK % (PACKAGES, MODULES)],
            capture_output=True,
            text=True,
            timeout=ASK_TIMEOUT,
            stdin=subprocess.DEVNULL,
            check=True,
        )
        answer = from_json(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}
    if not isinstance(answer, dict):
        return {}  # not our line: the interpreter says something at its end
    return {k: v for k, v in answer.items() if v is None or isinstance(v, str)}


def find_binaries(python: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Executables by name: on PATH, beside the engine's interpreter, where images keep them."""
    found = {}
    for name, places in IMAGE_BINARIES.items():
        path = shutil.which(name, path=environ.get("PATH", os.defpath))
        beside = [str(Path(python).parent / name)] if python is not None else []
        path = path or _first_executable([*beside, *places])
        if path is not None:
            found[name] = path
    return found


def _first_executable(candidates: Sequence[str]) -> str | None:
    for candidate in candidates:
        if Path(candidate).is_file() and os.access(candidate, os.X_OK):
            return candidate
    return None

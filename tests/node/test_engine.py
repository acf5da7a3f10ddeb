"""Facts about the engine, gathered from environments made of real files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from entrypoint.node import engine, inspect
from entrypoint.settings.schema import Settings


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def sglang_source(directory: Path) -> Path:
    package = directory / "sglang"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the engine must not be imported')\n")
    return package


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A virtual environment as the image has it, with an interpreter that must not be needed."""
    site = tmp_path / "venv/lib/python3.12/site-packages"
    for name in (
        "ai_dynamo-0.8.1",
        "ai_dynamo_runtime-0.8.1",
        "sglang-0.5.6.post2",
        "flashinfer_python-0.5.3",
    ):
        (site / f"{name}.dist-info").mkdir(parents=True)
    (site / "sglang").mkdir()
    (site / "sglang/__init__.py").touch()
    (site / "flashinfer").mkdir()
    (site / "flashinfer/__init__.py").touch()
    (site / "flashinfer_cubin").mkdir()  # left by an uninstall: no package
    (tmp_path / "venv/pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    executable(tmp_path / "venv/bin/python3", "#!/bin/sh\necho asked >> $0.asked\nexit 1\n")
    executable(tmp_path / "venv/bin/nats-server")
    return tmp_path / "venv"


def test_versions_are_read_without_starting_the_interpreter(venv: Path) -> None:
    found = engine.gather(str(venv / "bin/python3"), {"PATH": "/nowhere"})
    assert (found.dynamo, found.sglang, found.flashinfer) == ("0.8.1", "0.5.6.post2", "0.5.3")
    assert found.sglang_dir == str(venv / "lib/python3.12/site-packages/sglang")
    assert found.flashinfer_dir == str(venv / "lib/python3.12/site-packages/flashinfer")
    assert found.flashinfer_cubin_dir is None
    assert found.binaries["nats-server"] == str(venv / "bin/nats-server")
    assert not (venv / "bin/python3.asked").exists()


@pytest.mark.parametrize("link", ["{source}\n", "# here\nimport os\n\n../../../../sgl-workspace/python\n"])
def test_an_editable_sglang_is_found_without_asking(venv: Path, link: str) -> None:
    """As in the image: sglang is installed from a source tree elsewhere, by a .pth file."""
    site = venv / "lib/python3.12/site-packages"
    (site / "sglang/__init__.py").unlink()
    source = sglang_source(venv.parent / "sgl-workspace/python")
    (site / "__editable__.sglang.pth").write_text(link.format(source=source.parent))
    (site / "distutils-precedence.pth").write_bytes(b"\xff\n")
    found = engine.gather(str(venv / "bin/python3"), {"PATH": "/nowhere"})
    assert found.sglang_dir is not None
    assert Path(found.sglang_dir).samefile(source)
    assert not (venv / "bin/python3.asked").exists()


def test_a_site_that_does_not_tell_is_asked_about(tmp_path: Path) -> None:
    """An editable install whose .pth file is code, as setuptools writes it for an uncommon layout."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    site = next((tmp_path / "venv/lib").glob("python3*/site-packages"))
    for name, version in (("ai_dynamo", "0.8.1"), ("sglang", "0.5.6.post2")):
        info = site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    source = sglang_source(tmp_path / "sgl-workspace/sglang/python")
    (site / "sglang.pth").write_text(f"import sys; sys.path.append({str(source.parent)!r})\n")
    found = engine.gather(str(tmp_path / "venv/bin/python"), dict(os.environ))
    assert (found.dynamo, found.sglang) == ("0.8.1", "0.5.6.post2")
    assert found.sglang_dir == str(source)


def test_an_interpreter_that_does_not_answer_is_no_fault(tmp_path: Path) -> None:
    python = executable(tmp_path / "bin/python3", "#!/bin/sh\nexit 3\n")
    found = engine.gather(str(python), {"PATH": str(tmp_path / "bin")})
    assert found.python == str(python)
    assert found.dynamo is None


def test_no_interpreter_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "IMAGE_PYTHON", str(tmp_path / "none"))
    found = engine.gather(None, {"PATH": str(tmp_path)}, prefix=str(tmp_path))
    assert found.python is None
    assert found.dynamo is None


def test_our_own_interpreter_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "IMAGE_PYTHON", str(tmp_path / "none"))
    own = executable(tmp_path / "own/bin/python3").parent
    other = executable(tmp_path / "other/bin/python3")
    path = f"{own}:{other.parent}"
    assert engine.find_python(None, {"PATH": path}, str(tmp_path / "own")) == str(other)
    beside = executable(tmp_path / "own/engine/bin/python")
    assert engine.find_python(None, {"PATH": path}, str(tmp_path / "own")) == str(beside)


def test_a_directory_called_etcd_is_not_an_executable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = executable(tmp_path / "bin/etcd/etcd")
    monkeypatch.setitem(engine.IMAGE_BINARIES, "etcd", (str(real),))
    found = engine.find_binaries(None, {"PATH": str(tmp_path / "bin")})
    assert found["etcd"] == str(real)


def test_gathering_is_quick(venv: Path) -> None:
    settings = Settings(python=str(venv / "bin/python3"))
    inspect.gather(settings, {"PATH": os.environ["PATH"]}, model=False)
    started = time.perf_counter()
    inspect.gather(settings, {"PATH": os.environ["PATH"]}, model=False)
    assert time.perf_counter() - started < 0.06

"""The overlay with real interpreters: main process, spawned children, other people's hooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.prepare.patches import catalog
from entrypoint.prepare.patches.apply import apply_all
from tests.prepare.patches import sample

ROOT = Path(__file__).resolve().parents[3]
ENGINE = """
import json, multiprocessing, sys

def look(queue):
    from sglang.srt.layers.quantization import modelopt_quant as quant
    from sglang.srt.models import glm4_moe as model
    text = open(quant.__file__).read()
    import mine
    try:
        import sitecustomize
        hook = getattr(sitecustomize, "HOOK", None)
    except ImportError:
        hook = None
    import builtins
    padded = ">>> glm47-runner modelopt pad" in text
    queue.put({"quant": quant.__file__, "model": model.__file__, "padded": padded, "mine": mine.VALUE,
               "hook": hook, "ran": getattr(builtins, "hidden_ran", 0)})

class Direct(list):
    put = list.append

if __name__ == "__main__":
    direct = Direct()
    look(direct)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=look, args=(queue,))
    child.start()
    spawned = queue.get(timeout=60)
    child.join()
    print(json.dumps([direct[0], spawned]))
"""


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An environment of its own with the made-up sglang in it; returns its interpreter."""
    place = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    site = next(place.glob("lib/python3*/site-packages"))
    sample.write(site)
    (site / "fakeengine.py").write_text(ENGINE)
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "mine.py").write_text("VALUE = 'from PYTHONPATH'\n")
    return place / "bin" / "python"


def site_of(engine: Path) -> Path:
    return next(engine.parents[1].glob("lib/python3*/site-packages"))


def run(engine: Path, env: dict[str, str], *flags: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [engine, *flags, "-m", "fakeengine"], env=env, capture_output=True, text=True, timeout=120, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def overlay(engine: Path, tmp_path: Path, **environ: str) -> dict[str, str]:
    """The environment of an engine process under an overlay."""
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "user"), **environ}
    done = apply_all(site_of(engine), modelopt="pad", where="overlay", run_dir=tmp_path / "run", environ=base)
    assert done.where == "overlay" and [s.state for s in done.edits] == ["applied", "applied"]
    return {**base, **done.env}


def test_main_and_spawned_processes_import_the_copies(engine: Path, tmp_path: Path) -> None:
    env = overlay(engine, tmp_path)
    run_dir = str(tmp_path / "run")
    for seen in run(engine, env):
        assert str(seen["quant"]).startswith(run_dir) and str(seen["model"]).startswith(run_dir)
        assert seen["padded"] is True
        assert seen["mine"] == "from PYTHONPATH", "the user's PYTHONPATH still works"
    assert sample.source(site_of(engine)).read_text() == sample.MODELOPT, (
        "nothing in site-packages is touched"
    )
    without = run(engine, {**env, "PYTHONPATH": str(tmp_path / "user")})
    assert [seen["padded"] for seen in without] == [False, False]


def test_in_place_reaches_spawned_processes_and_beats_old_bytecode(engine: Path, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "user")}
    assert [seen["padded"] for seen in run(engine, env)] == [False, False]
    done = apply_all(site_of(engine), modelopt="pad", where="inplace", run_dir=tmp_path / "run", environ={})
    assert done.where == "inplace" and not done.env
    for seen in run(engine, env):
        assert seen["padded"] is True and seen["quant"] == str(sample.source(site_of(engine)))


def test_read_only_image(engine: Path, tmp_path: Path, unshare: list[str]) -> None:
    """auto, then the engine with its spawned child, all on an environment that is mounted read-only."""
    place = engine.parents[1]
    script = (
        f"mount --bind {place} {place} && mount -o remount,ro,bind {place} && cd {ROOT} && "
        f"out=$({sys.executable} -m entrypoint patch apply --source {site_of(engine)} --where auto "
        f'--run-dir {tmp_path}/run --format json) && echo "$out" >&2 && '
        f'export PYTHONPATH=$(echo "$out" | {sys.executable} -c '
        '\'import json, sys; print(json.load(sys.stdin)["env"]["PYTHONPATH"])\') && '
        f"cd / && exec {engine} -m fakeengine"
    )
    done = subprocess.run(
        [*unshare, "sh", "-c", script],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "user")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [seen["padded"] for seen in json.loads(done.stdout)] == [True, True]
    assert [seen["mine"] for seen in json.loads(done.stdout)] == ["from PYTHONPATH"] * 2


@pytest.mark.parametrize("where", ["site-packages", "PYTHONPATH"])
def test_someone_elses_sitecustomize_still_runs_once(engine: Path, tmp_path: Path, where: str) -> None:
    hook = "import builtins\nHOOK = 'theirs'\nbuiltins.hidden_ran = getattr(builtins, 'hidden_ran', 0) + 1\n"
    place = site_of(engine) if where == "site-packages" else tmp_path / "user"
    (place / "sitecustomize.py").write_text(hook)
    for seen in run(engine, overlay(engine, tmp_path)):
        assert (seen["padded"], seen["hook"], seen["ran"]) == (True, "theirs", 1)


@pytest.mark.parametrize("flag", ["-O", "-B", "-u", "-s", "-P"])
def test_interpreter_flags_that_keep_it(engine: Path, tmp_path: Path, flag: str) -> None:
    if flag == "-P" and sys.version_info < (3, 11):
        pytest.skip("no -P before Python 3.11")
    assert all(seen["padded"] for seen in run(engine, overlay(engine, tmp_path), flag))


@pytest.mark.parametrize("flag", ["-E", "-I"])
def test_interpreter_flags_that_lose_it(engine: Path, tmp_path: Path, flag: str) -> None:
    """The documented limit: these switch PYTHONPATH off, the user's own entries with it."""
    done = subprocess.run(
        [engine, flag, "-c", "import sglang.srt.layers.quantization.modelopt_quant as m; print(m.__file__)"],
        env=overlay(engine, tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith(str(site_of(engine)))


def test_an_original_that_changes_is_not_passed_over(engine: Path, tmp_path: Path) -> None:
    env = overlay(engine, tmp_path)
    sample.source(site_of(engine)).write_text(sample.MODELOPT + "# updated\n")
    done = subprocess.run([engine, "-m", "fakeengine"], env=env, capture_output=True, text=True, cwd="/")
    assert done.returncode != 0
    assert "changed since it was patched: restart the container" in done.stderr


def test_a_copy_that_is_gone_is_not_passed_over(engine: Path, tmp_path: Path) -> None:
    env = overlay(engine, tmp_path)
    next((tmp_path / "run").rglob("modelopt_quant.py")).unlink()
    done = subprocess.run([engine, "-m", "fakeengine"], env=env, capture_output=True, text=True, cwd="/")
    assert done.returncode != 0 and "modelopt_quant.py" in done.stderr


def test_overlay_twice_is_the_same_and_does_not_pile_up(engine: Path, tmp_path: Path) -> None:
    first = overlay(engine, tmp_path)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.py")}
    again = overlay(engine, tmp_path, PYTHONPATH=first["PYTHONPATH"])
    assert again["PYTHONPATH"] == first["PYTHONPATH"]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.py")} == stamps


def test_half_baked_image_gets_an_overlay_of_the_rest(engine: Path, tmp_path: Path) -> None:
    """One file patched at image build, the other not: only the other is copied."""
    path = sample.source(site_of(engine))
    path.write_text(catalog.judge(catalog.MODELOPT, sample.MODELOPT, "pad").text)
    seen = run(engine, overlay(engine, tmp_path))[1]
    assert seen["quant"] == str(path) and seen["padded"] is True
    assert str(seen["model"]).startswith(str(tmp_path / "run"))

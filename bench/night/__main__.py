"""Play the night, and print what came of each fault as Markdown.

    .venv/bin/python -m bench.night --out DIR [--only WORD …]

Needs root for the scenes with a full disk and for two nodes on one machine; half an hour on two free cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.night import of_engine, of_mocker, of_slow
from bench.night.scene import SOON, Ground, Scene, Told
from entrypoint.commands.demo.model import make_demo_model


def table(played: list[tuple[Scene, Told]]) -> str:
    """One row for each fault."""
    lines = ["| fault | engine | named after | what the engineer sees | where | containers that end |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for scene, told in played:
        named = "not named" if told.seconds is None else f"{told.seconds:g} s"
        ends = ", ".join(f"{name} {code}" for name, (code, _) in told.ends.items())
        wrong = "".join(f"<br>**wrong**: {_cell(text)}" for text in scene.wrong(told))
        row = (scene.name, scene.engine, named, f"`{_cell(told.text)}`{wrong}", told.where, ends or "-")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def main() -> None:
    """Play what was asked for; a scene that breaks says so and does not keep the rest from being played.

    The table has what earlier calls with the same --out have played, too.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[""], help="scenes that have one of these words")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    model = given.out / "model"
    if not model.exists():
        make_demo_model(model)
    ground = Ground(given.out, model)
    told_of = given.out / "told.json"
    known: dict[str, Any] = json.loads(told_of.read_text()) if told_of.exists() else {}
    every = [*of_mocker.scenes(ground), *of_engine.scenes(ground), *of_slow.scenes()]
    chosen = [s for s in every if any(word in f"{s.engine}: {s.name}" for word in given.only)]
    for scene in chosen:
        began = time.monotonic()
        try:
            told = scene.play(scene, ground)
        except Exception as error:
            told = Told(text=f"the scene broke: {error!r}")
        known[scene.name] = asdict(told)
        told_of.write_text(json.dumps(known, indent=1))
        print(f"{scene.name}: {json.dumps(asdict(told))} ({time.monotonic() - began:.0f} s)", flush=True)
        for full in given.out.glob("*/full"):
            subprocess.run(["umount", full], check=False, capture_output=True)
    played = [(scene, Told(**known[scene.name])) for scene in every if scene.name in known]
    right = sum(scene.rightly(told) for scene, told in played)
    wrong = sum(bool(scene.wrong(told)) for scene, told in played)
    summary = f"{right} of {len(played)} named rightly within {SOON:g} s, {wrong} wrongly."
    text = f"{summary}\n\n{table(played)}\n"
    (given.out / "night.md").write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()

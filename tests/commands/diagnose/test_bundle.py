"""What goes into a bundle, what does not, and what two of them differ in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from entrypoint.commands.cli import cli
from entrypoint.commands.diagnose import archive
from entrypoint.commands.diagnose.bundle import LINES
from entrypoint.commands.diagnose.delta import delta
from entrypoint.commands.diagnose.redact import HIDDEN, redact, redact_json, secrets_of
from entrypoint.settings.origin import Origin
from tests.support.plans import plan, process
from tests.support.runner import Runner

CANARY = "c4naryV4lue"
PASTED = [
    f"curl -u admin:{CANARY} https://registry/v2/",
    f"docker login -p {CANARY} nvcr.io",
    f"docker login --password-stdin <<< {CANARY}",
    f"kubectl create secret generic x --from-literal=key={CANARY}",
    f'--token "{CANARY}" --tp 8',
    f"--api-key='a key with blanks, {CANARY}'",
    f"ServerArgs(api_key='{CANARY}', host='x')",
    f"postgres://service:{CANARY}@db:5432/x",
    f"redis://:{CANARY}@head:6379/0",
    f"https://user:p%40{CANARY}@host/",
    f"GET /v1/models?access_token={CANARY}&x=1",
    f"https://bucket/x?X-Amz-Signature={CANARY}&a=1",
    f"https://blob/x?sv=1&sig={CANARY}%3D",
    f"Authorization: token {CANARY}",
    f"Proxy-Authorization: Basic {CANARY}",
    f"{{'Authorization': 'Bearer {CANARY}'}}",
    f"X-Api-Key: {CANARY}",
    f"Cookie: glm47_status={CANARY}; a=b",
    f"environ({{'HF_TOKEN': '{CANARY}', 'A': '1'}})",
    f"DB_PASS={CANARY}",
    f"MYSQL_PWD={CANARY}",
    f"GITHUB_PAT={CANARY}",
    f"PGPASSWORD={CANARY} psql",
    f"client-key-data: {CANARY}",
    f"bearerToken: {CANARY}",
    f"kubernetes.io/serviceaccount token: {CANARY}",
    f"the password is {CANARY}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY-----",
]
"""As people paste them, and programs print them."""
PLACES = [
    f"etcd: ETCD_AUTH_PASSWORD={CANARY}",
    f'{{"HF_TOKEN": "{CANARY}"}}',
    f"argv: --api-key {CANARY} --tp 8",
    f'["--api-key", "{CANARY}"]',
    f"--admin-api-key={CANARY}",
    f"connecting to nats://user:{CANARY}@head:4222",
    f"https://{CANARY}@registry/v2/",
    f"Authorization: Bearer {CANARY}",
    f"'authorization': 'Basic {CANARY}'",
    f"curl -H 'Authorization: Bearer {CANARY}'",
    f"nats_token: {CANARY}",
    f"secret='{CANARY}'",
    f"password = {CANARY}",
    f"AWS_SECRET_ACCESS_KEY={CANARY}",
    f"using hf_{CANARY} for downloads",
    f"nvapi-{CANARY}",
    f"eyJhbGciOiJIUzI1NiJ9.{CANARY}.abcdefgh",
    *PASTED,
]
HARMLESS = [
    "Decode batch. #running-req: 1, #token: 4096, token usage: 0.12, gen throughput (token/s): 88.31",
    "Prefill batch, #new-seq: 1, #new-token: 8192, #cached-token: 0",
    "max_total_num_tokens=4096, chunked_prefill_size=8192, tokenizer_path='/model'",
    "server_args: --tokenizer-worker-num 1 --max-prefill-tokens 16384",
    "http://head:8000/v1/models",
    "first token after 1.2 s",
    "etcd is ready after 0.3 s; author of the config: nobody",
]


@pytest.mark.parametrize("line", PLACES)
def test_a_secret_is_taken_out_wherever_it_stands(line: str) -> None:
    assert CANARY not in redact(line, ()) and HIDDEN in redact(line, ())


def test_json_stays_json_and_loses_its_secrets() -> None:
    given = {
        "argv": ["x", "--api-key", CANARY, "--tp", "8"],
        "env": {"HF_TOKEN": CANARY, "A": "1"},
        "n": [1, None],
    }
    for text in (
        json.dumps(given),
        json.dumps(given) + "\n" + json.dumps({"line": f"token={CANARY}"}) + "\n",
    ):
        clean = redact_json(text, ())
        assert CANARY not in clean
        lines = [clean] if clean.count("\n{") == 0 and clean.startswith("{\n") else clean.splitlines()
        first = json.loads(lines[0])
        assert first["argv"] == ["x", "--api-key", HIDDEN, "--tp", "8"]
        assert first["env"] == {"HF_TOKEN": HIDDEN, "A": "1"} and first["n"] == [1, None]


@pytest.mark.parametrize("line", HARMLESS)
def test_what_only_speaks_of_tokens_stays(line: str) -> None:
    assert redact(line, ()) == line


def test_values_of_this_environment_are_taken_out_without_their_names() -> None:
    environ = {"GLM47_ETCD_PASSWORD": CANARY, "HF_TOKEN": "short", "PATH": "/usr/bin", "GLM47_TP": "8"}
    assert secrets_of(environ) == (CANARY,)
    assert redact(f"tried {CANARY!r} in /usr/bin", secrets_of(environ)) == f"tried '{HIDDEN}' in /usr/bin"


def run(tmp_path: Path, name: str, **settings: str) -> Path:
    """The logs of a runner whose process talks of secrets and ends badly."""
    log_dir = tmp_path / name
    words = "\n".join(PLACES)
    (tmp_path / "words").write_text(words)
    end = f"echo plain {CANARY}2; echo 'KeyError: lm_head'; exit 3"
    command = f"seq {LINES + 5000}; cat {tmp_path / 'words'}; {end}"
    made = plan(process("decode", argv=("sh", "-c", command)), log_dir=str(log_dir))
    made = replace(made, settings={k: Origin(v, "environment") for k, v in settings.items()})
    with Runner.of_plan(made, tmp_path) as runner:
        assert runner.wait() == 3
    (log_dir / "decode.20261129T000000Z.stacks").write_text(f"stacks\npassword={CANARY}\n")
    (log_dir / "failure").write_text(f"3 decode ended: token={CANARY}\n")
    return log_dir


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.zst", "tzst"])
def test_a_bundle_has_everything_but_secrets(tmp_path: Path, suffix: str) -> None:
    log_dir, out = run(tmp_path, "logs", GLM47_TP="8"), tmp_path / f"out.{suffix}"
    done = CliRunner().invoke(
        cli, ["diagnose", str(log_dir), "--bundle", str(out)], env={"MY_TOKEN": f"{CANARY}2"}
    )
    assert done.exit_code == 0, done.output
    assert out.read_bytes()[:2] == (b"\x1f\x8b" if suffix == "tar.gz" else b"\x28\xb5")
    with archive.reading(out) as tar:
        texts = {m.name: (tar.extractfile(m) or out.open("rb")).read().decode() for m in tar.getmembers()}
    names = {name.removeprefix("bundle/") for name in texts}
    assert names >= {
        "diagnosis.txt",
        "diagnosis.json",
        "decode.log",
        "runner.log",
        "runner.events.jsonl",
        "failure",
    }
    assert any(name.endswith(".stacks") for name in names)
    assert not [name for name, text in texts.items() if CANARY in text]
    log = texts["bundle/decode.log"]
    # A private key of three lines has become one.
    assert len(log.splitlines()) == LINES - 2 and "decode | 14999\n" in log and "decode | 4000\n" not in log
    assert "first cause: decode: KeyError: lm_head" in texts["bundle/diagnosis.txt"]
    events = [json.loads(line) for line in texts["bundle/runner.events.jsonl"].splitlines()]
    written = next(e["plan"] for e in events if "plan" in e)
    assert written["settings"]["GLM47_TP"] == {"value": "8", "origin": "environment"}
    assert next(e["machine"] for e in events if "machine" in e)["kernel"]


def test_two_runs_differ_in_what_was_changed_and_nothing_else(tmp_path: Path) -> None:
    one, other = run(tmp_path, "a", GLM47_TP="8"), run(tmp_path, "b", GLM47_TP="4", GLM47_DP="2")
    out = tmp_path / "a.tar.gz"
    assert CliRunner().invoke(cli, ["diagnose", str(one), "--bundle", str(out)]).exit_code == 0
    lines = [line for line in delta(out, other) if ".ports." not in line]
    assert lines == [
        "plan.settings.GLM47_DP.origin: (not there) -> environment",
        "plan.settings.GLM47_DP.value: (not there) -> 2",
        "plan.settings.GLM47_TP.value: 8 -> 4",
    ]
    assert delta(out, one) == []


def test_another_driver_release_and_node_are_differences(tmp_path: Path) -> None:
    """By file of events, as each node of a job leaves one."""

    def leave(name: str, node: str, version: str, driver: str, tp: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        machine = {"machine": {"driver": driver, "host": node}, "engine": {"sglang": version}}
        events: list[dict[str, Any]] = [
            {"version": "1"},
            machine,
            {"plan": {"settings": {"GLM47_TP": {"value": tp}}}},
        ]
        text = "".join(json.dumps({"ts": "2026-11-29T00:00:00Z", **event}) + "\n" for event in events)
        (tmp_path / name / f"{node}_runner.events.jsonl").write_text(text)

    for node in ("n1", "n2"):
        leave("a", node, "0.5.6", "580.1", "8")
    leave("b", "n1", "0.5.6", "580.1", "8")
    leave("b", "n3", "0.5.9", "590.2", "8")
    lines = delta(tmp_path / "a", tmp_path / "b")
    assert "nodes: n1, n2 -> n1, n3" in lines
    assert "n3: machine.driver: (not there) -> 590.2" in lines, lines
    assert "n3: engine.sglang: (not there) -> 0.5.9" in lines
    assert not any("GLM47_TP" in line for line in lines)


def test_a_bundle_of_another_kind_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for name in ("out.zip", "out", "out.zst", "out.tar"):
        done = CliRunner().invoke(cli, ["diagnose", str(tmp_path), "--bundle", str(tmp_path / name)])
        said = f"cannot write a bundle: {tmp_path / name}: name it FILE.tar.zst or FILE.tar.gz"
        assert done.exit_code == 78 and said in done.output, done.output


def test_what_is_no_bundle_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_text("no")
    done = CliRunner().invoke(cli, ["diagnose", "--delta", str(tmp_path / "x.tar.gz"), str(tmp_path)])
    assert done.exit_code == 78 and done.output.startswith("glm47-runner: cannot read "), done.output

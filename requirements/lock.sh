#!/usr/bin/env bash
# Writes the lock files anew: hashes, no download addresses. Needs uv.
set -euo pipefail
cd "$(dirname "$0")/.."
compile=(uv pip compile --quiet --universal --python-version 3.10 --generate-hashes
	--no-emit-index-url --no-header --no-annotate)
"${compile[@]}" pyproject.toml -o requirements/runner.txt
"${compile[@]}" pyproject.toml requirements/dev.in -c requirements/runner.txt -o requirements/dev.txt
"${compile[@]}" requirements/build.in -c requirements/dev.txt -o requirements/build.txt
"${compile[@]}" requirements/engine.in -o requirements/engine.txt
"${compile[@]}" requirements/bench.in -o requirements/bench.txt

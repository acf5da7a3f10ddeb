#!/usr/bin/env bash
# Writes the lock files anew: hashes, no download addresses. Needs uv.
set -euo pipefail
cd "$(dirname "$0")/.."
for_python=(uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate
	--python-version)
compile=("${for_python[@]}" 3.10)
"${compile[@]}" pyproject.toml -o requirements/runner.txt
"${compile[@]}" pyproject.toml requirements/dev.in -c requirements/runner.txt -o requirements/dev.txt
"${compile[@]}" requirements/build.in -c requirements/dev.txt -o requirements/build.txt
"${compile[@]}" requirements/engine.in -o requirements/engine.txt
"${compile[@]}" requirements/bench.in -o requirements/bench.txt
"${compile[@]}" requirements/checkov.in -o requirements/checkov.txt
for release in 0.5.6.post2 0.5.14 0.5.23; do
	"${for_python[@]}" 3.11 --no-deps "requirements/cpu-engine-$release.in" \
		-o "requirements/cpu-engine-$release.txt"
done
# Dynamo with the mocker, beside the pinned release in engine.txt.
for release in 0.9.1 1.0.2 1.1.1 1.2.1 1.3.1 1.4.2 1.5.1 1.6.1; do
	echo "ai-dynamo==$release" | "${compile[@]}" - --overrides requirements/dynamo-overrides.in \
		-o "requirements/dynamo-$release.txt"
done

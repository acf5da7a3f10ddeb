#!/usr/bin/env bash
# Prints the directory of a real Kubernetes for the tests, built from Debian 12's source package and with
# Debian 12's Go, neither of which is installed: kube-apiserver, kube-controller-manager, kube-scheduler,
# kubelet, kube-proxy, kubectl and pause. Debian packages no other release as a whole.
# Takes 5 minutes on two cores, once: GLM47_KUBERNETES_CACHE (default ~/.cache/glm47-runner) keeps the result.
set -euo pipefail

version=1.20.5+really1.20.2-1.1+deb12u1
go=1.19
suite=bookworm
commands=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl)
here=$(dirname "$(readlink -f "$0")")
recipe=$(sha256sum "$0" | cut -c 1-12)
root=${GLM47_KUBERNETES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/glm47-runner}
result=$root/kubernetes-$recipe

# One at a time: tests run in several processes.
mkdir -p "$root"
exec 9>"$root/lock"
flock 9
if [ -d "$result" ]; then
	echo "$result"
	exit 0
fi

work=$(mktemp -d "$root/build.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
mkdir "$work/bin"
# shellcheck source=tests/k8s/debian.sh
. "$here/debian.sh"
apt=()
if ! debian "$work" "$suite" deb deb-src; then
	echo "cannot build Kubernetes: no Debian mirror is configured, or it does not answer" >&2
	exit 1
fi

fetch() {
	cd "$work"
	apt-get "${apt[@]}" download "golang-$go-go" "golang-$go-src"
	for package in golang-*.deb; do
		dpkg-deb -x "$package" "$work/go"
	done
	apt-get "${apt[@]}" source --download-only "kubernetes=$version"
	mkdir -p "$GOPATH/src/k8s.io/kubernetes"
	tar -xf kubernetes_*.orig.tar.gz -C "$GOPATH/src/k8s.io/kubernetes" --strip-components=1
}

# The API descriptions are not in the source package: made here, as its Makefile would.
described() { # directories under vendor/k8s.io whose types are described
	(cd vendor/k8s.io && grep -rl --include='*.go' '+k8s:openapi-gen=' "$@" |
		xargs -n 1 dirname | grep -v /_examples | sort -u | sed "s|^|$vendor/|" | paste -sd,)
}
describe() { # describe PACKAGE INPUTS
	"$work/bin/openapi-gen" --logtostderr --input-dirs "$2" --output-package "$1" \
		--output-file-base zz_generated.openapi --report-filename /dev/null \
		--go-header-file vendor/k8s.io/code-generator/hack/boilerplate.go.txt
}

build() {
	cd "$GOPATH/src/k8s.io/kubernetes"
	local vendor=k8s.io/kubernetes/vendor/k8s.io common types=()
	# It gives every pod's sandbox a lower OOM score than its own, which a machine without CAP_SYS_RESOURCE
	# (many a CI machine) refuses.
	sed -i 's/defaultSandboxOOMAdj int = -998/defaultSandboxOOMAdj int = 0/' pkg/kubelet/dockershim/docker_sandbox.go
	go build -o "$work/bin/" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
	common=$vendor/apimachinery/pkg/apis/meta/v1,$vendor/apimachinery/pkg/runtime,$vendor/apimachinery/pkg/version
	for directory in vendor/k8s.io/*/; do
		case $directory in */code-generator/ | */sample-*) ;; *) types+=("$(basename "$directory")/") ;; esac
	done
	describe k8s.io/kubernetes/pkg/generated/openapi "$(described "${types[@]}")"
	describe "$vendor/kube-aggregator/pkg/generated/openapi" "$common,$(described kube-aggregator/)"
	describe "$vendor/apiextensions-apiserver/pkg/generated/openapi" \
		"$common,$vendor/api/autoscaling/v1,$(described apiextensions-apiserver/)"
	mkdir "$work/result"
	go build -ldflags "-s -w -X $vendor/component-base/version.gitVersion=v1.20.2" -o "$work/result/" \
		"${commands[@]/#/./cmd/}"
	# What a pod's sandbox runs: nothing, until it is told to go.
	cat >"$work/pause.go" <<-'GO'
		package main

		import (
			"os"
			"os/signal"
			"syscall"
		)

		func main() {
			told := make(chan os.Signal, 1)
			signal.Notify(told, syscall.SIGINT, syscall.SIGTERM)
			<-told
		}
	GO
	go build -ldflags '-s -w' -o "$work/result/pause" "$work/pause.go"
}

{
	export GOROOT=$work/go/usr/lib/go-$go GOPATH=$work/gopath GOCACHE=$work/cache GOFLAGS='' GO111MODULE=off
	export CGO_ENABLED=0 PATH=$work/go/usr/lib/go-$go/bin:$PATH
	fetch
	build
	mv "$work/result" "$result"
} >&2
echo "$result"

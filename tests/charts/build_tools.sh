#!/usr/bin/env bash
# build_tools.sh [--check] FOLDER: builds helm, kubeconform and compose-spec into FOLDER, and puts the definitions of the
# Prometheus operator's kinds beside them, from the Go modules that go.mod and go.sum pin by version and hash. With
# --check it only says by its exit code whether FOLDER holds exactly these.
#
# Where the folder is, and what happens without it, is decided in tools.py. A second run waits for the first and finds
# everything done. The stamp comes last, so a folder whose stamp fits is whole, wherever a build was interrupted.
set -euo pipefail

check=
[ "${1:-}" != --check ] || { check=yes; shift; }
[ $# -eq 1 ] || { echo "usage: $0 [--check] FOLDER" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
own=$here/modules
shared=$here/../node/modules
say() { echo "build_tools: $*" >&2; }

wanted=$(cat "$own"/*/go.{mod,sum} "$shared"/{helm,kubeconform}/go.{mod,sum} "$0" | sha256sum | cut -c -16)
is_built() { [ "$(cat "$1/stamp" 2>/dev/null)" = "$wanted" ]; }
if [ "$check" ]; then is_built "$1"; exit; fi

mkdir -p "$1"
folder=$(cd "$1" && pwd)
command -v flock >/dev/null || { say "flock is missing. On Debian: apt-get install util-linux"; exit 1; }
exec 9>"$folder/.lock"
flock --nonblock 9 || { say "another run builds into $folder; waiting for it"; flock 9; }
if is_built "$folder"; then say "$folder holds the chart's tools already"; exit 0; fi

# An older Go fetches the toolchain that go.mod asks for by itself; 1.23 is the oldest that was tried.
go_help="On Debian 13: apt-get install golang-go; on Debian 12 the same with -t bookworm-backports."
command -v go >/dev/null || { say "go >= 1.23 is missing. $go_help"; exit 1; }
go_version=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
printf 'go1.23\n%s\n' "$go_version" | sort --version-sort --check=quiet ||
  { say "go >= 1.23 is missing: $(command -v go) is $go_version. $go_help"; exit 1; }
# Distributions set it to local, which refuses a module that wants a newer Go.
export GOTOOLCHAIN=${GOTOOLCHAIN:-auto}

aside=$folder/.building
trap 'rm -rf "$aside"' EXIT
rm -rf "$aside" "$folder/stamp"
mkdir "$aside"

build() { # folder of go.mod, how long with empty Go caches, package, name
  say "building $4 ($2 on 2 cores with empty Go caches) ..."
  (cd "$1" && CGO_ENABLED=0 GOWORK=off go build -mod=readonly -buildvcs=false -trimpath -ldflags "-s -w" \
    -o "$aside/$4" "$3")
}
build "$shared/helm" "about 2 minutes" helm.sh/helm/v4/cmd/helm helm
build "$shared/kubeconform" "less than a minute" github.com/yannh/kubeconform/cmd/kubeconform kubeconform
build "$own/compose" "less than a minute" github.com/compose-spec/compose-go/v2/cmd compose-spec

operator=github.com/prometheus-operator/prometheus-operator
sources=$(cd "$own/prometheus-operator" && export GOWORK=off && go mod download "$operator" >&2 &&
  go list -m -f '{{.Dir}}' "$operator")
for kind in podmonitors prometheusrules; do
  install -m 644 "$sources/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$aside/"
done
mv "$aside"/* "$folder/"
echo "$wanted" >"$folder/stamp"
say "$folder holds helm, kubeconform, compose-spec and two definitions"

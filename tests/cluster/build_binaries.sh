#!/usr/bin/env bash
# build_binaries.sh [--check] FOLDER: builds etcd, kube-apiserver and kubectl into FOLDER, from the Go modules that
# control_plane_module/go.mod and go.sum pin by version and hash. With --check it only says by its exit code whether
# FOLDER holds exactly these.
#
# Where the folder is, and what happens without it, is decided in binaries.py; control_plane.py starts them.
# A second run waits for the first and finds everything done. Binaries move into place one by one and the stamp
# comes last, so a folder whose stamp fits is whole, wherever a build was interrupted.
set -euo pipefail

check=
[ "${1:-}" != --check ] || { check=yes; shift; }
[ $# -eq 1 ] || { echo "usage: $0 [--check] FOLDER" >&2; exit 2; }
module=$(cd "$(dirname "$0")/control_plane_module" && pwd)
say() { echo "build_binaries: $*" >&2; }

pinned() { awk -v module="$1" '$1 == module && $2 ~ /^v/ { print $2 }' "$module/go.mod"; }
kubernetes=$(pinned k8s.io/kubernetes)
etcd=$(pinned go.etcd.io/etcd/server/v3)
wanted="kubernetes $kubernetes, etcd $etcd, $(cat "$module/go.mod" "$module/go.sum" "$0" | sha256sum | cut -c -16)"
is_built() { [ "$(cat "$1/stamp" 2>/dev/null)" = "$wanted" ]; }
if [ "$check" ]; then is_built "$1"; exit; fi

mkdir -p "$1"
folder=$(cd "$1" && pwd)
command -v flock >/dev/null || { say "flock is missing. On Debian: apt-get install util-linux"; exit 1; }
exec 9>"$folder/.lock"
flock --nonblock 9 || { say "another run builds into $folder; waiting for it"; flock 9; }
if is_built "$folder"; then say "$folder holds $wanted"; exit 0; fi

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

minor=${kubernetes#v1.}
linker_flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  linker_flags+=" -X $package.gitVersion=$kubernetes -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
done

build() { # name, package, how long with empty Go caches
  say "building $1 ($3 on 2 cores with empty Go caches) ..."
  (cd "$module" && CGO_ENABLED=0 GOWORK=off go build -mod=readonly -buildvcs=false -trimpath \
    -ldflags "$linker_flags" -o "$aside/$1" "$2")
  mv "$aside/$1" "$folder/$1"
}
build etcd go.etcd.io/etcd/server/v3 "about 1 minute"
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver "about 4 minutes"
build kubectl k8s.io/kubernetes/cmd/kubectl "about 1 minute"
echo "$wanted" >"$folder/stamp"
say "$folder holds $wanted"

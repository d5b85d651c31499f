#!/usr/bin/env bash
# build_binaries.sh [--check] FOLDER: builds what a node has beside its control plane, and helm and kubeconform, into
# FOLDER, from the Go modules that modules/*/go.mod and go.sum pin by version and hash. With --check it only says by its
# exit code whether FOLDER holds exactly these.
#
# The control plane is built by ../cluster/build_binaries.sh; where the folders are is decided in binaries.py. A second
# run waits for the first and finds everything done. The stamp comes last, so a folder whose stamp fits is whole,
# wherever a build was interrupted.
set -euo pipefail

check=
[ "${1:-}" != --check ] || { check=yes; shift; }
[ $# -eq 1 ] || { echo "usage: $0 [--check] FOLDER" >&2; exit 2; }
modules=$(cd "$(dirname "$0")/modules" && pwd)
say() { echo "build_binaries: $*" >&2; }

wanted=$(cat "$modules"/*/go.mod "$modules"/*/go.sum "$0" | sha256sum | cut -c -16)
is_built() { [ "$(cat "$1/stamp" 2>/dev/null)" = "$wanted" ]; }
if [ "$check" ]; then is_built "$1"; exit; fi

mkdir -p "$1"
folder=$(cd "$1" && pwd)
command -v flock >/dev/null || { say "flock is missing. On Debian: apt-get install util-linux"; exit 1; }
exec 9>"$folder/.lock"
flock --nonblock 9 || { say "another run builds into $folder; waiting for it"; flock 9; }
if is_built "$folder"; then say "$folder holds the node's binaries already"; exit 0; fi

# An older Go fetches the toolchain that go.mod asks for by itself; 1.23 is the oldest that was tried.
go_help="On Debian 13: apt-get install golang-go; on Debian 12 the same with -t bookworm-backports."
command -v go >/dev/null || { say "go >= 1.23 is missing. $go_help"; exit 1; }
go_version=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
printf 'go1.23\n%s\n' "$go_version" | sort --version-sort --check=quiet ||
  { say "go >= 1.23 is missing: $(command -v go) is $go_version. $go_help"; exit 1; }
# runc filters system calls with libseccomp; a pod under Pod Security `restricted` asks for that.
for part in gcc:gcc pkg-config:pkg-config; do
  command -v "${part%:*}" >/dev/null || { say "${part%:*} is missing. On Debian: apt-get install ${part#*:}"; exit 1; }
done
pkg-config --exists libseccomp || { say "libseccomp's headers are missing. On Debian: apt-get install libseccomp-dev"; exit 1; }
# Distributions set it to local, which refuses a module that wants a newer Go.
export GOTOOLCHAIN=${GOTOOLCHAIN:-auto}

aside=$folder/.building
trap 'rm -rf "$aside"' EXIT
rm -rf "$aside" "$folder/stamp"
mkdir "$aside" "$aside/cni"

version=$(sed -nE 's#^(require )?[[:space:]]*k8s.io/kubernetes (v[0-9.]+)$#\2#p' "$modules/kubernetes/go.mod")
minor=${version#v1.}
kubernetes_flags=
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  kubernetes_flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
done

build() { # module, how long with empty Go caches, folder to build into, linker flags, packages
  local module=$1 to=$3 flags=$4
  say "building $module ($2 on 2 cores with empty Go caches) ..."
  shift 4
  (cd "$modules/$module" && CGO_ENABLED=1 GOWORK=off go build -mod=readonly -buildvcs=false -trimpath -tags seccomp \
    -ldflags "-s -w$flags" -o "$to/" "$@")
}
build kubernetes "about 6 minutes" "$aside" "$kubernetes_flags" \
  k8s.io/kubernetes/cmd/{kubelet,kube-controller-manager,kube-scheduler}
build containerd "about 2 minutes" "$aside" "" \
  github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}
build runc "less than a minute" "$aside" "" github.com/opencontainers/runc
build cni-plugins "less than a minute" "$aside/cni" "" \
  github.com/containernetworking/plugins/plugins/{main/bridge,main/loopback,ipam/host-local}
build helm "about 2 minutes" "$aside" "" helm.sh/helm/v4/cmd/helm
build kubeconform "less than a minute" "$aside" "" github.com/yannh/kubeconform/cmd/kubeconform
# The sandbox of every pod: the first process of a shared process namespace, which reaps what the others leave.
kubernetes_folder=$(cd "$modules/kubernetes" && GOWORK=off go list -mod=readonly -m -f '{{.Dir}}' k8s.io/kubernetes)
gcc -Os -static -s -DVERSION="$version" -o "$aside/pause" "$kubernetes_folder/build/pause/linux/pause.c"
rm -rf "$folder/cni"
mv "$aside"/* "$folder/"
echo "$wanted" >"$folder/stamp"
say "$folder holds Kubernetes $version"

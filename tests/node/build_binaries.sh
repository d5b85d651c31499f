#!/usr/bin/env bash
# build_binaries.sh [--check] FOLDER: builds what a node has beside its control plane, and helm and kubeconform, into
# FOLDER, from the Go modules that modules/*/go.mod and go.sum pin by version and hash. With --check it only says by its
# exit code whether FOLDER holds exactly these. The control plane is built by ../cluster/build_binaries.sh; where the
# folders are is decided in binaries.py.
set -euo pipefail
modules=$(cd "$(dirname "$0")/modules" && pwd)
. "$(dirname "$0")/../go_build.sh"

version=$(sed -nE 's#^(require )?[[:space:]]*k8s.io/kubernetes (v[0-9.]+)$#\2#p' "$modules/kubernetes/go.mod")
begin_build "the binaries of a node of Kubernetes $version" "$modules"/*/go.{mod,sum} -- "$@"
# runc filters system calls with libseccomp; a pod under Pod Security `restricted` asks for that.
need gcc gcc
need pkg-config pkg-config
pkg-config --exists libseccomp || { say "libseccomp's headers are missing. On Debian: apt-get install libseccomp-dev"; exit 1; }
mkdir "$aside/cni"

export CGO_ENABLED=1 TAGS=seccomp
go_build "about 6 minutes" "$modules/kubernetes" "$(kubernetes_flags "$version")" "$aside/" \
  k8s.io/kubernetes/cmd/{kubelet,kube-controller-manager,kube-scheduler}
go_build "about 2 minutes" "$modules/containerd" "" "$aside/" \
  github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}
go_build "less than a minute" "$modules/runc" "" "$aside/" github.com/opencontainers/runc
go_build "less than a minute" "$modules/cni-plugins" "" "$aside/cni/" \
  github.com/containernetworking/plugins/plugins/{main/bridge,main/loopback,ipam/host-local}
go_build "about 2 minutes" "$modules/helm" "" "$aside/" helm.sh/helm/v4/cmd/helm
go_build "less than a minute" "$modules/kubeconform" "" "$aside/" github.com/yannh/kubeconform/cmd/kubeconform
# The sandbox of every pod: the first process of a shared process namespace, which reaps what the others leave.
kubernetes_folder=$(cd "$modules/kubernetes" && go list -mod=readonly -m -f '{{.Dir}}' k8s.io/kubernetes)
gcc -Os -static -s -DVERSION="$version" -o "$aside/pause" "$kubernetes_folder/build/pause/linux/pause.c"
rm -rf "$folder/cni"
end_build

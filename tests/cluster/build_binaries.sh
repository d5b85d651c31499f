#!/usr/bin/env bash
# build_binaries.sh [--check] FOLDER: builds etcd, kube-apiserver and kubectl into FOLDER, from the Go modules that
# control_plane_module/go.mod and go.sum pin by version and hash. With --check it only says by its exit code whether
# FOLDER holds exactly these. Where the folder is, and what happens without it, is decided in binaries.py;
# control_plane.py starts them.
set -euo pipefail
module=$(cd "$(dirname "$0")/control_plane_module" && pwd)
. "$(dirname "$0")/../go_build.sh"

kubernetes=$(pinned "$module/go.mod" k8s.io/kubernetes)
etcd=$(pinned "$module/go.mod" go.etcd.io/etcd/server/v3)
begin_build "kubernetes $kubernetes, etcd $etcd" "$module"/go.{mod,sum} -- "$@"
flags=$(kubernetes_flags "$kubernetes")
go_build "about 1 minute" "$module" "" "$aside/etcd" go.etcd.io/etcd/server/v3
go_build "about 4 minutes" "$module" "$flags" "$aside/kube-apiserver" k8s.io/kubernetes/cmd/kube-apiserver
go_build "about 1 minute" "$module" "$flags" "$aside/kubectl" k8s.io/kubernetes/cmd/kubectl
end_build

#!/usr/bin/env bash
# build_tools.sh [--check] FOLDER: builds helm, kubeconform and compose-spec into FOLDER, and puts the definitions of the
# Prometheus operator's kinds beside them, from the Go modules that go.mod and go.sum pin by version and hash. With
# --check it only says by its exit code whether FOLDER holds exactly these. Where the folder is, and what happens
# without it, is decided in tools.py.
set -euo pipefail
own=$(cd "$(dirname "$0")/modules" && pwd)
shared=$(cd "$(dirname "$0")/../node/modules" && pwd)
. "$(dirname "$0")/../go_build.sh"

begin_build "helm, kubeconform, compose-spec and two definitions" \
  "$own"/*/go.{mod,sum} "$shared"/{helm,kubeconform}/go.{mod,sum} -- "$@"
go_build "about 2 minutes" "$shared/helm" "" "$aside/helm" helm.sh/helm/v4/cmd/helm
go_build "less than a minute" "$shared/kubeconform" "" "$aside/kubeconform" github.com/yannh/kubeconform/cmd/kubeconform
go_build "less than a minute" "$own/compose" "" "$aside/compose-spec" github.com/compose-spec/compose-go/v2/cmd

operator=github.com/prometheus-operator/prometheus-operator
sources=$(cd "$own/prometheus-operator" && go mod download "$operator" >&2 && go list -m -f '{{.Dir}}' "$operator")
for kind in podmonitors prometheusrules; do
  install -m 644 "$sources/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$aside/"
done
end_build

# Sourced by the scripts that build pinned Go programs for tests: into a folder that is whole or has no stamp.
#
# Covers: the arguments [--check] FOLDER, the lock, the stamp, the oldest Go, the folder aside. Does not cover which
# modules, packages and flags: that is each script's own. A second run waits for the first and finds everything done;
# the stamp comes last, so a folder whose stamp fits is whole, wherever a build was interrupted.
# Neighbours: cluster/build_binaries.sh, node/build_binaries.sh, charts/build_tools.sh.

say() { echo "$(basename "$0" .sh): $*" >&2; }
need() { # program, package of Debian
  command -v "$1" >/dev/null || { say "$1 is missing. On Debian: apt-get install $2"; exit 1; }
}
pinned() { awk -v module="$2" '$1 == module && $2 ~ /^v/ { print $2 }' "$1"; } # go.mod, module: its version

# Ends the script where FOLDER is built already, and with --check in any case. Else sets `folder`, and holds its lock.
begin_build() { # what is built, for people; files it is built from; --; the script's own arguments
  what=$1 inputs=() check=
  shift
  while [ "$1" != -- ]; do inputs+=("$1"); shift; done
  shift
  [ "${1:-}" != --check ] || { check=yes; shift; }
  [ $# -eq 1 ] || { echo "usage: $0 [--check] FOLDER" >&2; exit 2; }
  wanted="$what, $(cat "${inputs[@]}" "$0" "${BASH_SOURCE[0]}" | sha256sum | cut -c -16)"
  if [ "$check" ]; then _is_built "$1" && exit 0; exit 1; fi
  mkdir -p "$1"
  folder=$(cd "$1" && pwd)
  need flock util-linux
  exec 9>"$folder/.lock"
  flock --nonblock 9 || { say "another run builds into $folder; waiting for it"; flock 9; }
  if _is_built "$folder"; then say "$folder holds $wanted"; exit 0; fi
  _check_go
  aside=$folder/.building
  trap 'rm -rf "$aside"' EXIT
  rm -rf "$aside" "$folder/stamp"
  mkdir "$aside"
}
_is_built() { [ "$(cat "$1/stamp" 2>/dev/null)" = "$wanted" ]; }

# An older Go fetches the toolchain that go.mod asks for by itself; 1.23 is the oldest that was tried.
_check_go() {
  local help="On Debian 13: apt-get install golang-go; on Debian 12 the same with -t bookworm-backports." version
  command -v go >/dev/null || { say "go >= 1.23 is missing. $help"; exit 1; }
  version=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
  printf 'go1.23\n%s\n' "$version" | sort --version-sort --check=quiet ||
    { say "go >= 1.23 is missing: $(command -v go) is $version. $help"; exit 1; }
  # Distributions set it to local, which refuses a module that wants a newer Go.
  export GOTOOLCHAIN=${GOTOOLCHAIN:-auto} GOWORK=off
}

go_build() { # how long with empty Go caches, folder of go.mod, more linker flags, file or folder/ to build, packages
  local long=$1 module=$2 flags=$3 to=$4 names
  shift 4
  case $to in */) names=${*##*/} ;; *) names=${to##*/} ;; esac
  say "building $names ($long on 2 cores with empty Go caches) ..."
  (cd "$module" && CGO_ENABLED=${CGO_ENABLED:-0} go build -mod=readonly -buildvcs=false -trimpath ${TAGS:+-tags "$TAGS"} \
    -ldflags "-s -w$flags" -o "$to" "$@")
}

# What Kubernetes' programs say as their version, which is otherwise set by their own build.
kubernetes_flags() { # version
  local minor=${1#v1.} package
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf ' -X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s' \
      "$package" "$1" "$package" "$package" "${minor%%.*}"
  done
}

end_build() {
  mv "$aside"/* "$folder/"
  echo "$wanted" >"$folder/stamp"
  say "$folder holds $wanted"
}

#!/usr/bin/env bash
# sandbox_init.sh FOLDER: the first process of a node's own process and mount namespace. Makes the places that kubelet
# and containerd write to private, says so by FOLDER/ready, and then reaps; when it is killed, everything inside ends.
set -euo pipefail
folder=$1

# Snapshots, logs, network leases: written to FOLDER instead.
mkdir -p "$folder/var" "$folder/var-work"
mount -t overlay overlay -o "lowerdir=/var,upperdir=$folder/var,workdir=$folder/var-work" /var
mount -t tmpfs tmpfs /run

# The kubelet wants these kernel settings and would set them for the whole machine; here it finds them as it wants them.
setting() { # name, value
  [ -e "/proc/sys/$1" ] || return 0
  local file="$folder/sysctl-${1//\//-}"
  echo "$2" >"$file"
  mount --bind "$file" "/proc/sys/$1"
}
setting vm/overcommit_memory 1
setting vm/panic_on_oom 0
setting kernel/panic 10
setting kernel/panic_on_oops 1
setting kernel/keys/root_maxkeys 1000000
setting kernel/keys/root_maxbytes 25000000

touch "$folder/ready"
sleep infinity &
wait $!

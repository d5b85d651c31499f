#!/bin/busybox sh
# Process 1 of the emulated machine: the host's root at /host, read-only, a scratch disk at /mnt, the results folder in it, and
# cgroup v2 with every controller. Runs /mnt/results/run.sh, writes its exit code beside it, and switches off.
/bin/busybox --install -s /bin
trap 'sync; poweroff -f' EXIT
set -e
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "/modules/$module"
done < /modules/order
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 root /host
mount -t ext4 /dev/vda /host/mnt
mkdir -p /host/mnt/tmp /host/mnt/results
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 results /host/mnt/results
mount --move /proc /host/proc
mount --move /sys /host/sys
mount --move /dev /host/dev
mkdir -p /host/dev/shm
mount -t tmpfs tmpfs /host/dev/shm
mount -t cgroup2 cgroup2 /host/sys/fs/cgroup
ip link set lo up
status=0
chroot /host /bin/sh /mnt/results/run.sh || status=$?
echo "$status" > /host/mnt/results/exit_code

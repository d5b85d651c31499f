#!/bin/busybox sh
# Process 1 of the emulated machine: the host's root, read-only, a scratch disk at /mnt, the results folder in it, and
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
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 root /root
mount -t ext4 /dev/vda /root/mnt
mkdir -p /root/mnt/tmp /root/mnt/results
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 results /root/mnt/results
mount --move /proc /root/proc
mount --move /sys /root/sys
mount --move /dev /root/dev
mkdir -p /root/dev/shm
mount -t tmpfs tmpfs /root/dev/shm
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
ip link set lo up
status=0
chroot /root /bin/sh /mnt/results/run.sh || status=$?
echo "$status" > /root/mnt/results/exit_code

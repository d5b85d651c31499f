"""What the kernel says of a process and its memory cgroup, read and never interpreted."""

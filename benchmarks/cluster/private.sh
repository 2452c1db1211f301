# Sourced by the first process of new namespaces: what the head or a host has of its own, besides the
# network. $CLUSTER_HOSTS is where the head writes which process is which host; it becomes a
# folder in memory that nobody else sees.
hostname "$name"
mount -t proc proc /proc
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs "$CLUSTER_HOSTS"
mkdir "$TMPDIR"
ip link set lo up

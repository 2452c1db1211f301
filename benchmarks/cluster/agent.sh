#!/bin/sh
# agent.sh HOST COMMAND...: on the head, what ssh is between real machines. $CLUSTER_HOSTS/HOST
# holds the process whose namespaces are the host. Unlike ssh it hands on environment and folder.
set -e
while [ "${1#-}" != "$1" ]; do shift; done # options of ssh
pid=$(cat "$CLUSTER_HOSTS/$1")
shift
exec nsenter --target "$pid" --net --uts --ipc --mount --pid="/proc/$pid/ns/pid_for_children" \
  sh -c "cd '$PWD' && $*"

#!/bin/sh
# host.sh NAME: an emulated host, the first process of its namespaces. The head gives it its link.
set -e
name=$1
. "$(dirname "$0")/private.sh"
sleep infinity &
wait

#!/bin/sh
# head.sh NAME HOSTS RATE BURST: the head of a cluster, the first process of its namespaces.
# Makes the switch and the hosts, says "ready", and lives until it is killed. BURST is in bytes.
set -e
name=$1 hosts=$2 rate=$3 burst=$4
folder=$(dirname "$0")
spaces="--net --uts --ipc --mount --pid --fork --kill-child"
. "$folder/private.sh"
own=$(readlink /proc/self/ns/net)

# At each end of a link: a token bucket, before it a queue that holds what comes in 100 ms; or no limit.
limit="root tbf rate $rate burst $burst latency 100ms"
[ "$rate" != unlimited ] || limit="root noqueue"

ip link add br0 type bridge
ip addr add 10.77.0.254/24 dev br0
ip link set br0 up
for number in $(seq "$hosts"); do
  unshare $spaces sh "$folder/host.sh" "$name-$number" &
  pid=$!
  until [ "$(readlink /proc/$pid/ns/net)" != "$own" ]; do sleep 0.01; done
  ip link add "port$number" type veth peer name eth0 netns "$pid"
  tc qdisc add dev "port$number" $limit
  ip link set "port$number" master br0 up
  enter="nsenter --target $pid --net"
  $enter tc qdisc add dev eth0 $limit
  $enter ip addr add "10.77.0.$number/24" dev eth0
  $enter ip link set eth0 up
  # The same whatever this machine does, and what most clusters do.
  $enter ip route replace 10.77.0.0/24 dev eth0 src "10.77.0.$number" congctl cubic
  echo "$pid" > "$CLUSTER_HOSTS/10.77.0.$number"
done
echo ready

# The first process of its namespace inherits all orphans and has to take their leave.
sleep infinity &
wait

# shellcheck shell=bash
# The hosts and wires of the lab. Sourced by scripts/lab, which sets LAB, DIR, ROOT and BIN.
#
#   LAN 10.10.0.0/24 on the bridge of fabric: router .1, box .2, backends .11 to .14,
#                                             VIPs from .100, SNAT address .200
#   clients 10.10.1.0/24 behind router:       router .1, client1 .11, client2 .12
#
# The same by IPv6: 2001:db8:10::/64 and 2001:db8:11::/64, the last number as above, in decimal digits.
#
# With a cluster (`lab up --cluster`) there is one host more, node: 10.10.0.20 on the LAN. Behind it are
# its pods, each a namespace $LAB-pod-N with the address .N of
#
#   pods        10.10.2.0/24     the bridge of node .1, pods from .10; the box's routes go by way of node
#   management  10.10.3.0/24     node .1, box .2, client1 .11: how the API server is reached, and nothing
#                                else; the ends of this bridge do not reach each other
#   VIPs        10.10.4.0/24     routed to the box by router: what the AddressPool holds
#
# and pods by IPv6 from 2001:db8:12::/64. So what clients want of a pod has one way: through the box's port.
#
# Replies of full NAT go to the SNAT address on the LAN; those of DNAT go to the client, and so take
# the backends' default route, which is the box.
#
# With several boxes (`lab up --boxes N`) these are box1, box2 …, the last number of each its own plus one, and of
# its SNAT address plus 200. The VIPs are routed, and clientN's way to them is boxN, as a router's ECMP might have it.
# They reach controller, .1 of the management network, where stranger is, too.

CLIENTS=(client1 client2)
BACKENDS=(backend1 backend2 backend3 backend4)
HOSTS=(box fabric router "${CLIENTS[@]}" "${BACKENDS[@]}")
LAN6=2001:db8:10:: CLIENTS6=2001:db8:11::
NODE_ADDRESS=10.10.0.20 NODE_ADDRESS6=2001:db8:10::20
PODS=10.10.2.0/24 PODS6=2001:db8:12::
API_ADDRESS=10.10.3.1
POOL=10.10.4.0/24
CONTROLLER_ADDRESS=$API_ADDRESS

# select_box HOST: which box is meant from here on. `box` is the only one, `box2` the second of several.
select_box() {
  local number=${1#box}
  BOX=$1
  number=${number:-1}
  # shellcheck disable=SC2034  # for those who source this
  PORT=lan$((number - 1)) SNAT_HOST=$((number + 199)) MAC_END=$number
  BOX_HOST=$((number + 1))
  BOX_ADDRESS=10.10.0.$BOX_HOST
  # Its sockets, configuration and state; and what follows the names of its processes.
  FILES=$DIR/$1 SUFFIX=-$1
  # shellcheck disable=SC2034
  [[ $1 != box ]] || FILES=$DIR SUFFIX=''
}
select_box box

in_host() {
  local host=$1
  shift
  ip netns exec "$LAB-$host" "$@"
}

# Adds a wire: interface eth0 of a host, and an interface named for the host in a bridge.
# wire HOST BRIDGE_HOST BRIDGE [INTERFACE]
wire() {
  local host=$1 at=$2 bridge=$3 interface=${4:-eth0}
  ip -n "$LAB-$at" -batch - <<EOF
link add $host type veth peer name $interface netns $LAB-$host
link set $host master $bridge up
EOF
  ip -n "$LAB-$host" link set "$interface" up
  offloads_off "$at" "$host"
  offloads_off "$host" "$interface"
}

# Every frame on a wire is what a capture shows: at most 1514 bytes, its checksums complete.
offloads_off() {
  in_host "$1" ethtool -K "$2" tx off rx off tso off gso off gro off >/dev/null
}

bridge() {
  ip -n "$LAB-$1" link add "$2" type bridge stp_state 0 forward_delay 0 mcast_snooping 0
  ip -n "$LAB-$1" link set "$2" up
}

# IPv6 without duplicate address detection: an address serves at once.
address() {
  local nodad=()
  [[ $3 != *:* ]] || nodad=(nodad)
  ip -n "$LAB-$1" address add "$3" dev "$2" "${nodad[@]}"
}

default_route() {
  ip -n "$LAB-$1" route add default via "$2"
}

# Without router discovery and duplicate address detection, IPv6 keeps as quiet as ARP does. The
# bridges of fabric need none.
add_host() {
  ip netns add "$LAB-$1"
  ip -n "$LAB-$1" link set lo up
  in_host "$1" sysctl -qw net.ipv6.conf.default.accept_ra=0 net.ipv6.conf.default.accept_dad=0 \
    net.ipv6.conf.default.router_solicitations=0 \
    net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.core.somaxconn=4096
  [[ $1 != fabric ]] ||
    in_host fabric sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
}

# Redirects are off since the box sends packets back into the LAN they came from.
forwards() {
  in_host "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 \
    net.ipv4.conf.default.send_redirects=0 net.ipv6.conf.all.forwarding=1 \
    net.ipv6.conf.default.forwarding=1
}

build_topology() {
  local host number
  for host in "${HOSTS[@]}"; do add_host "$host"; done
  forwards router
  [[ " ${HOSTS[*]} " != *" box "* ]] || forwards box
  bridge fabric lan
  wire router fabric lan lan
  address router lan 10.10.0.1/24
  address router lan "${LAN6}1/64"
  bridge router clients
  address router clients 10.10.1.1/24
  address router clients "${CLIENTS6}1/64"
  for host in "${CLIENTS[@]}"; do
    number=1${host#client}
    wire "$host" router clients
    address "$host" eth0 "10.10.1.$number/24"
    address "$host" eth0 "$CLIENTS6$number/64"
    default_route "$host" 10.10.1.1
    default_route "$host" "${CLIENTS6}1"
  done
  for host in "${BACKENDS[@]}"; do
    number=1${host#backend}
    wire "$host" fabric lan
    address "$host" eth0 "10.10.0.$number/24"
    address "$host" eth0 "$LAN6$number/64"
    default_route "$host" "$BOX_ADDRESS"
    default_route "$host" "${LAN6}2"
  done
}

# The yardstick: the box has a wire instead of a DPDK port, and its kernel routes every packet
# between clients and backends, in both directions.
route_by_kernel() {
  local number
  wire box fabric lan pst0
  address box pst0 "$BOX_ADDRESS/24"
  address box pst0 "${LAN6}2/64"
  ip -n "$LAB-box" route add 10.10.1.0/24 via 10.10.0.1
  ip -n "$LAB-box" route add "$CLIENTS6/64" via "${LAN6}1"
  route_to_pods
  for number in 11 12 13 14; do
    ip -n "$LAB-router" route add "10.10.0.$number/32" via "$BOX_ADDRESS"
  done
}

# The cluster's node, its pods' bridge and the management network.
build_cluster_topology() {
  local host
  add_host node
  forwards node
  wire node fabric lan
  address node eth0 "$NODE_ADDRESS/24"
  address node eth0 "$NODE_ADDRESS6/64"
  default_route node "$BOX_ADDRESS"
  default_route node "${LAN6}2"
  bridge node pods
  address node pods 10.10.2.1/24
  address node pods "${PODS6}1/64"
  bridge node management
  address node management "$API_ADDRESS/24"
  for host in box client1; do
    wire "$host" node management management
    ip -n "$LAB-node" link set "$host" type bridge_slave isolated on
  done
  address box management 10.10.3.2/24
  address client1 management 10.10.3.11/24
  ip -n "$LAB-router" route add "$POOL" via "$BOX_ADDRESS"
}

# Instead of box there are so many. Before the topology is built.
name_boxes() {
  local number
  BOXES=() CLIENTS=()
  for ((number = 1; number <= $1; number++)); do
    BOXES+=("box$number")
    CLIENTS+=("client$number")
  done
  HOSTS=("${BOXES[@]}" fabric router "${CLIENTS[@]}" "${BACKENDS[@]}" controller stranger)
}

# The management network of boxes, and the clients' ways to the VIPs.
build_boxes_topology() {
  local host number
  bridge controller management
  address controller management "$CONTROLLER_ADDRESS/24"
  wire stranger controller management management
  address stranger management 10.10.3.99/24
  for host in "${BOXES[@]}"; do
    select_box "$host"
    number=${host#box}
    forwards "$host"
    wire "$host" controller management management
    address "$host" management "10.10.3.$BOX_HOST/24"
    ip -n "$LAB-router" rule add from "10.10.1.1$number" lookup "10$number"
    ip -n "$LAB-router" route add "$POOL" via "$BOX_ADDRESS" table "10$number"
  done
}

# The box's way to pods, if there is a cluster. Its interface to the LAN must be there.
route_to_pods() {
  [[ -e /run/netns/$LAB-node ]] || return 0
  ip -n "$LAB-box" route replace "$PODS" via "$NODE_ADDRESS"
  ip -n "$LAB-box" route replace "$PODS6/64" via "$NODE_ADDRESS6"
}

is_host() {
  [[ " ${HOSTS[*]} node controller stranger " == *" $1 "* || $1 =~ ^(pod-[0-9]+|box[1-9]|client[1-9])$ ]]
}

# Those hosts that there are, pods among them.
existing_hosts() {
  local path host
  for path in "/run/netns/$LAB"-*; do
    host=${path#"/run/netns/$LAB-"}
    [[ ! -e $path ]] || ! is_host "$host" || echo "$host"
  done
}

# Interfaces, bridges and wires go with the namespaces they are in.
remove_namespaces() {
  local host
  for host in $(existing_hosts); do
    ip netns delete "$LAB-$host"
  done
}

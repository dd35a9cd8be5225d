# shellcheck shell=bash
# Penstock itself in the lab: files, users, programs. Sourced by scripts/lab.

DATAPLANE_USER="penstock-dataplane"
CONTROLPLANE_USER="penstock-controlplane"
L7_USER="penstock-l7"
# EAL's 256 MiB, and the flow tables.
HUGEPAGES_NEEDED=192

prepare_files() {
  local user
  for user in "$DATAPLANE_USER" "$CONTROLPLANE_USER" "$L7_USER"; do
    getent passwd "$user" >/dev/null || fail "there is no user $user yet: run scripts/setup"
  done
  mkdir -p "$DIR"/{log,pids,nginx,hugepages,state} "$BIN"
  rm -f "$DIR"/log/*
  # All programs write here, and none may remove what is the other's.
  install -d -o root -g penstock -m 1775 "$DIR/run"
  install -d -o "$DATAPLANE_USER" -g penstock -m 0700 "$DIR/state/dataplane"
  install -d -o "$CONTROLPLANE_USER" -g penstock -m 0700 "$DIR/state/controlplane"
  install -d -o "$L7_USER" -g penstock -m 0700 "$DIR/state/l7"
}

# Builds what the lab runs, unless it is given ready.
build_programs() {
  local packages=(penstock-bench)
  [[ -z ${PENSTOCK_BIN_DIR-} ]] || return 0
  [[ $penstock == no ]] || packages+=(penstock-dataplane penstock-controlplane penstock-l7 penstock)
  # Under `cargo test` these are the test's, and `ring` is built anew for each other value of them.
  (unset "${!CARGO_PKG_@}" "${!CARGO_MANIFEST_@}" && cd "$ROOT" &&
    cargo build --quiet --locked --profile "$profile" "${packages[@]/#/--package=}") 9>&- ||
    fail "the build failed; its errors are above"
}

# Copies it to where every user can run it.
install_programs() {
  local programs=(penstock-lab-peer penstock-cluster-probe) from=${PENSTOCK_BIN_DIR-}
  [[ $penstock == no ]] || programs+=(penstock-dataplane penstock-controlplane penstock-l7 penstock)
  [[ -n $from ]] || from=$(cd "$ROOT" && cargo metadata --no-deps --format-version 1 |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/$profile
  install -m 755 "${programs[@]/#/$from/}" "$BIN" || fail "$from has not all of ${programs[*]}"
}

dataplane_config() {
  ((transmit_offset == 0 || workers > 1)) || fail "--wrong-queue needs --workers 2 or more"
  cat <<EOF
# The machine as the data plane sees it. Made by scripts/lab up.
ports:
  - name: lan
    device: net_tap0,iface=lan0,mac=02:00:00:00:00:fe
    mac: 02:00:00:00:00:01
    companion: pst0
    receive: $receive
    transmit-queue-offset: $transmit_offset
workers:
  count: $workers
  idle:
    sleep: 50us
memory:
  eal-mib: 256
  mbufs: 16383
  hugepages: $DIR/hugepages
flows:
  capacity: 65536
EOF
  [[ $short_timeouts == no ]] || cat <<EOF
  timeouts:
    tcp-established: 20s
    tcp-half-open: 2s
    tcp-closing: 2s
    tcp-reset: 1s
    udp-one-way: 2s
    udp-replied: 2s
EOF
  cat <<EOF
snat:
  addresses: [10.10.0.200, "${LAN6}200"]
paths:
  run: $DIR/run
  state: $DIR/state/dataplane
EOF
}

# Where the control process looks, so that users edit a copy.
copy_examples() {
  [[ -z $config ]] || return 0
  config=$DIR/config
  mkdir -p "$config"
  cp "$ROOT/deploy/examples/web.yaml" "$config"
}

check_config_readable() {
  setpriv --reuid="$CONTROLPLANE_USER" --regid=penstock --clear-groups test -r "$config" -a -x "$config" ||
    fail "user $CONTROLPLANE_USER cannot read $config: put it where others may look, or chmod it"
}

mount_hugepages() {
  local free
  free=$(</sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages)
  ((free >= HUGEPAGES_NEEDED)) ||
    fail "$free hugepages are free, $HUGEPAGES_NEEDED are needed: run scripts/setup, or stop what uses them"
  mount -t hugetlbfs -o "pagesize=2M,uid=$DATAPLANE_USER,gid=penstock,mode=0700" penstock "$DIR/hugepages"
}

remove_mounts() {
  ! grep -q " $DIR/hugepages " /proc/mounts || umount "$DIR/hugepages"
}

# The data plane may configure its interfaces, and nothing else; the L7 tier may listen on low ports; the
# control process may do nothing at all.
start_penstock() {
  local as=(--regid=penstock --clear-groups --no-new-privs) source
  if [[ -n $cluster ]]; then
    source=(--kubeconfig "$DIR/cluster/penstock-controlplane.kubeconfig")
  else
    config=${config:+$(readlink -f "$config")}
    copy_examples
    check_config_readable
    source=(--config-dir "$config")
  fi
  mount_hugepages
  dataplane_config >"$DIR/dataplane.yaml"
  export LAB DIR
  start penstock-dataplane --after-start "$ROOT/scripts/lab.d/attach-port" -- \
    ip netns exec "$LAB-box" setpriv --reuid="$DATAPLANE_USER" "${as[@]}" \
    --inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin --bounding-set=-all,+net_admin \
    "$BIN/penstock-dataplane" --config "$DIR/dataplane.yaml"
  start penstock-controlplane -- \
    ip netns exec "$LAB-box" setpriv --reuid="$CONTROLPLANE_USER" "${as[@]}" \
    --inh-caps=-all --ambient-caps=-all --bounding-set=-all \
    "$BIN/penstock-controlplane" "${source[@]}" --run-dir "$DIR/run" \
    --state-dir "$DIR/state/controlplane"
  start penstock-l7 -- \
    ip netns exec "$LAB-box" setpriv --reuid="$L7_USER" "${as[@]}" \
    --inh-caps=-all,+net_bind_service --ambient-caps=-all,+net_bind_service \
    --bounding-set=-all,+net_bind_service \
    "$BIN/penstock-l7" --run-dir "$DIR/run" --state-dir "$DIR/state/l7"
  must 20 "the data plane's port is plugged in" penstock-dataplane -- port_plugged_in
  must 20 "the data plane acknowledged the configuration" \
    penstock-dataplane penstock-controlplane -- acknowledged
}

port_plugged_in() {
  [[ -n $(ip -n "$LAB-fabric" -oneline link show up dev lan0 2>/dev/null) ]] &&
    [[ -n $(ip -n "$LAB-box" -oneline address show dev pst0 to "$BOX_ADDRESS" 2>/dev/null) ]]
}

# A number or word of the control process's report, by its name.
reported() {
  sed -n "s/.*\"$1\": *\"\{0,1\}\([^,\"}]*\).*/\1/p" "$DIR/run/controlplane.json" 2>/dev/null | head -n 1
}

acknowledged() {
  local generation
  generation=$(reported generation)
  [[ $(reported connected) == true && -n $generation && $generation == "$(reported acknowledged)" ]]
}

# shellcheck shell=bash
# Penstock itself in the lab: files, users, programs. Sourced by scripts/lab.

DATAPLANE_USER="penstock-dataplane"
CONTROLPLANE_USER="penstock-controlplane"
L7_USER="penstock-l7"
# EAL's MiB, mbufs, flows and the pages for them: of a box that is alone, and of one of several.
MEMORY=(256 16383 65536 192)
MEMORY_OF_SEVERAL=(96 8191 16384 72)

prepare_files() {
  local user box
  for user in "$DATAPLANE_USER" "$CONTROLPLANE_USER" "$L7_USER"; do
    getent passwd "$user" >/dev/null || fail "there is no user $user yet: run scripts/setup"
  done
  mkdir -p "$DIR"/{log,pids,nginx} "$BIN"
  rm -f "$DIR"/log/*
  make_folders "$DIR"
  for box in "${BOXES[@]}"; do make_folders "$DIR/$box"; done
}

# make_folders FILES: what the programs of a box need.
make_folders() {
  mkdir -p "$1"/{hugepages,state}
  # All programs write here, and none may remove what is the other's.
  install -d -o root -g penstock -m 1775 "$1/run"
  install -d -o "$DATAPLANE_USER" -g penstock -m 0700 "$1/state/dataplane"
  install -d -o "$CONTROLPLANE_USER" -g penstock -m 0700 "$1/state/controlplane"
  install -d -o "$L7_USER" -g penstock -m 0700 "$1/state/l7"
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
    device: net_tap0,iface=$PORT,mac=02:00:00:00:00:f$MAC_END
    mac: 02:00:00:00:00:0$MAC_END
    companion: pst0
    receive: $receive
    transmit-queue-offset: $transmit_offset
workers:
  count: $workers
  idle:
    sleep: 50us
memory:
  eal-mib: ${memory[0]}
  mbufs: ${memory[1]}
  hugepages: $FILES/hugepages
flows:
  capacity: ${memory[2]}
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
  addresses: [10.10.0.$SNAT_HOST, "$LAN6$SNAT_HOST"]
paths:
  run: $FILES/run
  state: $FILES/state/dataplane
EOF
}

# Where the control process looks, so that users edit a copy.
copy_examples() {
  local host
  [[ -z $config ]] || return 0
  config=$DIR/config
  mkdir -p "$config"
  cp "$ROOT/deploy/examples/web.yaml" "$config"
  ((${#BOXES[@]})) || return 0
  # Its VIP is one of those that are routed: on the LAN, all boxes would answer ARP for it.
  sed -i 's/10\.10\.0\.100\b/10.10.4.100/' "$config/web.yaml"
  for host in "${BOXES[@]}"; do
    printf 'apiVersion: penstock.dev/v1alpha1\nkind: Box\nmetadata: {name: %s}\nspec: {}\n---\n' "$host"
  done >"$config/boxes.yaml"
}

check_config_readable() {
  setpriv --reuid="$CONTROLPLANE_USER" --regid=penstock --clear-groups test -r "$config" -a -x "$config" ||
    fail "user $CONTROLPLANE_USER cannot read $config: put it where others may look, or chmod it"
}

mount_hugepages() {
  local free needed=${memory[3]}
  free=$(</sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages)
  ((free >= needed)) ||
    fail "$free hugepages are free, $needed are needed: run scripts/setup, or stop what uses them"
  mount -t hugetlbfs -o "pagesize=2M,uid=$DATAPLANE_USER,gid=penstock,mode=0700" penstock "$FILES/hugepages"
}

remove_mounts() {
  local folder
  for folder in "$DIR"/hugepages "$DIR"/box*/hugepages; do
    ! grep -q " $folder " /proc/mounts || umount "$folder"
  done
}

# run_as USER CAPABILITIES HOST NAME [--after-start PROGRAM] COMMAND…: keeps a program running on a host with those
# capabilities and no others; + and their names, with commas, or nothing.
run_as() {
  local user=$1 capabilities=$2 host=$3 name=$4 after_start=()
  shift 4
  if [[ $1 == --after-start ]]; then
    after_start=("$1" "$2")
    shift 2
  fi
  start "$name" "${after_start[@]}" -- ip netns exec "$LAB-$host" \
    setpriv --reuid="$user" --regid=penstock --clear-groups --no-new-privs "--inh-caps=-all$capabilities" \
    "--ambient-caps=-all$capabilities" "--bounding-set=-all$capabilities" "$@"
}

# The selected box's data plane and L7 tier: the one may configure its interfaces, the other listen on low ports.
start_planes() {
  mount_hugepages
  dataplane_config >"$FILES/dataplane.yaml"
  export LAB DIR BOX
  run_as "$DATAPLANE_USER" ,+net_admin "$BOX" "penstock-dataplane$SUFFIX" \
    --after-start "$ROOT/scripts/lab.d/attach-port" "$BIN/penstock-dataplane" --config "$FILES/dataplane.yaml"
  run_as "$L7_USER" ,+net_bind_service "$BOX" "penstock-l7$SUFFIX" \
    "$BIN/penstock-l7" --run-dir "$FILES/run" --state-dir "$FILES/state/l7"
}

# start_control HOST NAME FILES ARGUMENTS…: a control process, which may do nothing at all.
start_control() {
  local host=$1 name=$2 files=$3
  shift 3
  run_as "$CONTROLPLANE_USER" '' "$host" "$name" \
    "$BIN/penstock-controlplane" "$@" --run-dir "$files/run" --state-dir "$files/state/controlplane"
}

# The flags by which the control process finds its objects.
find_source() {
  if [[ -n $cluster ]]; then
    source=(--kubeconfig "$DIR/cluster/penstock-controlplane.kubeconfig")
  else
    config=${config:+$(readlink -f "$config")}
    copy_examples
    check_config_readable
    source=(--config-dir "$config")
  fi
}

start_penstock() {
  local source memory=("${MEMORY[@]}")
  find_source
  start_planes
  start_control box penstock-controlplane "$DIR" "${source[@]}"
  must 20 "the data plane's port is plugged in" penstock-dataplane -- port_plugged_in
  must 20 "the data plane acknowledged the configuration" \
    penstock-dataplane penstock-controlplane -- acknowledged
}

port_plugged_in() {
  [[ -n $(ip -n "$LAB-fabric" -oneline link show up dev "$PORT" 2>/dev/null) ]] &&
    [[ -n $(ip -n "$LAB-$BOX" -oneline address show dev pst0 to "$BOX_ADDRESS" 2>/dev/null) ]]
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

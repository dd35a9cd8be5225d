# shellcheck shell=bash
# Several boxes, and a controller elsewhere that tells them what to do. Sourced by scripts/lab.
#
# Each box is a host with a data plane, an L7 tier and an agent, whose names end in the box's: penstock-agent-box2.
# Its sockets, configuration and state are in $DIR/box2, those of the controller in $DIR. Boxes join as people let
# them: by a token of the controller, for a Box that is among its objects.

BOXES_PORT=7443

start_boxes() {
  local source memory=("${MEMORY_OF_SEVERAL[@]}")
  find_source
  start_control controller penstock-controlplane "$DIR" "${source[@]}" --serve-boxes "$CONTROLLER_ADDRESS:$BOXES_PORT"
  must 20 "the controller answers operators" penstock-controlplane -- test -S "$DIR/run/boxes.sock"
  for_each_box start_planes
  for_each_box join_box
  for_each_box must_be_plugged_in
  must 20 "every box has acknowledged the configuration" penstock-controlplane -- in_sync
}

for_each_box() {
  local host
  for host in "${BOXES[@]}"; do
    select_box "$host"
    "$@"
  done
}

# The selected box joins, and its agent runs. The Box may not have been read yet.
join_box() {
  must 10 "box $BOX joins: is there a Box $BOX in its configuration?" join-"$BOX" penstock-controlplane -- may_join
  start_control "$BOX" "penstock-agent$SUFFIX" "$FILES" agent
}

may_join() {
  "$BIN/penstock" token "$BOX" --controller "$CONTROLLER_ADDRESS:$BOXES_PORT" --run-dir "$DIR/run" |
    in_host "$BOX" "$BIN/penstock" join - --state-dir "$FILES/state/controlplane"
} >>"$DIR/log/join-$BOX.log" 2>&1

must_be_plugged_in() {
  must 20 "the port of $BOX is plugged in" "penstock-dataplane$SUFFIX" -- port_plugged_in
}

in_sync() {
  [[ $(reported in_sync) == "${#BOXES[@]}" ]]
}

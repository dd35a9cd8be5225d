# shellcheck shell=bash
# Starting, finding and stopping the lab's processes. Sourced by scripts/lab.
#
# Each runs under lab.d/supervise, which records in $DIR/pids/NAME the pid and the start time of
# what it runs, and in $DIR/pids/NAME.supervisor its own. A pid alone may long be another's.

# start NAME [--after-start PROGRAM] -- COMMAND…
start() {
  local name=$1
  setsid --fork "$ROOT/scripts/lab.d/supervise" "$DIR" "$@" \
    </dev/null >>"$DIR/log/$name.log" 2>&1 9>&-
}

# The pid that a file records, if that very process still runs.
running_pid() {
  local pid started stat
  read -r pid started 2>/dev/null <"$1" || return 1
  stat=$(cat "/proc/$pid/stat" 2>/dev/null) || return 1
  # The name in parentheses may hold blanks; behind it, the start time is the twentieth field.
  read -r -a stat <<<"${stat##*) }"
  [[ ${stat[19]} == "$started" && ${stat[0]} != Z ]] || return 1
  echo "$pid"
}

recorded() {
  local file
  for file in "$DIR"/pids/*; do
    [[ -e $file ]] && echo "$file"
  done
  return 0
}

all_run() {
  local file
  while read -r file; do
    running_pid "$file" >/dev/null || return 1
  done < <(recorded)
}

print_processes() {
  local file state
  [[ -r $DIR/arguments ]] || fail "the lab is not up; scripts/lab up"
  while read -r file; do
    [[ $file == *.supervisor ]] && continue
    state=$(running_pid "$file") || state='does not run'
    printf '%-22s %s\n' "${file##*/}" "$state"
  done < <(recorded)
}

signal_recorded() {
  local signal=$1 pattern=$2 file pid
  while read -r file; do
    # shellcheck disable=SC2053  # a pattern is meant
    [[ ${file##*/} == $pattern ]] || continue
    pid=$(running_pid "$file") || continue
    kill -s "$signal" "$pid" 2>/dev/null || true
  done < <(recorded)
}

# What somebody started by `lab exec` and left behind.
in_namespaces() {
  local host
  for host in $(existing_hosts); do
    # A pod may go while we look.
    ip netns pids "$LAB-$host" 2>/dev/null || true
  done
}

nothing_runs() {
  local file
  while read -r file; do
    ! running_pid "$file" >/dev/null || return 1
  done < <(recorded)
  [[ -z $(in_namespaces) ]]
}

# Asks the supervisors to stop, which ask their programs; after five seconds kills what is left.
stop_processes() {
  local pid
  signal_recorded TERM '*.supervisor'
  within 5 nothing_recorded_runs || true
  signal_recorded KILL '*.supervisor'
  signal_recorded KILL '*'
  for pid in $(in_namespaces); do
    kill -KILL "$pid" 2>/dev/null || true
  done
  within 5 nothing_runs || fail "these processes do not end: $(in_namespaces | tr '\n' ' ')"
}

nothing_recorded_runs() {
  local file
  while read -r file; do
    ! running_pid "$file" >/dev/null || return 1
  done < <(recorded)
}

# within SECONDS CONDITION…: looks ten times a second until the condition holds; false if never.
within() {
  local tries=$(($1 * 10))
  shift
  until "$@"; do
    ((tries-- > 0)) || return 1
    sleep 0.1
  done
}

# must SECONDS WHAT LOG… -- CONDITION…: fails with the ends of the logs if it does not come true.
must() {
  local seconds=$1 what=$2 log logs=()
  shift 2
  while [[ $1 != -- ]]; do
    logs+=("$DIR/log/$1.log")
    shift
  done
  shift
  within "$seconds" "$@" && return
  for log in "${logs[@]}"; do
    echo "--- the end of $log" >&2
    tail -n 15 "$log" >&2 || true
  done
  fail "$what: not within $seconds s"
}

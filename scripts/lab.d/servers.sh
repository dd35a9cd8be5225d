# shellcheck shell=bash
# What the backends serve. Sourced by scripts/lab.
#
#   80/tcp    nginx: / is the backend's name, /pattern a file of known bytes, /slow-pattern the same
#             at 4 MB/s, so that a download lasts
#   5300/udp  answers each datagram with the backend's name in front
#   5201/tcp  iperf3, on backend1

PATTERN_BYTES=$((64 << 20))

# A single process, so that killing it kills the server, as the supervisor expects.
nginx_config() {
  local host=$1
  cat <<EOF
daemon off;
master_process off;
worker_rlimit_nofile 16384;
pid $DIR/nginx/$host/pid;
error_log stderr;
events { worker_connections 8192; }
http {
  access_log off;
  default_type text/plain;
  client_body_temp_path $DIR/nginx/$host/body;
  proxy_temp_path $DIR/nginx/$host/proxy;
  fastcgi_temp_path $DIR/nginx/$host/fastcgi;
  uwsgi_temp_path $DIR/nginx/$host/uwsgi;
  scgi_temp_path $DIR/nginx/$host/scgi;
  keepalive_requests 1000000;
  keepalive_timeout 1h;
  server {
    listen 80 backlog=4096;
    listen [::]:80 backlog=4096;
    client_max_body_size 0;
    location = / { return 200 "$host\n"; }
    location = /pattern { alias $BIN/pattern; }
    location = /slow-pattern { alias $BIN/pattern; limit_rate 4m; }
  }
}
EOF
}

start_servers() {
  local host
  "$BIN/penstock-lab-peer" pattern "$BIN/pattern" --bytes "$PATTERN_BYTES"
  for host in "${BACKENDS[@]}"; do
    install -d -o www-data -g www-data "$DIR/nginx/$host"
    nginx_config "$host" >"$DIR/nginx/$host.conf"
    start "nginx-$host" -- ip netns exec "$LAB-$host" \
      setpriv --reuid=www-data --regid=www-data --clear-groups --inh-caps=-all,+net_bind_service \
      --ambient-caps=-all,+net_bind_service --bounding-set=-all,+net_bind_service nginx -e stderr -c "$DIR/nginx/$host.conf" -p "$DIR/nginx/$host"
    start "echo-$host" -- ip netns exec "$LAB-$host" \
      setpriv --reuid=nobody --regid=nogroup --clear-groups --bounding-set=-all \
      "$BIN/penstock-lab-peer" udp-echo "$host"
  done
  start iperf3 -- ip netns exec "$LAB-backend1" \
    setpriv --reuid=nobody --regid=nogroup --clear-groups --bounding-set=-all iperf3 --server
  for host in "${BACKENDS[@]}"; do
    must 10 "nginx on $host answers" "nginx-$host" -- listens "$host" tcp 80
    must 10 "the UDP echo on $host answers" "echo-$host" -- listens "$host" udp 5300
  done
  must 10 "iperf3 on backend1 listens" iperf3 -- listens backend1 tcp 5201
}

listens() {
  [[ -n $(in_host "$1" ss --no-header --listening --numeric "--$2" "sport = :$3") ]]
}

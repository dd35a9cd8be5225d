# shellcheck shell=bash
# A Kubernetes control plane in the lab: its programs, its keys, its processes. Sourced by scripts/lab.
#
# The node is a host of its own (topology.sh). API server, controller manager and etcd run there as
# nobody; the pod runner as root, since it makes namespaces. `lab exec HOST kubectl` works on the
# hosts of the management network, which are node, box and client1.

CLUSTER_CACHE=${PENSTOCK_CLUSTER_CACHE:-/var/cache/penstock-lab/cluster}
CLUSTER_MODULES=(kube etcd coredns lab)
# Which of the programs pods may name as their image.
IMAGES=(echo-basic coredns)
KUBERNETES=v1.36.3
API_PORT=6443
KUBELET_PORT=10250
# Of Services; nobody serves them, for there is no kube-proxy.
CLUSTER_IPS=10.96.0.0/16,2001:db8:96::/112
# The certificate's name is the ServiceAccount that deploy/kubernetes/rbac.yaml binds.
CONTROLPLANE_IDENTITY=system:serviceaccount:penstock-system:penstock-controlplane
CONTROLLERS=deployment-controller,replicaset-controller,endpointslice-controller,namespace-controller
CONTROLLERS+=,garbage-collector-controller,serviceaccount-controller,root-ca-certificate-publisher-controller

# Where the programs of a module are: a folder named for all that they are made from.
module_folder() {
  echo "$CLUSTER_CACHE/$1-$(module_key "$1")"
}

module_key() {
  local sources=("$1")
  [[ $1 != lab ]] || sources=(go.mod go.sum conformance podrunner report)
  (
    cd "$ROOT/scripts/cluster"
    go version
    echo "$KUBERNETES"
    declare -f build_module
    find "${sources[@]}" -type f ! -path '*/podrunner/*_test.go' ! -path '*/report/*_test.go' |
      LC_ALL=C sort | xargs sha256sum
  ) | sha256sum | cut -c 1-16
}

# build_module MODULE OUT: in a subshell, since it changes the directory.
build_module() (
  module=$1 out=$2 flags='-s -w' version=k8s.io/component-base/version
  case $module in
    kube)
      flags+=" -X $version.gitVersion=$KUBERNETES -X $version.gitMajor=1 -X $version.gitMinor=36"
      cd "$ROOT/scripts/cluster/kube"
      go build -trimpath -ldflags "$flags" -o "$out/" tool
      ;;
    etcd)
      cd "$ROOT/scripts/cluster/etcd"
      go build -trimpath -ldflags "$flags" -o "$out/etcd" go.etcd.io/etcd/server/v3
      ;;
    coredns)
      cd "$ROOT/scripts/cluster/coredns"
      go build -trimpath -ldflags "$flags" -o "$out/coredns" .
      ;;
    lab)
      cd "$ROOT/scripts/cluster"
      go build -trimpath -ldflags "$flags" -o "$out/podrunner" ./podrunner
      go build -trimpath -ldflags "$flags" -o "$out/conformance-table" ./report
      go build -trimpath -ldflags "$flags" -o "$out/" tool
      go test -trimpath -ldflags "$flags" -c -o "$out/conformance.test" ./conformance
      crds=$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)/config/crd
      mkdir "$out/crds"
      cp -r --no-preserve=mode "$crds"/{standard,experimental} "$out/crds"
      ;;
  esac
)

# Builds what is not in the cache. What nobody used for a month is removed from it.
build_cluster_programs() {
  local module folder
  command -v go >/dev/null || fail "there is no go: scripts/setup --cluster says what to do"
  mkdir -p "$CLUSTER_CACHE"
  for module in "${CLUSTER_MODULES[@]}"; do
    folder=$(module_folder "$module")
    # Of two labs that want the same, the second waits, and then has it.
    (flock 8 && build_into_cache "$module" "$folder") 8>"$CLUSTER_CACHE/lock" 9>&- ||
      fail "the cluster's $module could not be built; the errors are above"
  done
  find "$CLUSTER_CACHE" -mindepth 1 -maxdepth 1 -type d -mtime +30 -exec rm -rf {} +
}

build_into_cache() {
  local module=$1 folder=$2
  if [[ ! -d $folder ]]; then
    echo "lab: building the cluster's $module from Go modules, once (all of ${CLUSTER_MODULES[*]}: 9 minutes on 2 idle cores)"
    rm -rf "$folder.new"
    mkdir -p "$folder.new"
    build_module "$module" "$folder.new" || return 1
    chmod -R go+rX "$folder.new"
    mv "$folder.new" "$folder"
  fi
  touch "$folder"
}

# All programs by their names in one folder, and the images' in another.
link_cluster_programs() {
  local module program
  mkdir -p "$BIN/images"
  for module in "${CLUSTER_MODULES[@]}"; do
    for program in "$(module_folder "$module")"/*; do
      ln -sfn "$program" "$BIN/${program##*/}"
    done
  done
  for program in "${IMAGES[@]}"; do
    ln -sfn "$(readlink "$BIN/$program")" "$BIN/images/$program"
  done
}

# Keys for two days: a lab does not live longer.
make_keys() {
  local pki=$DIR/cluster/pki log=$DIR/log/openssl.log
  install -d -m 755 "$DIR/cluster" "$pki"
  (umask 077 && make_identities) 2>"$log" || fail "keys could not be made: $(tail -n 3 "$log")"
  chmod 644 "$pki"/*.crt
  chown nobody:nogroup "$pki"/{service-accounts,server,kubelet-client}.key
  kubeconfig admin root
  kubeconfig controller-manager nobody
  kubeconfig penstock-controlplane "$CONTROLPLANE_USER"
}

make_identities() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=penstock-lab \
    -keyout "$pki/ca.key" -out "$pki/ca.crt" &&
    openssl genrsa -out "$pki/service-accounts.key" 2048 &&
    identity server /CN=kube-apiserver &&
    identity kubelet /CN=node &&
    identity kubelet-client /O=system:masters/CN=kube-apiserver &&
    identity admin /O=system:masters/CN=admin &&
    identity controller-manager /CN=system:kube-controller-manager &&
    identity penstock-controlplane "/CN=$CONTROLPLANE_IDENTITY"
}

# identity NAME SUBJECT
identity() {
  local names=DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1
  names+=,IP:$API_ADDRESS,IP:$NODE_ADDRESS,IP:$NODE_ADDRESS6
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" \
    -keyout "$pki/$1.key" -out "$pki/$1.csr" &&
    openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 2 \
      -out "$pki/$1.crt" -extfile <(echo "subjectAltName=$names")
}

# kubeconfig NAME USER: one file with everything in it, for one user to read.
kubeconfig() {
  local pki=$DIR/cluster/pki file=$DIR/cluster/$1.kubeconfig
  install -o "$2" -m 400 /dev/null "$file"
  cat >"$file" <<EOF
apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster: {server: "https://$API_ADDRESS:$API_PORT", certificate-authority-data: $(base64 -w 0 "$pki/ca.crt")}
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w 0 "$pki/$1.crt")
    client-key-data: $(base64 -w 0 "$pki/$1.key")
contexts:
- name: lab
  context: {cluster: lab, user: $1}
current-context: lab
EOF
}

# on_node NAME COMMAND…: keeps a program running on the node, as nobody.
on_node() {
  local name=$1
  shift
  start "$name" -- ip netns exec "$LAB-node" setpriv --reuid=nobody --regid=nogroup --clear-groups \
    --no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set=-all "$@"
}

start_cluster() {
  make_keys
  start_etcd
  start_apiserver
  start_controller_manager
  start_podrunner
  apply_manifests
  must 30 "the node is ready" podrunner kube-apiserver -- node_ready
}

start_etcd() {
  install -d -o nobody -g nogroup -m 700 "$DIR/cluster/etcd"
  on_node etcd "$BIN/etcd" --data-dir "$DIR/cluster/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380
  must 30 "etcd listens" etcd -- listens node tcp 2379
}

# Pods have no tokens of ServiceAccounts: nothing here reads them, and the pod runner has no projected
# volumes.
start_apiserver() {
  local pki=$DIR/cluster/pki
  on_node kube-apiserver "$BIN/kube-apiserver" --etcd-servers http://127.0.0.1:2379 \
    --bind-address "$API_ADDRESS" --secure-port "$API_PORT" --advertise-address "$API_ADDRESS" \
    --tls-cert-file "$pki/server.crt" --tls-private-key-file "$pki/server.key" --client-ca-file "$pki/ca.crt" \
    --kubelet-certificate-authority "$pki/ca.crt" --kubelet-preferred-address-types InternalIP \
    --kubelet-client-certificate "$pki/kubelet-client.crt" --kubelet-client-key "$pki/kubelet-client.key" \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$pki/service-accounts.key" \
    --service-account-signing-key-file "$pki/service-accounts.key" --service-cluster-ip-range "$CLUSTER_IPS" \
    --authorization-mode RBAC --disable-admission-plugins ServiceAccount
  must 120 "the API server is ready" kube-apiserver etcd -- api_ready
}

start_controller_manager() {
  on_node kube-controller-manager "$BIN/kube-controller-manager" --leader-elect=false --bind-address 127.0.0.1 \
    --kubeconfig "$DIR/cluster/controller-manager.kubeconfig" --kube-api-qps 200 --kube-api-burst 400 \
    --service-account-private-key-file "$DIR/cluster/pki/service-accounts.key" --use-service-account-credentials \
    --root-ca-file "$DIR/cluster/pki/ca.crt" --controllers "$CONTROLLERS"
}

# In the node's network, but with the machine's mounts: the namespaces it makes must be seen by all.
start_podrunner() {
  local pki=$DIR/cluster/pki
  start podrunner -- nsenter --net="/run/netns/$LAB-node" "$BIN/podrunner" \
    --kubeconfig "$DIR/cluster/admin.kubeconfig" --images "$BIN/images" --state "$BIN/pods" \
    --prefix "$LAB-pod-" --bridge pods --node node --host-ip "$NODE_ADDRESS" --host-ip "$NODE_ADDRESS6" \
    --pods4 "$PODS" --pods6 "$PODS6/64" --listen "$NODE_ADDRESS:$KUBELET_PORT" \
    --certificate "$pki/kubelet.crt" --key "$pki/kubelet.key" --client-ca "$pki/ca.crt"
}

kubectl() {
  KUBECONFIG=$DIR/cluster/admin.kubeconfig in_host node "$BIN/kubectl" "$@"
}

api_ready() {
  kubectl get --raw /readyz >/dev/null 2>&1
}

node_ready() {
  [[ $(kubectl get node node -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null) == True ]]
}

# The CRDs of the channel that was asked for, what deploy/kubernetes has, and the lab's addresses.
apply_manifests() {
  local file files=()
  for file in "$BIN/crds/$cluster"/*.yaml; do
    [[ ${file##*/} == kustomization.yaml ]] || files+=(-f "$file")
  done
  apply "${files[@]}" -f "$ROOT/deploy/kubernetes/crds"
  must 30 "the CRDs are served" kube-apiserver -- crds_served
  for file in "$ROOT"/deploy/kubernetes/*.yaml; do apply -f "$file"; done
  address_pool | apply -f -
}

# Asked anew, since `wait` gives up on a CRD that has no conditions yet.
crds_served() {
  kubectl wait --for=condition=Established crd --all --timeout=5s >/dev/null 2>&1
}

apply() {
  kubectl apply --server-side "$@" >>"$DIR/log/manifests.log" 2>&1 ||
    fail "kubectl apply $*: $(tail -n 3 "$DIR/log/manifests.log")"
}

address_pool() {
  cat <<EOF
apiVersion: penstock.dev/v1alpha1
kind: AddressPool
metadata: {name: lab}
spec:
  addresses: [$POOL]
EOF
}

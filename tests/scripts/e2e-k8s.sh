#!/usr/bin/env bash
# End-to-end tests of Cairn on a Kubernetes cluster, from nothing to nothing. See --help and tests/README.md.
# Written for bash 3.2, which macOS has.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

usage() {
  cat <<'H'
usage: cd tests/scripts && ./e2e-k8s.sh [options]

Installs the chart on a cluster, runs a suite against it, and removes what it made. The exit code is that of the tests:
0 passed, 1 failed, 2 wrong usage, 3 a requirement is missing.

  --suite NAME[,NAME]    smoke (default), sdk, snapshot, life, chaos, or all
  --use-current-context  the cluster of the current kubectl context, instead of one made here; only the namespace is made and removed
  --image REF            image to test, NAME:TAG; default: built from this tree
  --values FILE          more values for the chart; may be given again, later ones win
  --namespace NAME       namespace to make (default cairn-e2e); must not exist yet
  --nodes N              nodes of a cluster made here (default 3)
  --cycles N             faults of the chaos suite (default 24)
  --replicated           three members of each embedded store instead of one
  --keep                 leave everything running at the end, and say how to reach it
  --artifacts DIR        on failure: logs, events and descriptions of everything (default: a directory in TMPDIR)
  --check                only check the requirements
  --help                 this

The cluster is the first of: --use-current-context; the tools in CAIRN_K8S_TOOLS, or in shared/tools/k8s beside the repository (a directory with
up.sh, down.sh, load-image.sh, mk-image.sh, node.sh; needs root and Linux; node faults of the chaos suite work only there); kind, where a Docker
daemon runs.

Exit codes: 0 passed, 1 a suite failed, 2 used wrongly, 3 something is missing, 4 cluster, image or installation did not come up.
H
}

suites=smoke current=0 image='' namespace=cairn-e2e nodes=3 cycles=24 replicated=0 keep=0 artifacts='' check=0
values=()
value() { [ $# -ge 2 ] && [ -n "$2" ] || { echo "e2e-k8s.sh: $1 needs a value" >&2; exit 2; }; }
while [ $# -gt 0 ]; do
  case $1 in
    --suite) value "$@"; suites=$2; shift ;;
    --use-current-context) current=1 ;;
    --image) value "$@"; image=$2; shift ;;
    --values) value "$@"; [ -f "$2" ] || { echo "e2e-k8s.sh: there is no file $2" >&2; exit 2; }; values+=("$2"); shift ;;
    --namespace) value "$@"; namespace=$2; shift ;;
    --nodes) value "$@"; nodes=$2; shift ;;
    --cycles) value "$@"; cycles=$2; shift ;;
    --replicated) replicated=1 ;;
    --keep) keep=1 ;;
    --artifacts) value "$@"; artifacts=$2; shift ;;
    --check) check=1 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "e2e-k8s.sh: unknown option $1; --help lists them" >&2; exit 2 ;;
  esac
  shift
done
[ "$suites" != all ] || suites=smoke,sdk,snapshot,life,chaos
for suite in ${suites//,/ }; do
  case $suite in smoke | sdk | snapshot | life | chaos) ;; *) echo "e2e-k8s.sh: unknown suite $suite; there are smoke, sdk, snapshot, life, chaos, all" >&2; exit 2 ;; esac
done

say() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }

# ---- requirements
tools=${CAIRN_K8S_TOOLS:-}
[ -n "$tools" ] || [ ! -x "$root/../shared/tools/k8s/up.sh" ] || tools=$(cd "$root/../shared/tools/k8s" && pwd)
missing=0
# at_least VERSION LEAST
at_least() {
  local IFS=. i a b
  # shellcheck disable=SC2206
  a=($1) b=($2)
  for i in 0 1 2; do
    [ "$((10#${a[$i]:-0}))" -gt "$((10#${b[$i]:-0}))" ] && return 0
    [ "$((10#${a[$i]:-0}))" -lt "$((10#${b[$i]:-0}))" ] && return 1
  done
  return 0
}
version_of() { "$@" 2>/dev/null | tr -d '"' | sed -n 's/[^0-9]*\([0-9][0-9]*\.[0-9][0-9]*\(\.[0-9][0-9]*\)\{0,1\}\).*/\1/p' | head -1; }
report() { printf '  %-9s %-10s %s\n' "$1" "$2" "$3"; }
# need NAME LEAST HOW VERSION_COMMAND...
need() {
  local name=$1 least=$2 how=$3 found
  shift 3
  if ! command -v "$1" > /dev/null; then
    report missing "$name" "$how"
    missing=1
    return
  fi
  found=$(version_of "$@")
  if [ -n "$found" ] && at_least "$found" "$least"; then report ok "$name" "$found"; else
    report 'too old' "$name" "${found:-unknown}, needs $least; $how"
    missing=1
  fi
}
machine() {
  local memory flags
  case $(uname -s) in
    Linux) memory=$(awk '/MemTotal/ { print int($2 / 1048576) }' /proc/meminfo); flags=$(grep -m1 -i '^flags\|^features' /proc/cpuinfo || true) ;;
    Darwin) memory=$(($(sysctl -n hw.memsize) / 1073741824)); flags=$(sysctl -n machdep.cpu.features machdep.cpu.leaf7_features 2>/dev/null || true) ;;
    *) report missing system "Linux (Amazon Linux 2023, Ubuntu 20.04 or newer) or macOS 10.14 or newer"; missing=1; return ;;
  esac
  if [ "$memory" -ge 15 ]; then report ok memory "${memory} GB"; else report 'too low' memory "${memory} GB; 16 GB are asked for, expect it to be slow"; fi
  case $(uname -m) in
    x86_64) if echo "$flags" | grep -qi 'sse4[._]2'; then report ok processor "x86_64"; else report missing processor "x86_64 with SSE4.2, AVX, AVX2 or AVX-512"; missing=1; fi ;;
    arm64 | aarch64) report ok processor arm64 ;;
    *) report missing processor "x86_64 or arm64, not $(uname -m)"; missing=1 ;;
  esac
}
requirements() {
  echo "requirements (cluster: $1):"
  machine
  need npm 8.0 "comes with Node.js 20 or newer: https://nodejs.org" npm --version
  case $1 in
    kind)
      need docker 19.5 "https://docs.docker.com/engine/install; on Linux add yourself to the group docker to use it without root" docker --version
      if command -v docker > /dev/null && ! docker info > /dev/null 2>&1; then
        report missing daemon "the Docker daemon does not answer: 'sudo systemctl start docker' (Linux) or start Docker Desktop (macOS); without root: 'sudo usermod -aG docker \$USER' and log in again"
        missing=1
      fi
      need kind 0.10 "https://kind.sigs.k8s.io/docs/user/quick-start (or: go install sigs.k8s.io/kind@latest)" kind --version
      ;;
    tools)
      need go 1.25 "https://go.dev/dl" go version
      [ "$(id -u)" = 0 ] || { report missing root "the cluster's tools need root"; missing=1; }
      ;;
  esac
  if [ "$1" != tools ]; then
    need kubectl 1.27 "https://kubernetes.io/docs/tasks/tools" kubectl version --client
    need helm 3.0 "https://helm.sh/docs/intro/install (or: go install helm.sh/helm/v3/cmd/helm@latest)" helm version --short
  fi
  if command -v jq > /dev/null; then report ok jq "$(version_of jq --version)"; else report absent jq "1.3 or newer, by the system's packages; the suites do without it"; fi
  [ $missing = 0 ] || { echo "something is missing, see above" >&2; exit 3; }
}
if [ $current = 1 ]; then cluster=current
elif [ -n "$tools" ]; then cluster=tools
else cluster=kind; fi
requirements $cluster
[ $check = 0 ] || exit 0

# ---- what is made here, and its end
work=$(mktemp -d)
artifacts=${artifacts:-${TMPDIR:-/tmp}/cairn-e2e-artifacts}
made_cluster=0 made_namespace=0 ready=0 passed=0 ours=0
collect() {
  mkdir -p "$artifacts"
  say "collecting logs into $artifacts"
  kubectl get all,pvc,pdb,networkpolicy,configmap -n "$namespace" -o wide > "$artifacts/objects.txt" 2>&1 || true
  kubectl get events -n "$namespace" --sort-by=.lastTimestamp > "$artifacts/events.txt" 2>&1 || true
  kubectl describe pods -n "$namespace" > "$artifacts/pods.txt" 2>&1 || true
  kubectl describe nodes > "$artifacts/nodes.txt" 2>&1 || true
  local pod
  for pod in $(kubectl get pods -n "$namespace" -o name 2>/dev/null); do
    kubectl logs -n "$namespace" "$pod" --all-containers > "$artifacts/${pod#pod/}.log" 2>&1 || true
    kubectl logs -n "$namespace" "$pod" --all-containers --previous > "$artifacts/${pod#pod/}.previous.log" 2>/dev/null || rm -f "$artifacts/${pod#pod/}.previous.log"
  done
}
finish() {
  local code=$?
  trap - EXIT
  # 4: it did not come to the suites, and not by a fault of ours that is known for one.
  if [ $ours = 1 ]; then code=1; elif [ $ready = 0 ] && [ $code != 0 ] && [ $code != 2 ] && [ $code != 130 ]; then code=4; fi
  set +e
  if [ $passed = 0 ] && [ $made_namespace = 1 ]; then collect; fi
  if [ $keep = 1 ] && [ $made_namespace = 1 ]; then
    say "kept: KUBECONFIG=${KUBECONFIG:-default}, namespace $namespace; 'helm -n $namespace uninstall cairn' and 'kubectl delete namespace $namespace' remove it"
  else
    # A cluster that was made here goes with all that is in it.
    if [ $made_namespace = 1 ] && [ $made_cluster = 0 ]; then
      helm uninstall cairn -n "$namespace" --wait --timeout 2m > /dev/null 2>&1
      kubectl delete namespace "$namespace" --wait=true --timeout=2m > /dev/null 2>&1 || say "the namespace $namespace is not gone yet"
    fi
    if [ $made_cluster = 1 ]; then
      say "ending the cluster"
      case $cluster in
        tools) "$tools/down.sh" > "$work/down.log" 2>&1 || cat "$work/down.log" ;;
        kind) kind delete cluster --name cairn-e2e > /dev/null 2>&1 ;;
      esac
    fi
  fi
  rm -rf "$work"
  exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM

# ---- cluster and image
make -s -C "$root" install > "$work/install.log" 2>&1 || { cat "$work/install.log"; exit 1; }
sets=()
case $cluster in
  tools)
    export CAIRN_K8S_TOOLS=$tools
    # It belongs to somebody else, or was kept: it must not be ended here.
    ! ip link show ck8s0 > /dev/null 2>&1 || { echo "e2e-k8s.sh: a cluster of these tools is up already; use it with --use-current-context and --image, or end it with $tools/down.sh" >&2; exit 1; }
    say "cluster of $nodes nodes by $tools"
    made_cluster=1
    kubeconfig=$(NODES=$nodes NODE_GRACE=${NODE_GRACE:-16s} "$tools/up.sh" 2> "$work/up.log" | sed -n 's/^KUBECONFIG=//p') || { cat "$work/up.log"; exit 1; }
    # shellcheck source=/dev/null
    . "$(dirname "$(dirname "$kubeconfig")")/env.sh"
    if [ -z "$image" ]; then
      say "images"
      image_code=0
      CAIRN_K8S_TOOLS=$tools "$root/deploy/docker/image.sh" "$work/images" e2e > "$work/image.log" 2>&1 || image_code=$?
      [ $image_code != 5 ] || ours=1
      [ $image_code = 0 ] || { cat "$work/image.log"; exit 1; }
      "$tools/load-image.sh" "$work"/images/*.tar > /dev/null
      rm -rf "$work/images"
      image=cairn:e2e
      for store in etcd nats minio; do sets+=(--set "embedded.$store.image=docker.io/cairn-test/$store:e2e"); done
    fi
    # Nodes may be cut and killed; the stores stand on the one that is not.
    first=$(kubectl get nodes -o jsonpath='{.items[0].metadata.name}')
    if [ $replicated = 0 ]; then for store in etcd nats minio; do sets+=(--set "embedded.$store.nodeSelector.kubernetes\.io/hostname=$first"); done; fi
    ;;
  kind)
    say "kind cluster of $nodes nodes"
    { echo 'kind: Cluster'; echo 'apiVersion: kind.x-k8s.io/v1alpha4'; echo 'nodes:'; echo '- role: control-plane'
      i=1; while [ $i -lt "$nodes" ]; do echo '- role: worker'; i=$((i + 1)); done; } > "$work/kind.yaml"
    made_cluster=1
    export KUBECONFIG=$work/kubeconfig
    kind create cluster --name cairn-e2e --config "$work/kind.yaml" --wait 3m > "$work/kind.log" 2>&1 || { cat "$work/kind.log"; exit 1; }
    if [ -z "$image" ]; then
      say "image"
      docker build -q -f "$root/deploy/docker/Dockerfile" -t cairn:e2e "$root"
      image=cairn:e2e
    fi
    kind load docker-image "$image" --name cairn-e2e
    sets+=(--set image.pullPolicy=IfNotPresent)
    ;;
  current)
    [ -n "$image" ] || { echo "e2e-k8s.sh: --use-current-context needs --image, a reference that this cluster can pull" >&2; exit 2; }
    say "cluster of the current context, $(kubectl config current-context)"
    sets+=(--set image.pullPolicy=IfNotPresent)
    ;;
esac

# A pod of ours that went down with an error of its own (not killed, not for want of memory) is a fault of ours, however slow the machine.
ended_by_itself() {
  local line
  line=$(kubectl get pods -n "$namespace" -l app.kubernetes.io/instance=cairn -o jsonpath='{range .items[*]}{.metadata.labels.app\.kubernetes\.io/component}{" "}{range .status.containerStatuses[*]}{.lastState.terminated.exitCode}{end}{"\n"}{end}' 2>/dev/null |
    grep -E '^(proxy|datacoord|streaming|datanode) ' | grep -vE ' (0|137|143)?$' | head -1) || return 0
  say "a pod ended by itself (component, exit code): $line"
  ours=1
}

# ---- release
if kubectl get namespace "$namespace" > /dev/null 2>&1; then
  echo "e2e-k8s.sh: namespace $namespace exists already; name another with --namespace" >&2
  exit 2
fi
kubectl create namespace "$namespace" > /dev/null
made_namespace=1
kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted > /dev/null
[ $replicated = 0 ] || sets+=(--set embedded.etcd.replicas=3,embedded.nats.replicas=3,embedded.minio.replicas=3)
files=()
for file in "$root/tests/k8s/values.yaml" ${values[@]+"${values[@]}"}; do files+=(-f "$file"); done
say "installing $image"
helm install cairn "$root/deploy/helm/cairn" -n "$namespace" "${files[@]}" --set "image.repository=${image%:*}" --set "image.tag=${image##*:}" \
  ${sets[@]+"${sets[@]}"} --wait --timeout 5m > "$work/helm.log" 2>&1 || { cat "$work/helm.log"; ended_by_itself; exit 1; }
say "installed; every pod is ready"
ready=1

# ---- suites
for suite in ${suites//,/ }; do
  say "suite $suite"
  E2E_NAMESPACE=$namespace E2E_RELEASE=cairn E2E_CYCLES=$cycles "$root/node_modules/.bin/node" "$root/tests/k8s/main.ts" "$suite"
done
passed=1
say "passed: $suites"

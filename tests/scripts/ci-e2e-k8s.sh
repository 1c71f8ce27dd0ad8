#!/usr/bin/env bash
# The smoke suite on a real cluster, as a part of CI: ci-e2e-k8s.sh SECONDS_USED. Runs when the machine allows it, and says why when not. Only a
# suite that ran and failed twice fails it (1), as does an image or a pod that ends by itself: a cluster that cannot be had, or no time, is told and is
# no failure (3). Whatever happens, nothing is left behind.
set -uo pipefail
used=${1:-0}
here=$(cd "$(dirname "$0")" && pwd)
# CI ends a run after 90 minutes. The suite takes 3 with warm binaries, 20 where the binaries of Kubernetes are built first.
LATEST_START_S=$((60 * 60)) LATEST_COLD_START_S=$((35 * 60)) LIMIT=28m

skip() { echo "SKIP e2e on a real cluster: $*"; exit 3; }

tools=${CAIRN_K8S_TOOLS:-$here/../../../shared/tools/k8s}
[ -x "$tools/up.sh" ] || skip "no tools that make one (a directory with up.sh and node.sh, named by CAIRN_K8S_TOOLS)"
[ "$(id -u)" = 0 ] || skip "its tools need root"
command -v go > /dev/null || skip "its tools need Go"
[ "$used" -lt $LATEST_START_S ] || skip "$((used / 60)) minutes are used up already"
cache=${CAIRN_TOOLS_CACHE:-$HOME/.cache/cairn-tools}
compgen -G "$cache/k8s-*/complete" > /dev/null || [ "$used" -lt $LATEST_COLD_START_S ] ||
  skip "the binaries of Kubernetes are not in $cache, and $((used / 60)) minutes are used up already"
[ "$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)" -ge 6 ] || skip "less than 6 GB of memory are free"
ip link show ck8s0 > /dev/null 2>&1 && skip "another cluster of the same tools is up on this machine"

for place in "${TMPDIR:-/tmp}" /var/lib; do
  [ "$(df -Pk "$place" | awk 'NR == 2 { print int($4 / 1048576) }')" -ge 6 ] || skip "less than 6 GB are free in $place"
done

# The suite ends its cluster itself; here for the case that it was killed. There was none before.
down() { ! ip link show ck8s0 > /dev/null 2>&1 || "$tools/down.sh" > /dev/null 2>&1 || echo "the cluster could not be ended: $tools/down.sh"; }
trap down EXIT
trap 'exit 130' INT TERM

began=$SECONDS
run() {
  CAIRN_K8S_TOOLS=$tools timeout --signal=INT --kill-after=120 $LIMIT "$here/e2e-k8s.sh" --suite smoke
  code=$?
  down
}
run
if [ $code = 1 ] && [ $((used + SECONDS - began)) -lt $LATEST_START_S ]; then
  echo "e2e on a real cluster: failed, load average $(cut -d' ' -f1-3 /proc/loadavg); once more, since a starved machine can do that"
  run
fi
case $code in
  0) echo "e2e on a real cluster: passed in $((SECONDS - began)) s" ;;
  1) echo "e2e on a real cluster: FAILED"; exit 1 ;;
  3) skip "something that it needs is missing, see above" ;;
  4) skip "the cluster, the image or the installation did not come up on this machine, see above" ;;
  124 | 130 | 137) skip "it did not end within $LIMIT" ;;
  *) skip "it ended with $code" ;;
esac

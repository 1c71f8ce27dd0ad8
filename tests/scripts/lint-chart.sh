#!/usr/bin/env bash
# Checks the chart: helm lint, a matrix of renderings, each held against the schemas of the oldest and the newest Kubernetes that is supported.
# Exit code 0: clean; 1: findings; 3: a program is missing (said in words; nothing was checked that needs it). Also `make lint-chart`.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
chart=$root/deploy/helm/cairn
OLDEST=1.28.0 NEWEST=1.35.0
# Kinds of the Prometheus operator; Kubernetes' own schemas do not hold them.
SKIP=ServiceMonitor,PrometheusRule

helm=$("$root/tools/chart/build.sh" helm) || { echo "SKIP chart: no helm (reason above)"; exit 3; }
helm=${helm#* }
conform='' schemas=''
if conform=$("$root/tools/chart/build.sh" kubeconform) && schemas=$("$root/tools/chart/build.sh" schemas); then
  conform=${conform#* } schemas=${schemas#* }
else
  echo "SKIP schemas: no kubeconform or no schemas (reason above); renderings are checked by helm alone"
  conform=''
fi

failed=0
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
external=(--set 'config.meta.etcd.endpoints={etcd:2379}' --set 'config.wal.nats.servers={nats:4222}' --set config.objects.s3.bucket=b)
embedded=(--set embedded.etcd.enabled=true,embedded.nats.enabled=true,embedded.minio.enabled=true)
checked=0
# Renders, and keeps the rendering: all of them are held against the schemas at once, in the end.
check() { # NAME ARGS...
  local name=$1
  shift
  checked=$((checked + 1))
  "$helm" template release "$chart" --kube-version "$NEWEST" "$@" > "$out/$checked.yaml" 2> "$out/err" || { echo "$name: helm template:"; cat "$out/err"; failed=1; return; }
  echo "ok $name: $(grep -c '^kind:' "$out/$checked.yaml") objects"
}
refused() { # NAME WORDS ARGS...
  local name=$1 words=$2
  shift 2
  if "$helm" template release "$chart" --kube-version "$NEWEST" "$@" > /dev/null 2> "$out/err"; then echo "$name: was taken, and must be refused"; failed=1
  elif grep -q -- "$words" "$out/err"; then echo "ok $name is refused"
  else echo "$name: refused without the words '$words':"; cat "$out/err"; failed=1; fi
}

"$helm" lint --quiet --strict "$chart" "${embedded[@]}" > "$out/lint" 2>&1 || { echo 'helm lint:'; cat "$out/lint"; failed=1; }
check 'external stores' "${external[@]}"
check 'external stores, keys by secret' "${external[@]}" --set secrets.objects.existingSecret=keys
check 'embedded stores' "${embedded[@]}"
check 'embedded stores, replicated' "${embedded[@]}" --set embedded.etcd.replicas=3,embedded.nats.replicas=3,embedded.minio.replicas=3
check 'the values of the e2e' -f "$root/tests/k8s/values.yaml"
check 'load balancer, autoscaling' "${external[@]}" --set proxy.service.type=LoadBalancer,proxy.autoscaling.enabled=true --set 'proxy.service.loadBalancerSourceRanges={10.0.0.0/8}'
check 'scratch on volumes' "${external[@]}" --set streaming.scratch.persistence.enabled=true,datanode.scratch.persistence.enabled=true
check 'monitoring' "${external[@]}" --set monitoring.serviceMonitor.enabled=true,monitoring.prometheusRule.enabled=true,monitoring.dashboard.enabled=true
check 'nothing optional' "${external[@]}" --set networkPolicy.enabled=false,topologySpread.enabled=false,test.enabled=false,serviceAccount.create=false,proxy.podDisruptionBudget.enabled=false
check 'settings and placement' "${external[@]}" --set config.segment.maxBytes=64MiB,config.log.level=debug --set proxy.nodeSelector.disk=fast --set 'image.pullSecrets[0].name=registry'
refused 'a typo of a setting' maxConcurentRequests "${external[@]}" --set config.proxy.maxConcurentRequests=3
refused 'a typo of a value' replica "${external[@]}" --set proxy.replica=3
refused 'a secret among the settings' secretAccessKey "${external[@]}" --set config.objects.s3.secretAccessKey=x
refused 'a store of one process' "kind" "${external[@]}" --set config.meta.kind=lmdb
refused 'two members of etcd' replicas "${embedded[@]}" --set embedded.etcd.replicas=2
refused 'no store at all' 'no metadata store'
if [ -n "$conform" ]; then
  for version in $OLDEST $NEWEST; do
    "$conform" -strict -summary -skip $SKIP -kubernetes-version "$version" \
      -schema-location "$schemas/{{ .NormalizedKubernetesVersion }}-local{{ .StrictSuffix }}/{{ .ResourceKind }}{{ .KindSuffix }}.json" \
      "$out"/*.yaml > "$out/conform" 2>&1 || { echo "Kubernetes $version:"; head -20 "$out/conform"; failed=1; continue; }
    echo "ok Kubernetes $version: $(tail -1 "$out/conform")"
  done
fi
exit $failed

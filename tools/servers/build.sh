#!/usr/bin/env bash
# Builds the servers that tests and `make cluster` run (etcd, nats-server, MinIO) from pinned Go modules into a cache outside the tree, once.
# s5cmd, which one benchmark runs beside us, is built only when named.
# usage: build.sh [NAME...]; prints one line a server: NAME PATH. A server on PATH that is new enough is taken instead of building.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${CAIRN_TOOLS_CACHE:-$HOME/.cache/cairn-tools}
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(nats etcd minio)

# newer VERSION LEAST: true when VERSION >= LEAST.
newer() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -1)" = "$2" ]; }

on_path() {
  local found
  case $1 in
    etcd) found=$(etcd --version 2>/dev/null | sed -n 's/^etcd Version: //p') && [ -n "$found" ] && newer "$found" 3.5.0 && command -v etcd ;;
    nats) found=$(nats-server --version 2>/dev/null | sed -n 's/.*v\([0-9.]*\).*/\1/p') && [ -n "$found" ] && newer "$found" 2.12.0 && command -v nats-server ;;
    minio) found=$(minio --version 2>/dev/null | sed -n 's/.*RELEASE\.\([0-9-]*\).*/\1/p' | head -1) && [ -n "$found" ] && newer "$found" 2025-01-01 && command -v minio ;;
    s5cmd) false ;;
  esac
}

package_of() {
  case $1 in
    etcd) echo go.etcd.io/etcd/server/v3 ;;
    nats) echo github.com/nats-io/nats-server/v2 ;;
    minio) echo github.com/minio/minio ;;
    s5cmd) echo github.com/peak/s5cmd/v2 ;;
    *) echo "build.sh: unknown server '$1'; it builds: nats etcd minio s5cmd" >&2; exit 2 ;;
  esac
}

for name in "${names[@]}"; do
  package=$(package_of "$name")
  if path=$(on_path "$name"); then echo "$name $path"; continue; fi
  # Of the contents alone: a build serves every checkout, wherever it lies.
  id=$(cat "$here/$name/go.mod" "$here/$name/go.sum" | sha256sum | cut -c1-12)
  out=$cache/bin/$name-$id
  if [ ! -x "$out" ]; then
    command -v go >/dev/null || { echo "build.sh: $name is not on PATH and there is no Go toolchain to build it with" >&2; exit 3; }
    mkdir -p "$cache/bin"
    echo "building $name from its Go module (once; into $cache) ..." >&2
    (
      exec 9>"$cache/bin/$name.lock"
      flock 9
      [ -x "$out" ] || { cd "$here/$name" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$out.tmp.$$" "$package" && mv "$out.tmp.$$" "$out"; }
    ) >&2
  fi
  echo "$name $out"
done

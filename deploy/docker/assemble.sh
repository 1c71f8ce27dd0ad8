#!/usr/bin/env bash
# Lays out what the image holds: the sources that run, the generated protocols, production packages (Node 24 among them) and a warm compile cache.
# usage: assemble.sh [--sources] OUT     OUT is made; it becomes /app. --sources: without packages. Needs npm, and the repository's own `make install` done (generated protocols).
# No compiler and no test is in it. Called by the Dockerfile's build stage and by image.sh.
set -euo pipefail
sources=0
if [ "${1-}" = --sources ]; then sources=1; shift; fi
[ $# = 1 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$root"
[ -d proto/gen ] || { echo "assemble.sh: proto/gen is missing; run 'make install' first" >&2; exit 1; }

cp package.json package-lock.json LICENSE "$out/"
for room in proto libs/* services/* tools/cli; do
  [ -f "$room/package.json" ] || continue
  mkdir -p "$out/$room"
  cp "$room/package.json" "$out/$room/"
  [ ! -d "$room/src" ] || cp -R "$room/src" "$out/$room/"
done
cp -R proto/gen proto/*.ts "$out/proto/"
mkdir -p "$out/deploy"
cp deploy/docker/round-trip.ts "$out/deploy/"
[ $sources = 0 ] || exit 0

# `npm ci` refuses where a registry lacks other platforms' packages; `npm install` takes the same locked versions. Our own prepare script is not run.
install=(--omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error)
(cd "$out" && { npm ci "${install[@]}" 2>/dev/null || npm install --no-save "${install[@]}"; })
# The package fetches its binary in a script of its own; the one that `make install` got is the same locked version.
mkdir -p "$out/node_modules/node/bin"
cp "$root/node_modules/node/bin/node" "$out/node_modules/node/bin/node"
rm -rf "$out/node_modules/node/node_modules"
mkdir -p "$out/bin"
mv "$out/node_modules/node/bin/node" "$out/bin/node"
rm -rf "$out/node_modules/node" "$out/node_modules/.bin/node"

# Binaries of other platforms, sources of native packages, maps and declarations are of no use at run time.
case $(uname -m) in x86_64) keep=linux-x64 ;; aarch64 | arm64) keep=linux-arm64 ;; *) keep=none ;; esac
find "$out/node_modules" -type d -path '*/prebuilds/*' -prune ! -name "$keep" -exec rm -rf {} +
find "$out/node_modules" -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' -o -name '*.md' -o -name '*.musl.node' \) -delete
find "$out/node_modules" -type d \( -name cpp -o -name c \) -path '*usearch*' -prune -exec rm -rf {} +
find "$out" -type d -empty -delete
chmod -R a+rX "$out"

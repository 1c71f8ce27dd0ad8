#!/usr/bin/env bash
# Lays out what the image holds: the programs as a few files of JavaScript, the packages that cannot be bundled, and Node 24.
# usage: assemble.sh OUT     OUT is made; it becomes /app. Needs the repository's own `make install` (or npm ci and proto/generate.sh) done.
# No compiler, no test and no source is in it. Called by the Dockerfile's build stage and by image.sh.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
[ -d "$root/proto/gen" ] || { echo "assemble.sh: proto/gen is missing; run 'make install' first" >&2; exit 1; }

"$root/node_modules/.bin/node" "$root/deploy/docker/bundle.ts" "$out" >&2
mkdir -p "$out/bin"
# npm's `node` package holds the locked version; where it is a link, what it points to.
cp -L "$root/node_modules/node/bin/node" "$out/bin/node"
# There is no shell in the image: the kernel starts this one by its first line.
printf '#!/app/bin/node\nimport "../bundle/main.js";\n' > "$out/bin/cairn"
chmod 755 "$out/bin/cairn"
cp "$root/LICENSE" "$out/"
echo '{ "name": "cairn", "private": true, "type": "module" }' > "$out/package.json"

# Binaries of other platforms, sources of native packages, maps and declarations are of no use at run time.
case $(uname -m) in x86_64) keep=linux-x64 ;; aarch64 | arm64) keep=linux-arm64 ;; *) keep=none ;; esac
find "$out/node_modules" -type d -path '*/prebuilds/*' -prune ! -name "$keep" -exec rm -rf {} +
find "$out/node_modules" -type f \( -name '*.map' -o -name '*.ts' -o -name '*.mts' -o -name '*.cts' -o -name '*.md' -o -name '*.musl.node' \
  -o -name '*.h' -o -name '*.hpp' -o -name '*.c' -o -name '*.cc' -o -name '*.cpp' -o -name '*.o' -o -name '*.a' \) -delete
find "$out/node_modules" -type d -name numkong -path '*usearch*' -prune -exec rm -rf {} +
find "$out" -type d -empty -delete
chmod -R a+rX "$out"

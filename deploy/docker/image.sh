#!/usr/bin/env bash
# Makes images where there is no Docker and no registry: root file systems from what this machine has, packed by a given program.
# usage: image.sh OUT_DIR TAG     writes OUT_DIR/cairn.tar (cairn:TAG) and etcd.tar, nats.tar, minio.tar (cairn-test/NAME:TAG), prints their names; 5: the image does not run
# CAIRN_K8S_TOOLS names a directory with mk-image.sh: mk-image.sh ROOTFS NAME:TAG OUT.tar [--user U] [--workdir D] [--env K=V] -- CMD...
# Same layout, user, environment and entry point as the Dockerfile. Needs root (chroot) only to warm the compile cache; else that is left out.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
pack=${CAIRN_K8S_TOOLS:?image.sh: CAIRN_K8S_TOOLS must name a directory with mk-image.sh}/mk-image.sh
[ -x "$pack" ] || { echo "image.sh: $pack is not there" >&2; exit 1; }
mkdir -p "$1"
out=$(cd "$1" && pwd) tag=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# base DIR: what every image has beside its program.
base() {
  mkdir -p "$1"/{etc,tmp,data,usr/local/bin,app}
  chmod 755 "$1"
  chmod 1777 "$1/tmp" "$1/data"
  printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/data:/sbin/nologin\n' > "$1/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' > "$1/etc/group"
  echo 'hosts: files dns' > "$1/etc/nsswitch.conf"
  if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
    mkdir -p "$1/etc/ssl/certs"
    cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
  fi
}

# Shared libraries of node and of native packages, where the loader looks for them.
libraries() {
  local program
  { for program in "$1/app/bin/node" $(find "$1/app/node_modules" -name '*.node' -type f); do ldd "$program" 2>/dev/null || true; done; } |
    sed -n 's/.* => \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | sort -u |
    while read -r library; do
      mkdir -p "$1${library%/*}"
      cp -L "$library" "$1$library"
    done
}

cairn=$work/cairn
base "$cairn"
"$here/assemble.sh" "$cairn/app" >&2
libraries "$cairn"
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$cairn/dev"
  # 5: packed as it should be, and does not run. Everything else that fails here is the machine's or the registry's.
  NODE_COMPILE_CACHE=/app/.compile-cache NODE_ENV=production chroot "$cairn" /app/bin/node /app/bundle/warm.js /tmp/warm 65532 >&2 ||
    { echo "image.sh: what is in the image does not run" >&2; exit 5; }
  chmod -R a+rX "$cairn/app/.compile-cache"
fi
"$pack" "$cairn" "docker.io/library/cairn:$tag" "$out/cairn.tar" --user 65532:65532 --workdir /app --port 19530 --port 9090 --port 9091 \
  --env NODE_ENV=production --env NODE_COMPILE_CACHE=/app/.compile-cache --env PATH=/app/bin:/usr/local/bin:/usr/bin:/bin \
  -- /app/bin/node /app/bundle/main.js

"$root/tools/servers/build.sh" | while read -r name path; do
  base "$work/$name"
  case $name in nats) program=nats-server ;; *) program=$name ;; esac
  cp "$path" "$work/$name/usr/local/bin/$program"
  "$pack" "$work/$name" "docker.io/cairn-test/$name:$tag" "$out/$name.tar" --user 65532:65532 -- "/usr/local/bin/$program"
done

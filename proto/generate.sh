#!/usr/bin/env bash
# Generates proto/gen from the .proto files when they are newer than what is there. Called by the Makefile and by npm's prepare step.
set -euo pipefail
cd "$(dirname "$0")"
stamp=gen/.stamp
id=$(cat milvus/*.proto cairn/*.proto buf*.yaml ../package-lock.json generate.sh | sha256sum | cut -d' ' -f1)
[ "$(cat $stamp 2>/dev/null || true)" = "$id" ] && exit 0
rm -rf gen
export PATH="$PWD/../node_modules/.bin:$PATH"
buf lint .
buf generate --template buf.gen.milvus.yaml --path milvus
buf generate --template buf.gen.cairn.yaml --path cairn
echo "$id" > $stamp

#!/usr/bin/env bash
# Generates proto/gen from the .proto files when they are newer than what is there. Called by the Makefile and by npm's prepare step.
set -euo pipefail
cd "$(dirname "$0")"
stamp=gen/.stamp
id=$(cat milvus/*.proto cairn/*.proto buf*.yaml number-wire.ts ../package-lock.json generate.sh | sha256sum | cut -d' ' -f1)
[ "$(cat $stamp 2>/dev/null || true)" = "$id" ] && exit 0
rm -rf gen
export PATH="$PWD/../node_modules/.bin:$PATH"
buf lint .
buf generate --template buf.gen.milvus.yaml --path milvus
buf generate --template buf.gen.cairn.yaml --path cairn
# Safe integers do not go over BigInt: see number-wire.ts.
sed -i.bak -e 's#import { BinaryReader, BinaryWriter } from "@bufbuild/protobuf/wire"#import { BinaryReader, BinaryWriter } from "../../number-wire.ts"#' \
  -e 's#longToNumber(reader.uint64())#reader.uint64Number()#' gen/cairn/*.ts
rm gen/cairn/*.bak
echo "$id" > $stamp

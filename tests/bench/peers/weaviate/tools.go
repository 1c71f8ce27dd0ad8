//go:build tools

// Package weaviate pins the server that tests/bench/peers.bench.ts measures beside ours.
package weaviate

import _ "github.com/weaviate/weaviate/cmd/weaviate-server"

# Everything a developer does. `make run` and `make test` are all a newcomer needs: each installs what it needs first.
SHELL := /bin/bash
NODE := ./node_modules/.bin/node
CAIRN := $(NODE) tools/cli/src/main.ts
# What Node compiled, kept with the packages: the first start after an install is as fast as later ones.
WARM := node_modules/.cache/cairn/.warm
TOOLS_CACHE ?= $(or $(CAIRN_TOOLS_CACHE),$(HOME)/.cache/cairn-tools)

.DEFAULT_GOAL := help
.PHONY: help install tools run cluster test check unit sim chaos types lint lint-fix arrows bench example lint-chart e2e-k8s clean

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: node_modules/.installed ## npm packages (Node 24 among them) and generated protocol code; fills the compile cache
	@proto/generate.sh
	@[ -f $(WARM) ] || $(NODE) tools/install/warm-compile-cache.ts

# `npm ci` refuses where the registry lacks the packages of platforms that are not ours; `npm install` takes the same locked versions.
node_modules/.installed: package-lock.json package.json
	@npm ci --no-audit --no-fund --loglevel=error 2>/dev/null || npm install --no-save --no-audit --no-fund --loglevel=error
	@touch $@

tools: ## etcd, nats-server and MinIO, built once into the cache (needs Go; MinIO takes 5 minutes)
	@tools/servers/build.sh

run: install ## One process on embedded stores: Milvus gRPC on 127.0.0.1:19530, health and metrics on :9091, data in ./data
	@exec $(CAIRN) server standalone

cluster: install ## The same on real etcd, NATS and MinIO: 2 proxies, 2 datacoords, 2 streaming nodes, 2 datanodes, each its own process
	@exec $(NODE) tests/support/cluster-main.ts

example: install ## The example of the README against a server that runs
	@exec $(NODE) examples/packages/main.ts

test: install ## All tests, real servers included; last line: N passed, N failed, N skipped
	@exec $(NODE) tests/scripts/run-tests.ts

check: install types lint arrows unit ## Types, lint, architecture, unit tests

types: install ## tsc, strict
	@node_modules/.bin/tsc -p .

lint: install ## Biome
	@node_modules/.bin/biome check --error-on-warnings .

lint-fix: install ## Biome, mending what it can
	@node_modules/.bin/biome check --write .

arrows: install ## Imports go one way, no room reaches into another
	@$(NODE) tests/scripts/check-arrows.ts

unit: install ## Tests of libs and services alone
	@exec $(NODE) node_modules/.bin/vitest run --dir . libs services tools

SEEDS ?= 200
SEED_START ?= 0
KILLS ?=
sim: install ## The whole house simulated under SEEDS=200 seeds from SEED_START=0 on, or with kills at every await of KILLS=create,drop,pin,… or all; last line: N passed, N failed
	@exec $(NODE) tests/sim/main.ts $(if $(KILLS),--kills $(KILLS),--seeds $(SEEDS) --start $(SEED_START))

CYCLES ?= 50
SEED ?= 1
chaos: install ## CYCLES=50 of kills, hangs and misbehaving stores on a real cluster, SEED=1; last line: N passed, N failed
	@exec $(NODE) tests/chaos/main.ts --cycles $(CYCLES) --seed $(SEED)

bench: install ## Benchmarks; each prints a table
	@exec $(NODE) tests/bench/run.ts

lint-chart: ## The Helm chart: lint, renderings, Kubernetes' schemas (tools built once with Go)
	@tests/scripts/lint-chart.sh

e2e-k8s: install ## Smoke, example and snapshots on a real Kubernetes cluster; ./tests/scripts/e2e-k8s.sh --help
	@tests/scripts/e2e-k8s.sh --suite smoke,sdk,snapshot

clean: ## Generated code and packages; not the data
	@rm -rf node_modules proto/gen

# Pelorus. `make demo` and `make test` do everything on a fresh machine; the rest are their parts.
# With KUBECONFIG set, the targets use that cluster instead of the embedded one (see docs/development.md).

PELORUS_CACHE ?= $(HOME)/.cache/pelorus
PROFILE ?= release
# Build products live outside the clone: a second clone is quick. Cargo itself knows what a changed lock file makes stale.
TARGET_KEY := $(shell (rustc --version; cat .cargo/config.toml) | sha256sum | cut -c1-12)
export PELORUS_CACHE
export CARGO_TARGET_DIR ?= $(PELORUS_CACHE)/target-$(TARGET_KEY)

DEVCLUSTER = cargo run --quiet -p pelorus-dev --bin devcluster --
TOOLS = PATH="$$(deploy/tools/install):$$PATH"
NEXTEST = $(TOOLS) cargo nextest run --no-fail-fast

# Of the fault suite and what measures failovers.
RUNS ?= 20
SEED ?= 1
MINUTES ?= 20

.PHONY: help deps cluster cluster-down images install demo test test-unit test-e2e test-faults test-long bench bench-failover bench-archive chaos noise generate generate-check fmt lint clean

help: ## This list.
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

deps: ## Install and build what the development cluster runs (cached).
	$(DEVCLUSTER) build
	@deploy/tools/install >/dev/null

cluster: ## Bring up the embedded development Kubernetes.
	$(DEVCLUSTER) up

cluster-down: ## Take it away, with all that it made.
	$(DEVCLUSTER) down

images: ## Build all images and import them; with your own KUBECONFIG: say how to push them to $PELORUS_REGISTRY.
	@mkdir -p target
	$(DEVCLUSTER) images --profile $(PROFILE) >target/images.json

install: cluster images ## Install or upgrade Pelorus on the cluster with Helm.
	deploy/dev/install.sh target/images.json

demo: install ## The main job: a lossless three-instance cluster, written to and read back.
	deploy/dev/demo.sh

test: test-unit test-e2e ## Everything that each landing has to pass.

test-unit: deps ## Unit, property and real-mysqld tests; needs no cluster.
	$(NEXTEST) --workspace --exclude tests

test-e2e: install ## The suite on the development cluster, with the rows of the fault suite that each landing passes.
	$(DEVCLUSTER) heal
	@rm -f target/faults.jsonl
	$(NEXTEST) --profile e2e -p tests --features faults

test-faults: install ## The whole fault suite, and a table of it.
	$(DEVCLUSTER) heal
	@rm -f target/faults.jsonl
	@status=0; $(NEXTEST) --profile faults -p tests --features faults || status=$$?; \
	cargo run --quiet -p tests --features faults --bin faults_table || status=1; exit $$status

test-long: install ## What is too heavy for each landing.
	$(NEXTEST) --profile long -p tests --features long

bench: install ## Measure, print tables, write target/bench/*.json.
	cargo run --quiet --release -p tests --bin bench_ready
	cargo run --quiet --release -p tests --bin bench_writes
	PELORUS_BENCH_CLUSTERS=1 cargo run --quiet --release -p tests --bin bench_memory
	PELORUS_BENCH_CLUSTERS=20 cargo run --quiet --release -p tests --bin bench_memory

bench-failover: install ## From a fault to the first acknowledged write; RUNS=20, FAULTS=kill,place,pod,stop,cut,off,switch.
	$(DEVCLUSTER) heal
	RUNS=$(RUNS) FAULTS=$(FAULTS) cargo run --quiet --release -p tests --bin bench_failover

bench-archive: deps ## Dumps, loads and replays beside mysqldump and mysqlbinlog; needs no cluster; GB=1, RUNS=3.
	GB=$(GB) cargo run --quiet --release -p tests --bin bench_archive

chaos: install ## A random walk over all faults with the write ledger; SEED=1, MINUTES=20.
	$(DEVCLUSTER) heal
	SEED=$(SEED) MINUTES=$(MINUTES) cargo run --quiet --release -p tests --bin chaos

noise: install ## Lost packets, a core taken in bursts, restarts of daemons and the API server: the primary stays; MINUTES=20.
	$(DEVCLUSTER) heal
	MINUTES=$(MINUTES) cargo run --quiet --release -p tests --bin noise

generate: ## Write everything that is generated.
	cargo run --quiet -p common --bin pelorus-generate

generate-check: ## Fail when something generated is not current.
	cargo run --quiet -p common --bin pelorus-generate -- --check

fmt: ## Format.
	cargo fmt --all

lint: deps generate-check ## Format, clippy, dependencies, generated files, charts.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	$(TOOLS) cargo deny --offline check bans licenses sources
	eval "$$($(DEVCLUSTER) env)" && helm lint --strict deploy/charts/pelorus-crds deploy/charts/pelorus

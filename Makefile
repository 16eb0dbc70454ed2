# Two commands matter: `make demo` shows Quern on real data, `make test` proves it. Each sets the machine up first, with what
# it needs and no more.

SHELL := /bin/bash
export QUERN_CACHE ?= $(HOME)/.cache/quern
export CARGO_TARGET_DIR ?= $(QUERN_CACHE)/target
# Where Python and ONNX Runtime are, setup.sh says to cargo, and so to us. Asked anew by each line, since `setup` writes it.
said = $(shell sed -n 's/^$(1) = "\(.*\)"$$/\1/p' .cargo/config.toml 2>/dev/null)
ifndef QUERN_PYTHON
export QUERN_PYTHON = $(call said,QUERN_PYTHON)
endif
ifndef ORT_DYLIB_PATH
export ORT_DYLIB_PATH = $(call said,ORT_DYLIB_PATH)
endif

PYTHON_FILES := sdk/python feature-defs/examples benches deploy
DENY_VERSION := 0.20.2
DENY := $(QUERN_CACHE)/tools/bin/cargo-deny-$(DENY_VERSION)
CYCLONEDX_VERSION := 0.5.9
CYCLONEDX := $(QUERN_CACHE)/tools/bin/cargo-cyclonedx-$(CYCLONEDX_VERSION)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup build demo serve test test-all soak try lint deny sbom fuzz fuzz-smaller bench dist compile setup-build setup-demo setup-test setup-all

help:
	@echo 'make demo      set up, build, and show the flights example from end to end'
	@echo 'make serve     serve the flights example, as the demo left it, at 127.0.0.1:7400'
	@echo 'make test      set up, check the style, and run every test'
	@echo 'make try T=…   some tests, as in T="--test quern laws::rows": our crates are not optimised, so an edit costs seconds'
	@echo 'make test-all  the same, 25 times the random cases, all models of ONNX, and `make deny`: before a release'
	@echo 'make soak      ten million simulations of the log, a thousand kills: as long as you like'
	@echo 'make fuzz T=…  hostile bytes for one question of fuzz/, ten minutes or SECONDS=…: needs nightly and cargo-fuzz'
	@echo 'make bench     measure: our own benches, then DuckDB, Polars and Quern side by side'
	@echo 'make build     build the server'
	@echo 'make dist      build the server as it is shipped: slower to build, faster to run'
	@echo 'make deny      what do we depend on? Licences, sources, doubles: ask when Cargo.lock has changed'
	@echo 'make sbom      what the binary is made of, as CycloneDX: quern.cdx.json'
	@echo 'make setup     install what is missing: system packages, RocksDB, Python packages'

setup: setup-test

setup-build setup-demo setup-test setup-all: setup-%:
	@./setup.sh $*

# One profile and one set of features for all: DataFusion is costly to build, and every other profile or selection of
# packages builds it anew.
compile:
	cargo build --workspace --bins

build: setup-build compile

demo: setup-demo compile
	@$(QUERN_PYTHON) feature-defs/examples/flights/demo.py

serve: build
	@exec $(CARGO_TARGET_DIR)/debug/quern serve feature-defs/examples/flights

dist: setup-build
	cargo build --profile dist --workspace --bins

# Many a test waits for another process, or for a time to be over: the processors have time for others meanwhile.
test: export RUST_TEST_THREADS ?= $(shell expr 2 '*' $$(nproc))
test: lint compile
	cargo test --workspace
	PYTHONPATH=sdk/python $(QUERN_PYTHON) -m pytest sdk/python/tests

# Our crates once more beside those that the tests run with; the dependencies are the same.
try: setup-build
	CARGO_PROFILE_DEV_OPT_LEVEL=0 cargo test --workspace $(T)

# What is too heavy for every change.
test-all: setup-all test deny
	QUERN_CASES_TIMES=25 cargo test --workspace --test quern -- laws::
	cargo test --workspace --test quern -- --ignored models::registered
	PYTHONPATH=sdk/python $(QUERN_PYTHON) -m pytest -m heavy sdk/python/tests

lint: setup-test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings
	$(QUERN_PYTHON) -m ruff check --quiet --config sdk/python/pyproject.toml $(PYTHON_FILES)
	$(QUERN_PYTHON) -m ruff format --quiet --check --config sdk/python/pyproject.toml $(PYTHON_FILES)
	$(QUERN_PYTHON) -m mypy --config-file sdk/python/pyproject.toml sdk/python/quern

# Not part of `test`: building the tool costs a new machine minutes, and the answer changes with Cargo.lock alone.
deny: setup-build $(DENY)
	$(DENY) --log-level warn check bans licenses sources

# A debug build, in a target folder of its own: it is used for seconds and costs minutes.
$(DENY):
	CARGO_TARGET_DIR=$(QUERN_CACHE)/tools/target cargo install --quiet --locked --debug \
		--root $(QUERN_CACHE)/tools --version $(DENY_VERSION) cargo-deny
	mv $(QUERN_CACHE)/tools/bin/cargo-deny $@
	rm -rf $(QUERN_CACHE)/tools/target

# A description of what the binary is made of, without what only tests and benches need. It builds nothing but the tool.
sbom: setup-build $(CYCLONEDX)
	$(CYCLONEDX) cyclonedx --manifest-path server/cli/Cargo.toml --format json --spec-version 1.5 \
		--describe binaries --target $$(rustc --print host-tuple) --no-build-deps --quiet
	mv server/cli/quern_bin.cdx.json quern.cdx.json

$(CYCLONEDX):
	CARGO_TARGET_DIR=$(QUERN_CACHE)/tools/target cargo install --quiet --locked --debug \
		--root $(QUERN_CACHE)/tools --version $(CYCLONEDX_VERSION) cargo-cyclonedx
	mv $(QUERN_CACHE)/tools/bin/cargo-cyclonedx $@
	rm -rf $(QUERN_CACHE)/tools/target

# By hand, on nightly: `cargo install cargo-fuzz` is no part of the setup. Without a sanitizer, since no code of ours is
# unsafe; with the versions that the server is built from.
SECONDS ?= 600
FUZZ_FLAGS := --release --sanitizer none --target-dir $(CARGO_TARGET_DIR)/fuzz

# What was acknowledged is there, once, whatever happens: as QUERN_SIMULATIONS says, how many seeds, and QUERN_SEED, which;
# as QUERN_KILLS says, how many processes are killed at a point between two steps.
soak: setup-test
	QUERN_SIMULATIONS=$${QUERN_SIMULATIONS:-10000000} cargo test --workspace --lib -- simulated
	QUERN_KILLS=$${QUERN_KILLS:-1000} cargo test --workspace --test quern -- laws::kills --nocapture

fuzz:
	cp Cargo.lock fuzz/Cargo.lock
	mkdir -p fuzz/corpus/$(T)
	cargo +nightly fuzz run $(FUZZ_FLAGS) $(T) fuzz/corpus/$(T) fuzz/seeds/$(T) -- \
		-max_total_time=$(SECONDS) -rss_limit_mb=2048 -timeout=10

# An input that breaks something as well, but is shorter.
fuzz-smaller:
	cargo +nightly fuzz tmin $(FUZZ_FLAGS) $(T) $(INPUT)

# Our crates as fast as they get, beside those of the tests; the dependencies are the same.
bench: export CARGO_PROFILE_DEV_OPT_LEVEL = 2
bench: setup-test compile
ifdef B
	cargo bench --profile dev --workspace --bench $(B)
else
	cargo bench --profile dev --workspace
	$(QUERN_PYTHON) benches/peers/compare.py
	$(QUERN_PYTHON) benches/peers/windows.py
endif

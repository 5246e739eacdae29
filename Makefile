# What a person calls. The chores themselves are in `cargo xtask` and scripts/setup.
# Works with the GNU make 3.81 of macOS.

SHELL := /bin/bash
export PATH := $(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
# Last: clients such as psql, where Homebrew and Debian put those of a server that is not linked.
export PATH := $(PATH):/opt/homebrew/opt/postgresql@15/bin:/usr/local/opt/postgresql@15/bin:/usr/lib/postgresql/15/bin
# The replay and the tests also look for PostgreSQL servers here; scripts/setup fills it.
export HOLDFAST_POSTGRES_DIRS := $(CURDIR)/.postgres$(if $(HOLDFAST_POSTGRES_DIRS),:$(HOLDFAST_POSTGRES_DIRS))

# Arguments for the replay, for example: make demo ARGS="--serve"
ARGS ?=

.PHONY: help setup demo check clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    play the nine seconds of 24 April 2026 against a throw-away stack (sets up first)"
	@echo "make check   format, lints, tidy rules, tests on two PostgreSQL majors, docs (sets up first)"
	@echo "make setup   install what is missing; says what before it does (dry run: scripts/setup --dry-run)"
	@echo "make clean   remove what was built; installed packages stay"

setup:
	@scripts/setup

# The dev profile: its hot dependencies are optimised, and a cold release build takes far longer.
demo:
	@scripts/setup demo
	cargo build --workspace --bins
	target/debug/holdfast replay pocketos $(ARGS)

check:
	@scripts/setup
	@cargo run -q -p xtask -- check

clean:
	cargo clean

# Everything a person needs: `make demo` shows membudget at work, `make test` proves it. Both install what they need first.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
UV_VERSION := 0.13.8
# A uv on the PATH is used; otherwise one is installed into .tools by plain venv and pip.
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
RUN := $(VENV)/bin
MEMBERS := contract runtime sidecar engine cli controller
IMAGES := controller sidecar engine

help:  ## List the targets.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

demo: install  ## An engine under a budget of 165 MiB, 20 agents, and a live edit to 150 MiB. Under 3 minutes, no cluster.
	@$(RUN)/membudget demo

test: install  ## Every test of the usual run; with ARGS only those: make test ARGS=tests/sidecar.
ifdef ARGS
	$(RUN)/pytest $(ARGS)
else
	failed=0
	$(RUN)/pytest -n 2 --dist loadfile -m "not alone" || failed=1
	$(RUN)/pytest -n 3 --dist loadfile tests/cluster || failed=1
	$(RUN)/pytest -m alone --ignore=tests/cluster || failed=1
	exit $$failed
endif

lint: install  ## ruff, format check, basedpyright strict, import contracts.
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/basedpyright
	$(RUN)/lint-imports --no-cache

format: install  ## Format and fix what can be fixed by machine.
	$(RUN)/ruff format
	$(RUN)/ruff check --fix

soak: install  ## Minutes-long runs: steady state with full caches for 5 minutes.
	$(RUN)/pytest -m soak --timeout=1200 $(ARGS)

torture: install  ## Bursts, growths, kills, cuts and bad input of the usual run, many times. A day.
	MEMBUDGET_FAULT_RUNS=20 $(RUN)/pytest tests/runtime tests/engine tests/sidecar --timeout=7200 $(ARGS)
	MEMBUDGET_BURST_RUNS=200 $(RUN)/pytest tests/system/test_burst.py --timeout=7200 $(ARGS)
	MEMBUDGET_WRITE_KILLS=1000 $(RUN)/pytest tests/engine/test_write_crashes.py --timeout=7200 $(ARGS)
	MEMBUDGET_API_CASES=100000 $(RUN)/pytest tests/engine/test_openapi.py tests/sidecar/test_openapi.py --timeout=14400 $(ARGS)
	MEMBUDGET_UPLOAD_KILLS=100 MEMBUDGET_UPLOAD_MB=512 $(RUN)/pytest tests/engine/test_ingest_api.py --timeout=7200 $(ARGS)
	MEMBUDGET_HOSTILE_FILES=20000 $(RUN)/pytest tests/engine/test_hostile_indexes.py --timeout=28800 $(ARGS)
	MEMBUDGET_MUTATED_FILES=1000000 $(RUN)/pytest tests/runtime/test_mutated_files.py --timeout=14400 $(ARGS)
	MEMBUDGET_MIXTURES=2000 $(RUN)/pytest tests/runtime/test_cache_mixture.py --timeout=3600 $(ARGS)
	MEMBUDGET_SYSCALL_KILLS=1000 $(RUN)/pytest tests/engine/test_syscall_kills.py --timeout=14400 $(ARGS)
	MEMBUDGET_POWER_CUTS=300 $(RUN)/pytest tests/engine/test_power_loss.py --timeout=14400 $(ARGS)
	MEMBUDGET_COMPACT_ROWS=60000 $(RUN)/pytest tests/engine/test_compact_ingestion.py --timeout=7200 $(ARGS)
	MEMBUDGET_GROWTH_RUNS=20 $(RUN)/pytest tests/system/test_growth.py --timeout=7200 $(ARGS)
	MEMBUDGET_CRASH_RUNS=30 MEMBUDGET_TRANSITIONS=5000 $(RUN)/pytest tests/cluster/test_crash_points.py \
	    tests/cluster/test_policy_transitions.py --timeout=14400 $(ARGS)

bench: install  ## Side-by-side measurements; prints ratios.
	for script in give_back slots cache_operations replacement mapped_index allocators footprint embedding_cache \
	    write_amplification shown_chunks compact_index; do $(RUN)/python benches/$$script.py; done

profile: install  ## What membudget costs and saves here, beside a naive build; renews docs/profile.md. 10 minutes.
	$(RUN)/membudget profile --report docs $(ARGS)

million: install  ## 1,000,000 vectors of 512 built and served in 150 MB; as root, 6 GB of disk, ten minutes or more.
	$(RUN)/python benches/million_vectors.py

cluster-binaries: install  ## etcd, kube-apiserver, kubectl and helm for the cluster tests, from Go modules; 8 minutes once.
	$(RUN)/python tests/cluster/binaries.py

cgroup-v2: install  ## The cgroup tests on a real cgroup v2, in a small emulated machine; Debian, 2 minutes.
	PYTHONPATH=tests $(RUN)/python -m emulated.machine $(ARGS)

node-binaries: cluster-binaries  ## kubelet, containerd, runc, helm and more for the node tests; 7 more minutes once.
	$(RUN)/python tests/node/binaries.py

node-test: install  ## The chart on a real kubelet: images built, installed, loaded, killed, resized. Root; 10 minutes.
	$(RUN)/pytest -m node --timeout=900 tests/node $(ARGS)

wheelhouse: install  ## What the images are built from, fetched and built into dist/wheelhouse.
	$(RUN)/python images/wheelhouse.py

images: wheelhouse  ## Archives of the three images in dist/images, by buildah; BASE=image to build on another base.
	$(RUN)/python images/build.py $(if $(BASE),--base=$(BASE))

manifests: install  ## Plain manifests for kubectl apply --server-side, into dist/manifests; needs helm or make cluster-binaries.
	PATH="$$PATH:$$($(RUN)/python tests/charts/tools.py --folder)" $(RUN)/python deploy/manifests.py

release: images manifests  ## Chart package, wheels, manifests, image archives and their checksums, into dist.
	PATH="$$PATH:$$($(RUN)/python tests/charts/tools.py --folder)" $(RUN)/python images/release.py

crd: install  ## Renew the CustomResourceDefinition that the chart ships.
	$(RUN)/python charts/membudget/render_crd.py

chart-readme: install  ## Renew the table of values in the chart's README.
	$(RUN)/python charts/membudget/render_values_table.py

api-docs: install  ## Renew the OpenAPI documents of sidecar and engine.
	$(RUN)/python docs/api/render_openapi.py

observability: install  ## Renew the rules and dashboards that the chart ships, and docs/metrics.md.
	PYTHONPATH=observability $(RUN)/python -m membudget_observability

dashboard-pictures: install  ## Draw docs/images from five minutes of real processes. Root, prometheus; 6 minutes.
	PYTHONPATH=tests:observability $(RUN)/python -m observability.pictured_run

lock: $(UV)  ## Renew requirements.lock and images/requirements from the members' pyproject.toml files.
	$(UV) lock --quiet
	$(UV) export --quiet --frozen --all-packages --all-groups --all-extras --no-emit-workspace --no-header --no-annotate \
	    --format requirements.txt --output-file requirements.lock
	export="$(UV) export --quiet --frozen --no-emit-workspace --no-header --no-annotate --format requirements.txt"
	for member in $(IMAGES); do
	    $$export --no-dev --package membudget-$$member --output-file images/requirements/$$member.txt
	done
	$$export --only-group images --output-file images/requirements/installer.txt

install: $(VENV)/.installed  ## Install everything into .venv; the other targets do it by themselves.

.tools/bin/uv:
	@command -v $(PYTHON) >/dev/null || { echo "python3 >= 3.11 is missing. On Debian: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11; say which to use: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "python3 has no venv. On Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.installed: requirements.lock $(MEMBERS:%=%/pyproject.toml) | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	$(UV) pip install --quiet --python $(VENV) --require-hashes --compile-bytecode -r requirements.lock
	$(UV) pip install --quiet --python $(VENV) --no-deps --no-build-isolation $(MEMBERS:%=-e ./%)
	$(RUN)/python -m compileall -q $(MEMBERS:%=%/src)
	touch $@

clean:  ## Remove what the targets made here.
	rm -rf $(VENV) .tools dist .pytest_cache .ruff_cache .hypothesis

.PHONY: help demo test lint format soak torture bench million profile cluster-binaries cgroup-v2 node-binaries node-test wheelhouse images manifests release crd chart-readme api-docs observability dashboard-pictures lock install clean

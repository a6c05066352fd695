# `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
BENCH := .venv/.bench
BROWSER := .venv/.browser
CLIENTS := .venv/clients/.installed
OBJECT_STORE := .venv/object-store/.installed
DOWNLOADER := .venv/download/.installed
OTHER_GATEWAYS := build/bench-gateway/.installed
EXTRAS := operator balancer download dev bench litellm llama-server llama-server-cuda llama-tests browser clients object-store model-sources real-model

CLUSTER ?= test
export SLOTKEEPER_TEST_CLUSTER = $(CLUSTER)
# `demo` unless CLUSTER is set: the demo must not change the cluster of the tests.
DEMO_CLUSTER = $(if $(filter file,$(origin CLUSTER)),demo,$(CLUSTER))
# pytest arguments for the value of T: a path (with ::TEST), otherwise an expression for -k.
SELECTION = $(if $(wildcard $(firstword $(subst ::, ,$(T)))),"$$T",tests e2e -k "$$T")

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: prerequisites $(INSTALLED) ## Create a cluster and a server that responds, scales up and scales down again
	@$(BIN)/python e2e/demo.py --name $(DEMO_CLUSTER)

.PHONY: run
run: $(INSTALLED) ## Run the operator from the checkout with the current kubeconfig; ARGS=operator flags
	@$(BIN)/python e2e/run_operator.py $(ARGS)

.PHONY: test
test: prerequisites check $(OBJECT_STORE) browser clients ## Run everything: checks, then end-to-end tests on a new cluster beside all other tests
	@mkdir -p build; \
	trap './e2e/cluster --name $(CLUSTER) down' EXIT; \
	status=0; \
	$(MAKE) --no-print-directory --jobs=2 test-cluster test-host || status=$$?; \
	echo "the tests that need no cluster:"; \
	cat build/test-host.log; \
	exit $$status

.PHONY: test-cluster
test-cluster: $(INSTALLED)
	@./e2e/cluster --name $(CLUSTER) up
	@$(BIN)/pytest e2e

# End-to-end tests mostly wait, for a kubelet as slow as a real one, and these mostly compute.
.PHONY: test-host
test-host: $(INSTALLED)
	@nice -n 5 $(MAKE) --no-print-directory test-without-cluster > build/test-host.log 2>&1

.PHONY: test-without-cluster
test-without-cluster: $(INSTALLED) $(OBJECT_STORE) $(BROWSER)
	@$(BIN)/pytest tests/unit tests/golden
	@$(BIN)/pytest tests/api
	@$(BIN)/pytest tests/browser

.PHONY: unit
unit: check $(OBJECT_STORE) ## Run the checks and the unit tests (the fast part of `make test`)
	@$(BIN)/pytest tests/unit tests/golden

.PHONY: test-browser
test-browser: browser ## Run the tests of the gateway's page in headless Chromium
	@$(BIN)/pytest tests/browser

.PHONY: browser
browser: $(BROWSER) ## Install what the tests of the page need: Playwright, axe, and Debian's Chromium
	@./e2e/cluster chromium >/dev/null || true

.PHONY: test-clients
test-clients: clients ## Run the tests with the libraries of OpenAI, Anthropic and Ollama, LiteLLM and Open WebUI's requests
	@PYTHONPATH=operator .venv/clients/bin/python -m pytest tests/clients

.PHONY: clients
clients: $(CLIENTS) ## Install the client libraries that are tested, in an environment of their own

.PHONY: screenshots
screenshots: browser ## Write the screenshots of the gateway's page in docs/images
	@PYTHONPATH=e2e $(BIN)/python tests/support/page_screenshots.py

.PHONY: test-one
test-one: $(INSTALLED) $(OBJECT_STORE) ## Run selected tests: T=PATH, T=PATH::TEST or T=EXPRESSION; a cluster is left up
	@test -n "$(T)" || { echo 'usage: make test-one T=tests/unit/wire/test_parse.py, or T="affinity and not queue"' >&2; exit 2; }
	@case "$(T)" in */*) test -e "$(firstword $(subst ::, ,$(T)))" || { echo "test-one: no file or folder $(T)" >&2; exit 2; };; esac
	@$(BIN)/pytest $(SELECTION) || status=$$?; \
	if ./e2e/cluster --name $(CLUSTER) status >/dev/null 2>&1; then \
		echo "cluster $(CLUSTER) is up; to remove it: ./e2e/cluster --name $(CLUSTER) down"; \
	fi; \
	exit $${status:-0}

.PHONY: test-long
test-long: $(INSTALLED) ## Run the unit tests with fifty times as many random inputs (ten minutes)
	@$(BIN)/pytest --hypothesis-profile=long tests/unit

.PHONY: e2e-long
e2e-long: prerequisites $(INSTALLED) ## Run the long end-to-end tests: real KEDA and Kueue, a real model, 200 scale-downs under load, llama.cpp's own tests
	@trap './e2e/cluster --name $(CLUSTER) down' EXIT; \
	./e2e/cluster --name $(CLUSTER) up; \
	$(BIN)/pytest -m long e2e

.PHONY: check
check: $(INSTALLED) ## Run formatter, linter, type checker and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: format
format: $(INSTALLED) ## Format the sources and fix what the linter can fix
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: crds
crds: $(INSTALLED) ## Generate the CRDs and docs/reference from the API's models
	@$(BIN)/python -m slotkeeper.api.crd
	@$(BIN)/python -m slotkeeper.api.reference
	@$(BIN)/python -m slotkeeper.llamacpp.diagnosis.page

.PHONY: goldens
goldens: $(INSTALLED) ## Generate the golden manifests in tests/golden
	@$(BIN)/python tests/support/goldens.py

.PHONY: bake
bake: $(INSTALLED) ## Build an image with a model in it; ARGS="--model URL --image NAME", see docs/baked-images.md
	@$(BIN)/slotkeeper bake $(ARGS)

REGISTRY ?=
# docker only if its daemon responds: the client alone builds nothing.
CONTAINER_TOOL ?= $(firstword $(shell docker version >/dev/null 2>&1 && echo docker) \
	$(foreach tool,podman buildah,$(if $(shell command -v $(tool)),$(tool))))
VERSION := $(shell sed -n 's/^appVersion: //p' charts/slotkeeper/Chart.yaml)

# The base image by digest, such as DEBIAN_TRIXIE=debian@sha256:…; by default debian:trixie-slim.
DEBIAN_TRIXIE ?=
BASES = $(if $(DEBIAN_TRIXIE),--build-arg DEBIAN_TRIXIE=$(DEBIAN_TRIXIE))

# Build and push an image: its folder, its tag, and build arguments.
define image
name="$(REGISTRY)/slotkeeper/$1:$2"; \
echo "building $$name"; \
$(CONTAINER_TOOL) build --quiet $(strip $(BASES) $3) --file images/$1/Containerfile --tag "$$name" .; \
if [ -n "$(PUSH)" ]; then echo "pushing $$name"; $(CONTAINER_TOOL) push --quiet "$$name"; fi
endef

.PHONY: images
images: ## Build the images for REGISTRY with CONTAINER_TOOL (docker, podman or buildah); PUSH=1 pushes them
	@test -n "$(REGISTRY)" || { echo 'usage: make images REGISTRY=registry.example.com/team [PUSH=1]' >&2; exit 2; }
	@$(BUILDER)
	@$(call image,operator,$(VERSION))
	@$(call image,balancer,$(VERSION))
	@$(call image,download,$(VERSION))
	@$(call image,llama-server,$(VERSION)-cpu,--build-arg BACKEND=cpu $(LLAMA_CPP_ARGS))
	@echo "to install: helm install slotkeeper charts/slotkeeper --set images.registry=$(REGISTRY)"
BUILDER = test -n "$(CONTAINER_TOOL)" || { echo 'missing: docker with a running daemon, podman or buildah. Install one of them.' >&2; exit 1; }

BACKEND ?= cpu
# Also in llama.cpp's spelling, CUDA_DOCKER_ARCH=compute_75, and several: CUDA_ARCH="75 86".
CUDA_DOCKER_ARCH ?= 75
CUDA_ARCH ?= $(CUDA_DOCKER_ARCH)
ROCM_ARCH ?= gfx1030 gfx1100
# AMD's libraries are not in Debian trixie, so its image is the base.
ROCM ?= docker.io/rocm/dev-ubuntu-24.04:7.2.1-complete
# Another build of llama.cpp than the pinned one: LLAMA_CPP_BUILD=b12405 LLAMA_CPP_COMMIT=…
# CPU_VARIANTS=OFF: for CPUs with AVX2 only, which compiles in less time.
LLAMA_CPP_ARGS = $(foreach name,LLAMA_CPP_BUILD LLAMA_CPP_COMMIT LLAMA_CPP_REPOSITORY CPU_VARIANTS JOBS,$(if $($(name)),--build-arg $(name)=$($(name))))

comma := ,
# `,`, `;` and spaces may separate them.
separated = $(strip $(subst ;, ,$(subst $(comma), ,$1)))
listed = $(subst $() ,$(comma),$(separated))
CUDA_ARCHS = $(patsubst sm_%,%,$(patsubst compute_%,%,$(subst .,,$(call separated,$(CUDA_ARCH)))))
llama-server-tag-cpu = cpu
llama-server-tag-cuda = $(subst $() ,-,cuda $(addprefix sm,$(CUDA_ARCHS)))
llama-server-tag-vulkan = vulkan
llama-server-tag-rocm = rocm
llama-server-check-cuda = for arch in $(or $(CUDA_ARCHS),''); do \
	[[ "$$arch" =~ ^[1-9][0-9]{1,2}[af]?$$ ]] || { \
		echo "image-llama-server: CUDA_ARCH must be compute capabilities, such as 75 for a T4, or '75 86', not '$(CUDA_ARCH)'" >&2; \
		exit 2; \
	}; \
	[[ "$${arch%[af]}" -ge $(CUDA_ARCH_MIN) ]] || { \
		echo "image-llama-server: CUDA_ARCH $$arch is below $(CUDA_ARCH_MIN), the oldest that CUDA 13 compiles for: use an image of CUDA 12, such as llama.cpp's own, which the chart's images.llamaServerByVendor has (see: Older drivers, in docs/concepts/gpus.md)" >&2; \
		exit 2; \
	}; \
done
# That of CUDA's compiler in requirements/llama-server-cuda.txt.
CUDA_ARCH_MIN = 75
llama-server-args-cuda = --build-arg CUDA_ARCH=$(call listed,$(CUDA_ARCHS))
llama-server-args-rocm = --build-arg DEBIAN_TRIXIE=$(ROCM) --build-arg ROCM_ARCH=$(call listed,$(ROCM_ARCH))

.PHONY: image-llama-server
image-llama-server: ## Build llama-server's image for REGISTRY: BACKEND=cpu, cuda, vulkan or rocm; CUDA_ARCH=75
	@test -n "$(REGISTRY)" || { echo 'usage: make image-llama-server REGISTRY=registry.example.com/team BACKEND=cuda CUDA_ARCH=75 [PUSH=1]' >&2; exit 2; }
	@test -n "$(llama-server-tag-$(BACKEND))" || { echo 'image-llama-server: BACKEND must be cpu, cuda, vulkan or rocm, not $(BACKEND)' >&2; exit 2; }
	@$(llama-server-check-$(BACKEND))
	@$(BUILDER)
	@$(call image,llama-server,$(VERSION)-$(llama-server-tag-$(BACKEND)),--build-arg BACKEND=$(BACKEND) $(llama-server-args-$(BACKEND)) $(LLAMA_CPP_ARGS))

.PHONY: image-sizes
image-sizes: $(INSTALLED) ## Print the sizes of the images on the node of the test cluster, which must be up
	@$(BIN)/python e2e/image_sizes.py --name $(CLUSTER)

.PHONY: lock
lock: $(INSTALLED) ## Pin the newest releases that pyproject.toml allows
	@$(BIN)/pip install --quiet uv
	@for extra in $(EXTRAS); do \
		$(BIN)/uv pip compile $(LOCK_FLAGS) --extra $$extra --output-file requirements/$$extra.txt pyproject.toml; \
	done
LOCK_FLAGS := --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-header

.PHONY: bench-balancer
bench-balancer: $(BENCH) ## Compare the balancer with nginx and HAProxy; tables and plots in bench/results
	@$(BIN)/python -m bench.balancer

.PHONY: bench-gateway
bench-gateway: $(BENCH) $(OTHER_GATEWAYS) ## Compare the gateway with the balancer alone, LiteLLM and Portkey; tables and plots in bench/results
	@$(BIN)/python -m bench.gateway

.PHONY: bench-reconcile
bench-reconcile: prerequisites $(BENCH) ## Compare the operator with a plain client, up to 1,000 servers on fake nodes
	@PYTHONPATH=e2e $(BIN)/python -m bench.reconcile

.PHONY: bench-autoscale
bench-autoscale: $(BENCH) ## Compare the autoscaler with other policies in simulated time; tables and plots in bench/results
	@$(BIN)/python -m bench.autoscale

.PHONY: bench-preemption
bench-preemption: $(BENCH) ## Measure interactive requests beside a batch; tables in bench/results
	@$(BIN)/python -m bench.preemption

.PHONY: bench-budget
bench-budget: $(BENCH) ## Compare the gateway's budget policy with LRU and the optimum in simulated time; tables in bench/results
	@$(BIN)/python -m bench.budget

.PHONY: bench-download
bench-download: $(BENCH) $(DOWNLOADER) ## Compare the downloader with curl on loopback; ARGS=its arguments; tables in bench/results
	@$(BIN)/python -m bench.download --python .venv/download/bin/python $(ARGS)

.PHONY: bench-prompts
bench-prompts: $(BENCH) ## Compare restored prompts with computed ones; ARGS="--model FILE [--llama-server COMMAND]"; tables in bench/results
	@$(BIN)/python -m bench.prompts $(ARGS)

.PHONY: clean
clean: ## Remove all clusters, caches and build outputs
	@./e2e/cluster clean
	@rm -rf .venv build bench/results .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Checked before anything is built, so that a missing program is reported at once.
.PHONY: prerequisites
prerequisites: python
	@./e2e/cluster prerequisites

.PHONY: python
python:
	@$(PYTHON) -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "missing: Python 3.11 or newer with venv. Install it with: apt-get install python3 python3-venv" >&2; \
		exit 1; }

# --no-cache-dir: nothing is left outside of the checkout. --no-deps: the lock files are complete, and
# an older pip would resolve `coverage[toml]` to the newest release instead of the pinned `coverage`,
# and then miss its hash.
PIP_FLAGS := --quiet --disable-pip-version-check --no-cache-dir
$(INSTALLED): requirements/dev.txt pyproject.toml | python
	@echo "installing the Python packages of requirements/dev.txt into .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install $(PIP_FLAGS) --require-hashes --no-deps --requirement requirements/dev.txt
	@$(BIN)/pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@touch $@

# Environments of their own: of packages in other versions than in requirements/dev.txt, or of those of
# an image alone.
$(OBJECT_STORE) $(DOWNLOADER) $(CLIENTS): .venv/%/.installed: requirements/%.txt | $(INSTALLED)
	@echo "installing the Python packages of $< into .venv/$*"
	@$(PYTHON) -m venv .venv/$*
	@.venv/$*/bin/pip install $(PIP_FLAGS) --require-hashes --no-deps --requirement $<
	@touch $@

$(CLIENTS): $(INSTALLED)

$(BROWSER): requirements/browser.txt $(INSTALLED)
	@echo "installing the Python packages of requirements/browser.txt into .venv"
	@$(BIN)/pip install $(PIP_FLAGS) --require-hashes --no-deps --requirement requirements/browser.txt
	@touch $@

$(BENCH): requirements/bench.txt $(INSTALLED)
	@echo "installing the Python packages of requirements/bench.txt into .venv"
	@$(BIN)/pip install $(PIP_FLAGS) --require-hashes --no-deps --requirement requirements/bench.txt
	@touch $@

# Programs of their own, which share no package with ours. --ignore-scripts: npm runs no code of packages.
$(OTHER_GATEWAYS): requirements/litellm.txt $(wildcard bench/gateway/portkey/*.json) | python
	@command -v npm >/dev/null || { echo 'missing: Node.js 20 or newer with npm. Install it with: apt-get install nodejs npm' >&2; exit 1; }
	@echo "installing LiteLLM and Portkey's gateway into $(@D)"
	@rm -rf $(@D)
	@$(PYTHON) -m venv $(@D)/litellm
	@$(@D)/litellm/bin/pip install $(PIP_FLAGS) --require-hashes --no-deps --requirement requirements/litellm.txt
	@mkdir $(@D)/portkey
	@cp bench/gateway/portkey/*.json $(@D)/portkey
	@npm ci --prefix $(@D)/portkey --ignore-scripts --no-audit --no-fund --silent
	@touch $@

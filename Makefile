VENV := .venv
BIN := $(VENV)/bin
COMPILE := "$(CURDIR)/$(BIN)/uv" pip compile --quiet --universal --python-version 3.11 \
	--custom-compile-command "make lock" pyproject.toml

# $(1) is the directory of pyproject.toml and the two files, $(2) are more options for uv.
compile = cd $(1) && $(COMPILE) $(2) -o requirements.txt && \
	$(COMPILE) $(2) --extra dev --extra test -c requirements.txt -o requirements-dev.txt

# The parts of `make test`, the longest first, and what has a target of its own instead.
PARTS := tasks cli service dev manager rest logs outbox status
APART := faults deployment image
WITHOUT_APART := $(APART:%=--ignore=tests/%)
TARGETS := help run test $(PARTS:%=test-%) test-fast test-faults \
	test-deployment test-image test-install coverage bench lint format lock docs clean iperf3 chromium
RESOURCES = $(filter-out %/kustomization.yaml,$(wildcard deployment/kubernetes/*/*.yaml \
	deployment/kubernetes/*/*/*.yaml))
# podman needs the last three for networks between containers.
ENGINE := buildah podman crun debootstrap iproute2 iptables netavark aardvark-dns

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: $(TARGETS)

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run iperf3 ## Run the agent if .env exists or MANAGER_URL is set, else a demo
	@if [ -f .env ] || [ -n "$$MANAGER_URL" ]; then exec $(BIN)/agent-run --debug; \
	else exec $(BIN)/agent-run --dev --debug; fi

# Tests mostly wait, so that six runs go well on two cores.
test: $(VENV)/.dev iperf3 chromium ## Run the tests, in parts side by side
	@echo "The parts run side by side, and each is shown when it is done: three minutes or so."
	@$(MAKE) --no-print-directory --jobs=6 --output-sync=target $(PARTS:%=test-%)

$(PARTS:%=test-%): test-%:
	$(BIN)/pytest $(if $(filter rest,$*),$(PARTS:%=--ignore=tests/%) $(WITHOUT_APART),tests/$*)

test-faults: $(VENV)/.dev iperf3 ## Break processes, disks, networks and clocks for real (some minutes)
	@[ "$$(id -u)" -ne 0 ] || command -v ip >/dev/null || deployment/install-package.sh iproute2
	@[ "$$(id -u)" -ne 0 ] || ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || \
		deployment/install-package.sh faketime
	$(BIN)/pytest -rs tests/faults

test-fast: $(VENV)/.dev iperf3 chromium ## Run the tests that are not marked slow
	$(BIN)/pytest $(WITHOUT_APART) -m "not slow"

test-deployment: $(VENV)/.dev iperf3 ## Boot machines and deploy on them with cloud-init and systemd
	@tests/deployment/make-roots.sh "$(CURDIR)/$(VENV)/machines"
	$(BIN)/pytest -rs tests/deployment

test-image: $(VENV)/.dev iperf3 ## Build the Dockerfile, and run it and the compose file in containers
	@[ "$$(id -u)" -ne 0 ] || for package in $(ENGINE); do \
		dpkg --status "$$package" >/dev/null 2>&1 || deployment/install-package.sh "$$package" \
			|| exit 1; done
	$(BIN)/pytest -rs tests/image

test-install: $(VENV)/.dev iperf3 ## Install in each documented way and try what came of it
	tests/install/run.sh $(BIN)/python

coverage: $(VENV)/.dev iperf3 chromium ## Run the tests and show which branches they leave out
	$(BIN)/pytest $(WITHOUT_APART) --cov=agent --cov-report=term-missing:skip-covered --cov-fail-under=90

bench: $(VENV)/.dev iperf3 ## Measure speed and cost, and compare with the committed figures (25 minutes, on a quiet host)
	$(BIN)/python -m benchmarks $(BENCH)

lint: $(VENV)/.dev ## Check style, types, layers, shell, YAML and the lock files
	$(BIN)/black --check --quiet --diff .
	$(BIN)/isort --check-only --diff --quiet .
	$(BIN)/flake8
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict .
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec \
		deployment/docker-compose.yml
	$(BIN)/kubernetes-validate --strict --quiet $(RESOURCES)
	$(BIN)/shellcheck .ci/run $(wildcard deployment/*.sh tests/*/*.sh)
	$(BIN)/python -m tests.support.shell_in_yaml deployment
	@$(MAKE) --always-make --silent SHELL=tests/support/recipe_check.sh $(TARGETS)
	@rm -rf $(VENV)/lock && mkdir $(VENV)/lock
	@cp pyproject.toml requirements.txt requirements-dev.txt $(VENV)/lock
	@$(call compile,$(VENV)/lock)
	@for file in requirements.txt requirements-dev.txt; do diff -u $$file $(VENV)/lock/$$file || \
		{ echo "$$file does not match pyproject.toml: run make lock" >&2; exit 1; }; done

format: $(VENV)/.dev ## Format the code
	$(BIN)/isort --quiet .
	$(BIN)/black --quiet .

lock: $(VENV)/.dev ## Update requirements*.txt to the newest versions that pyproject.toml allows
	@$(call compile,.,--upgrade)

docs: $(VENV)/.dev ## Update the table of answers in docs/protocol.md
	$(BIN)/python -m tests.support.answers

clean: ## Remove the virtual environment, caches and reports
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache
	rm -rf .import_linter_cache ./*.egg-info
	find agent tests -name __pycache__ -prune -exec rm -rf {} +

# Install iperf3 unless the agent finds one: IPERF3_PATH in the environment or in .env, else on PATH.
iperf3:
	@path=$${IPERF3_PATH:-$$($(BIN)/dotenv get IPERF3_PATH 2>/dev/null || echo iperf3)}; \
		command -v "$$path" >/dev/null || deployment/install-package.sh iperf3

# Only root on Debian gets it by itself: elsewhere the tests of the pages are skipped without it.
chromium:
	@[ "$$(id -u)" -ne 0 ] || command -v chromium >/dev/null || deployment/install-package.sh chromium
	@[ "$$(id -u)" -ne 0 ] || command -v chromedriver >/dev/null || \
		deployment/install-package.sh chromium-driver

$(BIN)/python:
	@deployment/make-venv.sh $(VENV)

# The locked packages to run the agent, plus Flask for the demo.
$(VENV)/.run: $(BIN)/python pyproject.toml requirements-dev.txt
	$(BIN)/pip install --quiet --constraint requirements-dev.txt --editable '.[dev]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml requirements-dev.txt
	$(BIN)/pip install --quiet --requirement requirements-dev.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@ $(VENV)/.run

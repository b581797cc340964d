VENV := .venv
BIN := $(VENV)/bin
# What `make test` measured of the coverage; a part's own has the part's name in addition.
MEASURED := $(VENV)/coverage/all
COMPILE := "$(CURDIR)/$(BIN)/uv" pip compile --quiet --universal --python-version 3.11 \
	--custom-compile-command "make lock" pyproject.toml

# $(1) is the directory of pyproject.toml and the two files, $(2) are more options for uv.
compile = cd $(1) && $(COMPILE) $(2) -o requirements.txt && \
	$(COMPILE) $(2) --extra dev --extra test -c requirements.txt -o requirements-dev.txt

# What has a target of its own instead of being a part of `make test`.
APART := faults lab deployment image install
# The parts of `make test` are the directories of tests, and `rest` is what belongs to none. Those
# that take longest begin first.
LONGEST := tasks cli dev manager service logs project
DIRECTORIES := $(filter-out $(APART),$(patsubst tests/%/,%,$(sort $(dir $(wildcard tests/*/test_*.py)))))
PARTS := $(filter $(DIRECTORIES),$(LONGEST)) $(filter-out $(LONGEST),$(DIRECTORIES)) rest
# Those of `make test-faults` are its files.
LONGEST_FAULTS := disk_errors hostile soak clocks away_manager crowd killed_agent partition \
	lost_claims disks
FAULT_FILES := $(patsubst tests/faults/test_%.py,%,$(sort $(wildcard tests/faults/test_*.py)))
FAULTS := $(filter $(FAULT_FILES),$(LONGEST_FAULTS)) $(filter-out $(LONGEST_FAULTS),$(FAULT_FILES))
FAILED_AGAIN := tests/support/failed_again.sh
WITHOUT_APART := $(APART:%=--ignore=tests/%)
TOOLS := iperf3 newer-iperf3 chromium cgroup2 clocks faulty-disks lab-tools machine-tools engine \
	scrape-tools
TARGETS := help run test $(PARTS:%=test-%) test-unit test-fast test-faults $(FAULTS:%=test-faults-%) \
	test-lab test-deployment test-image test-install coverage lab bench lint format lock docs dist \
	clean tools $(TOOLS) machines
# Components are patches, and kinds that Kubernetes itself does not know.
RESOURCES = $(filter-out %/kustomization.yaml deployment/kubernetes/components/%, \
	$(wildcard deployment/kubernetes/*/*.yaml deployment/kubernetes/*/*/*.yaml))
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

# $(1) is how many run at a time, $(2) the targets.
side_by_side = $(MAKE) --no-print-directory --keep-going --jobs=$(1) --output-sync=target $(2)

# Tests mostly wait, so that four parts go well on two cores; with six a start took seconds.
test: $(VENV)/.dev iperf3 newer-iperf3 chromium cgroup2 ## Run the tests, in parts side by side; COVERAGE=yes measures them
	@echo "The parts run side by side, and each is shown when it is done: four minutes or so."
	@rm -rf $(dir $(MEASURED)) && mkdir $(dir $(MEASURED))
	@$(call side_by_side,4,$(PARTS:%=test-%))
	$(if $(COVERAGE),$(BIN)/coverage combine --quiet --data-file=$(MEASURED))
	$(if $(COVERAGE),$(BIN)/coverage report --data-file=$(MEASURED) --fail-under=90 \
		--show-missing --skip-covered)

# pytest ends with 5 where a mark leaves no test of a part.
$(PARTS:%=test-%): test-%:
	$(if $(COVERAGE),COVERAGE_FILE="$(CURDIR)/$(MEASURED).$*") $(FAILED_AGAIN) $* $(BIN)/pytest \
		$(if $(COVERAGE),--cov=agent --cov-report=) $(if $(ONLY),-m "$(ONLY)") \
		$(if $(filter rest,$*),$(DIRECTORIES:%=--ignore=tests/%) $(WITHOUT_APART),tests/$*) \
		$(if $(ONLY),|| [ $$? -eq 5 ])

# Three at a time, so that no promise of a time is broken by the tests beside it.
test-faults: $(VENV)/.dev iperf3 newer-iperf3 clocks faulty-disks ## Break processes, disks, networks and clocks for real (some minutes)
	@$(call side_by_side,3,$(FAULTS:%=test-faults-%))

$(FAULTS:%=test-faults-%): test-faults-%:
	$(FAILED_AGAIN) faults-$* $(BIN)/pytest -rs tests/faults/test_$*.py

test-lab: $(VENV)/.dev iperf3 newer-iperf3 lab-tools ## Make causes of slow tests for real, and see them named (seven minutes)
	$(FAILED_AGAIN) lab $(BIN)/pytest -rs tests/lab

test-unit: $(VENV)/.dev ## Run the tests that start no process
	@$(call side_by_side,4,$(PARTS:%=test-%) ONLY="not process")

test-fast: $(VENV)/.dev iperf3 newer-iperf3 chromium ## Run the tests that are not marked slow
	@$(call side_by_side,4,$(PARTS:%=test-%) ONLY="not slow")

test-deployment: $(VENV)/.dev iperf3 machines ## Boot machines and deploy on them with cloud-init and systemd
	$(FAILED_AGAIN) deployment $(BIN)/pytest -rs tests/deployment

test-image: $(VENV)/.dev iperf3 engine ## Build the Dockerfile, and run it and the compose file in containers
	$(BIN)/pytest -rs tests/image

test-install: $(VENV)/.dev iperf3 ## Install in each documented way and try what came of it
	tests/install/run.sh $(BIN)/python

coverage: ## Run the tests and show which branches they leave out; more than a tenth is a failure
	@$(MAKE) --no-print-directory test COVERAGE=yes

lab: $(VENV)/.dev iperf3 newer-iperf3 lab-tools ## Play all scenes of the lab five times and show how they were named (3 hours); SCENES has options
	$(BIN)/python -m tests.lab $(SCENES)

bench: $(VENV)/.dev iperf3 ## Measure speed and cost, and compare with the committed figures (half an hour, on a quiet host)
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

dist: $(VENV)/.dev ## Build a release of this commit in dist/
	rm -rf build/dist && mkdir -p build
	deployment/dist.sh $(VENV) build/dist
	rm -rf dist
	mv build/dist dist

clean: ## Remove the virtual environment, caches and reports
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache
	rm -rf .import_linter_cache ./*.egg-info
	find agent tests -name __pycache__ -prune -exec rm -rf {} +

# Install iperf3 unless the agent finds one: IPERF3_PATH in the environment or in .env, else on PATH.
iperf3:
	@path=$${IPERF3_PATH:-$$($(BIN)/dotenv get IPERF3_PATH 2>/dev/null || echo iperf3)}; \
		command -v "$$path" >/dev/null || deployment/install-package.sh iperf3

# A slow line may need longer than a test has; a test that wants one says why there is none.
newer-iperf3: $(BIN)/python
	@for suite in trixie sid; do timeout 180 tests/support/newer_iperf3.sh $$suite \
		"$(CURDIR)/$(VENV)/iperf3-$$suite" || true; done

# apt cannot run twice at a time: what runs side by side has this run before.
tools: $(VENV)/.dev $(TOOLS) ## Install what the tests need of the system

# Only root on Debian gets the rest by itself: elsewhere the tests that need it are skipped without.
# $(1) is a command, $(2) the package that has it.
command = [ "$$(id -u)" -ne 0 ] || command -v $(1) >/dev/null || deployment/install-package.sh $(2)

chromium:
	@$(call command,chromium,chromium)
	@$(call command,chromedriver,chromium-driver)

# A kernel of its own, where this one's CPUs belong to cgroup 1. Only some releases have it.
cgroup2:
	@grep -qsw cpu /sys/fs/cgroup/cgroup.controllers || [ "$$(uname -m)" != x86_64 ] || \
		$(call command,linux.uml,user-mode-linux) || true

clocks:
	@$(call command,ip,iproute2)
	@$(call command,faketime,faketime)

faulty-disks:
	@$(call command,gcc,gcc libc6-dev)
	@$(call command,strace,strace)
	@$(call command,mkfs.ext4,e2fsprogs)

lab-tools:
	@$(call command,ip,iproute2)
	@$(call command,nft,nftables)
	@$(call command,ethtool,ethtool)

machine-tools:
	@$(call command,ip,iproute2)
	@$(call command,systemd-nspawn,systemd-container)
	@$(call command,mmdebstrap,mmdebstrap)

# Not a part of `make test`, as Debian starts nginx when it is installed.
scrape-tools:
	@$(call command,curl,curl)
	@$(call command,nginx,nginx-light)

engine:
	@[ "$$(id -u)" -ne 0 ] || dpkg --status $(ENGINE) >/dev/null 2>&1 || \
		deployment/install-package.sh $(ENGINE)

machines: machine-tools
	@[ "$$(id -u)" -ne 0 ] || tests/deployment/make-roots.sh "$(CURDIR)/$(VENV)/machines"

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

# The commands that people type; `make` alone lists them. Each is a few words around a script or Snakemake.

# Programs of .venv come first, and the Python modules of a cluster have no influence on it.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME

# ENV is also a variable of POSIX shells (a start-up file): from the environment only our own names are accepted.
ifneq ($(origin ENV),command line)
ENV := $(filter cpu cuda11 cuda13,$(ENV))
endif
# The site: a folder of profiles/. In the environment, PROFILE may mean something else.
ifneq ($(origin PROFILE),command line)
PROFILE := profiles/local
endif
override PROFILE := $(if $(wildcard profiles/$(PROFILE)/.),profiles/$(PROFILE),$(PROFILE))
PYTHON ?=
export PYTHON CONFIG RUN IMAGES OUT ARCHIVE DATA

ENV_OPTION := $(if $(ENV),--env '$(ENV)')
# demo, run, predict and the tests use the environment that .venv has; only `make setup ENV=...` replaces it by another.
SETUP := PROFILE='$(PROFILE)' sh envs/setup.sh
READY := $(SETUP) --keep $(ENV_OPTION)
SNAKEMAKE := snakemake --profile '$(PROFILE)'

# A value that a command requires: $(call need,NAME,example)
need = @test -n "$$$(1)" || { echo "error: $(1) is missing: make $@ $(1)=$(2)" >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help setup demo run fetch predict verify bundle repeat test test-all test-faults test-grid watch jobs cancel bench doctor wheelhouse locks lint docs clean-demo

help: ## list these commands
	@echo "mimflow: from a folder of labelled images to an evaluated classifier"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'
	@echo; echo "  ARGS='...' hands further options to Snakemake or pytest, for example: make run CONFIG=configs/mine.yaml ARGS='-n'"

setup: ## build .venv (ENV=cpu, cuda11 or cuda13; PYTHON=/path/to/python3.11; PROFILE=profiles/n30: its folder for caches)
	@$(SETUP) $(ENV_OPTION)

demo: ## set up, then run the whole workflow on rendered photographs and print the path of the report
	@$(READY)
	@$(SNAKEMAKE) $(ARGS)

run: ## run the workflow on your data (CONFIG=configs/mine.yaml; on a cluster PROFILE=profiles/slurm)
	$(call need,CONFIG,configs/mine.yaml)
	@$(READY)
	@python -m scripts.check_settings "$$CONFIG"
	@$(SNAKEMAKE) --configfile "$$CONFIG" $(ARGS)

fetch: ## only the downloads, on a machine with internet (CONFIG=configs/mine.yaml)
	$(call need,CONFIG,configs/mine.yaml)
	@$(READY)
	@python -m scripts.check_settings "$$CONFIG"
	@$(SNAKEMAKE) --configfile "$$CONFIG" --until fetch_archive fetch_checkpoint $(ARGS)

predict: ## classify new images with a trained run (RUN=results/demo/NAME/seed0 IMAGES=file-or-folder)
	$(call need,RUN,results/demo/mobilenet-v2/seed0 IMAGES=photos)
	$(call need,IMAGES,photos RUN=results/demo/mobilenet-v2/seed0)
	@$(READY)
	@python -m scripts.predict --run "$$RUN" --images "$$IMAGES" $(ARGS)

verify: ## repeat a run from its provenance and compare every hash (RUN=results/demo/NAME/seed0)
	$(call need,RUN,results/demo/mobilenet-v2/seed0)
	@$(READY)
	@python -m scripts.verify --run "$$RUN" $(ARGS)

bundle: ## one archive with which someone else can repeat a run (RUN=..., OUT=file.tar, IMAGES=yes: with the images)
	$(call need,RUN,results/demo/mobilenet-v2/seed0)
	@$(READY)
	@python -m scripts.bundle --run "$$RUN" $${OUT:+--output "$$OUT"} $(if $(filter yes,$(IMAGES)),--images) $(ARGS)

repeat: ## repeat a run from a bundle and compare every hash (ARCHIVE=file.tar, IMAGES=archive-of-the-images)
	$(call need,ARCHIVE,file.tar)
	@$(READY)
	@python -m scripts.repeat --archive "$$ARCHIVE" $${IMAGES:+--images "$$IMAGES"} $(ARGS)

# Tests, the slowest of them, and how long all took.
define pytest
@$(READY)
@began=$$(date +%s); python -m pytest --durations=10 $(1) $(ARGS); status=$$?; \
	echo "make $@: $$(($$(date +%s) - began)) s"; exit $$status
endef
ALL_TESTS := tests/unit tests/workflow tests/faults tests/grid

test: ## the tests of a few minutes: unit tests, every rule once, one killed training, one page in a browser
	$(call pytest,-m 'not long' -n 2 --dist loadgroup)

test-all: ## every test that needs no cluster (test-faults and test-grid are parts of it; needs Chromium)
	$(call pytest,$(ALL_TESTS))

test-faults: ## training that is killed, stopped, starved of disk or damaged
	$(call pytest,tests/faults)

test-grid: ## the report of 30 classes and six runs in a browser (needs Chromium; minutes)
	$(call pytest,tests/grid)

watch: ## all runs, live: progress, best accuracy, images/s, time left (ARGS=--once: print it once)
	@$(READY)
	@python -m scripts.watch $(ARGS)

jobs: ## this project's Slurm jobs, queued and running: node, time, progress
	@$(READY)
	@python -m scripts.jobs $(ARGS)

cancel: ## cancel this project's Slurm jobs, all or some (ARGS='JOBID ...'; ARGS=--yes: without asking)
	@$(READY)
	@python -m scripts.cancel $(ARGS)

test-slurm: export MIMFLOW_REQUIRE_SLURM := 1
test-slurm: ## the workflow on a real Slurm cluster, which the tests start on this machine (Debian, root)
	$(call pytest,tests/slurm)

bench: ## compare with plain mim, timm and fastai; takes hours (DATA=archive-or-folder; or elpv, cifar10-test, sample)
	@$(READY)
	@python -m bench.compare $${DATA:+--data "$$DATA"} $(ARGS)

doctor: ## what this machine has, and one line for each problem (PROFILE=profiles/slurm: check the cluster too)
	@python=.venv/bin/python; [ -x $$python ] || python="$$(sh envs/find_python.sh)" || exit 1; \
		"$$python" -m scripts.doctor $(if $(filter-out profiles/local,$(PROFILE)),--profile '$(PROFILE)' $${CONFIG:+--config "$$CONFIG"})

wheelhouse: ## download every package of an environment, for a machine without internet (ENV=cuda11)
	@sh envs/setup.sh --wheelhouse $(ENV_OPTION)

locks: ## resolve envs/*.in into envs/*.lock again (ARGS=--upgrade: take newer versions)
	@python="$$(sh envs/find_python.sh)" && sh envs/lock.sh "$$python" $(ARGS)

lint: ## check the code as CI does: ruff, mypy, layers, words and lengths, snakefmt, snakemake --lint
	@$(READY)
	@sh envs/setup.sh --linters
	@bash .ci/lint

docs: ## generate docs/settings.md and configs/schema.json again, from scripts/lib/settings/
	@$(READY)
	@python -m scripts.document_settings $(ARGS)

clean-demo: ## remove the demo's results
	rm -rf results/demo

# The commands that people type; `make` alone lists them. Each is a few words around a script or Snakemake.

# What is typed reaches a command as it was typed: make expands none of it, and the command finds it in its environment.
# ENV is also a variable of POSIX shells (a start-up file); PROFILE and PORT may mean something else in the environment.
ifneq ($(origin ENV),command line)
ENV := $(filter cpu cuda11 cuda13,$(value ENV))
endif
ifneq ($(origin PROFILE),command line)
PROFILE := profiles/local
endif
ifneq ($(origin PORT),command line)
PORT :=
endif
VALUES := CONFIG RUN IMAGES OUT ARCHIVE DATA LABELS QUICK TO PORT ARGS ENV PROFILE PYTHON
$(foreach name,$(VALUES),$(eval override $(name) := $$(value $(name))))
export $(VALUES)

# START: in a known environment, with the programs of .venv, and with the words of ARGS after the command's. `-I` keeps
# the user's shell away from Python itself.
PYTHON_HERE := .venv/bin/python
START = $(PYTHON_HERE) -I -X utf8 scripts/start.py
unexport LD_PRELOAD LD_AUDIT

# demo, run, predict and the tests use the environment that .venv has; only `make setup ENV=...` replaces it by another.
# What only looks builds nothing.
SETUP := sh envs/setup.sh $${ENV:+--env "$$ENV"}
READY := sh envs/setup.sh --keep $${ENV:+--env "$$ENV"}
READY_TO_RUN := sh envs/setup.sh --keep --unless-looking $${ENV:+--env "$$ENV"}
READY_TO_LOOK := sh envs/setup.sh --look
# profiles/slurm may be called slurm.
SNAKEMAKE = if [ -d "profiles/$$PROFILE/." ]; then PROFILE="profiles/$$PROFILE"; fi; \
	$(START) python -m scripts.lib.workflow.start --profile="$$PROFILE"
# After Ctrl-C (status 130), make ends as if it had come to it alone, without an error line of its own. On a terminal it
# has none after an error either (SIGPIPE, of which shells say nothing): the command's line is the last one.
CALM := trap : INT;
STOPS := || { status=$$?; [ $$status -ne 130 ] || { kill -INT $$PPID; exit 0; }; \
	[ ! -t 2 ] || kill -PIPE $$PPID; exit $$status; }

# A value that a command requires: $(call need,NAME,example)
need = @test -n "$$$(1)" || { echo "error: $(1) is missing: make $@ $(1)=$(2)" >&2; false; } $(STOPS)

.DEFAULT_GOAL := help
.DEFAULT:
	$(error there is no command `make $@`: `make` lists them all)
.PHONY: help setup demo run fetch preview predict evaluate track clean verify bundle repeat test test-all test-faults test-grid test-slurm test-cluster watch serve snakemake-report jobs cancel bench doctor wheelhouse locks lint docs docs-site clean-demo

help: ## list these commands
	@echo "mimflow: from a folder of labelled images to an evaluated classifier"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-24s %s\n", $$1, $$2 }'
	@echo; echo "  ARGS='...' hands further options to Snakemake or pytest, for example: make run CONFIG=configs/mine.yaml ARGS='-n'"

setup: ## build .venv (ENV=cpu, cuda11 or cuda13; PYTHON=/path/to/python3.11; PROFILE=profiles/n30: its folder for caches)
	@$(CALM) $(SETUP) $(STOPS)

demo: ## set up, then run the whole workflow on rendered photographs and print the path of the report
	@$(CALM) $(READY_TO_RUN) $(STOPS)
	@$(CALM) $(SNAKEMAKE) $(STOPS)

run: ## run the workflow on your data (CONFIG=configs/mine.yaml; on a cluster PROFILE=profiles/slurm)
	$(call need,CONFIG,configs/mine.yaml)
	@$(CALM) $(READY_TO_RUN) $(STOPS)
	@$(CALM) ARGS= $(START) python -m scripts.check_settings -- "$$CONFIG" $(STOPS)
	@$(CALM) $(SNAKEMAKE) --configfile="$$CONFIG" $(STOPS)

fetch: ## only the downloads, on a machine with internet (CONFIG=configs/mine.yaml)
	$(call need,CONFIG,configs/mine.yaml)
	@$(CALM) $(READY_TO_RUN) $(STOPS)
	@$(CALM) ARGS= $(START) python -m scripts.check_settings -- "$$CONFIG" $(STOPS)
	@$(CALM) $(SNAKEMAKE) --configfile="$$CONFIG" --until fetch_archive fetch_checkpoint $(STOPS)

preview: ## draw training images as the network sees them, augmented, before any training (RUN=results/demo/NAME/seed0)
	$(call need,RUN,results/demo/mobilenet-v2/seed0)
	@$(CALM) $(READY) $(STOPS)
	@$(CALM) $(START) python -m scripts.preview --run="$$RUN" $${OUT:+--output="$$OUT"} $(STOPS)

predict: ## classify new images with a trained run (RUN=results/demo/NAME/seed0 IMAGES=file-or-folder)
	$(call need,RUN,results/demo/mobilenet-v2/seed0 IMAGES=photos)
	$(call need,IMAGES,photos RUN=results/demo/mobilenet-v2/seed0)
	@$(CALM) $(READY) $(STOPS)
	@$(CALM) $(START) python -m scripts.predict --run="$$RUN" --images="$$IMAGES" $(STOPS)

evaluate: ## evaluate a finished run on other labelled images (RUN=results/demo/NAME/seed0 DATA=archive-or-folder LABELS=table.csv)
	$(call need,RUN,results/demo/mobilenet-v2/seed0 DATA=photos.zip)
	$(call need,DATA,photos.zip RUN=results/demo/mobilenet-v2/seed0)
	@$(CALM) $(READY) $(STOPS)
	@$(CALM) $(START) python -m scripts.evaluate_run --run="$$RUN" --data="$$DATA" \
		$${LABELS:+--labels="$$LABELS"} $(STOPS)

snakemake-report: ## Snakemake's own report of finished runs: every page and figure of each (CONFIG=configs/mine.yaml)
	$(call need,CONFIG,configs/mine.yaml)
	@$(CALM) $(READY) $(STOPS)
	@$(CALM) $(START) python -m scripts.snakemake_report --config="$$CONFIG" $(STOPS)

track: ## write finished runs for a tracker (RUN=results/demo or one run; TO=tensorboard, mlflow or wandb)
	$(call need,RUN,results/demo TO=tensorboard)
	$(call need,TO,tensorboard RUN=results/demo)
	@$(CALM) $(READY) $(STOPS)
	@$(CALM) $(START) python -m scripts.track --run="$$RUN" --to="$$TO" $${OUT:+--output="$$OUT"} $(STOPS)

verify: ## repeat a run and compare every hash (RUN=results/demo/NAME/seed0; QUICK=yes: only hash its files, or RUN=results)
	$(call need,RUN,results/demo/mobilenet-v2/seed0)
	@$(CALM) if [ "$$QUICK" = yes ]; then $(READY_TO_LOOK); else $(READY); fi $(STOPS)
	@test "$$QUICK" != yes || ARGS="--quick $$ARGS"; $(CALM) $(START) python -m scripts.verify --run="$$RUN" $(STOPS)

bundle: ## one archive with which someone else can repeat a run (RUN=..., OUT=file.tar, IMAGES=yes: with the images)
	$(call need,RUN,results/demo/mobilenet-v2/seed0)
	@$(CALM) $(READY) $(STOPS)
	@test "$$IMAGES" != yes || ARGS="--images $$ARGS"; \
		$(CALM) $(START) python -m scripts.bundle --run="$$RUN" $${OUT:+--output="$$OUT"} $(STOPS)

repeat: ## repeat a run from a bundle and compare every hash (ARCHIVE=file.tar, IMAGES=archive-of-the-images)
	$(call need,ARCHIVE,file.tar)
	@$(CALM) $(READY) $(STOPS)
	@$(CALM) $(START) python -m scripts.repeat --archive="$$ARCHIVE" $${IMAGES:+--images="$$IMAGES"} $(STOPS)

# Tests, the slowest of them, and how long all took.
define pytest
@$(READY)
@began=$$(date +%s); $(START) python -m pytest --durations=10 $(1); status=$$?; \
	echo "make $@: $$(($$(date +%s) - began)) s"; exit $$status
endef
ALL_TESTS := tests/unit tests/workflow tests/faults tests/grid

# Two processes, each of which takes a file of tests when it has done one: no core is idle, none is fought for.
# A process that a test ends from within is an error, not waited for.
IN_TWO := -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: ## the tests of a few minutes: unit tests, every rule once, one killed training, one page in a browser
	$(call pytest,-m 'not long' $(IN_TWO))

test-all: ## every test that needs no cluster (test-faults and test-grid are parts of it; needs Chromium)
	$(call pytest,$(ALL_TESTS) $(IN_TWO))

test-faults: ## training that is killed, stopped, starved of disk or damaged
	$(call pytest,tests/faults)

test-grid: ## the report of 30 classes and four runs in a browser (needs Chromium; minutes)
	$(call pytest,tests/grid)

watch: ## all runs, live: progress, best accuracy, images/s, time left (ARGS=--once: print it once)
	@$(CALM) $(READY_TO_LOOK) $(STOPS)
	@$(CALM) $(START) python -m scripts.watch $(STOPS)

serve: ## the same as a page in a browser, with the curves (CONFIG=configs/mine.yaml, PORT=8765; of a remote machine by ssh -L)
	@$(CALM) $(READY_TO_LOOK) $(STOPS)
	@$(CALM) $(START) python -m scripts.serve $${CONFIG:+--config="$$CONFIG"} $${PORT:+--port="$$PORT"} $(STOPS)

jobs: ## this project's Slurm jobs, queued and running: node, time, progress
	@$(CALM) $(READY_TO_LOOK) $(STOPS)
	@$(CALM) $(START) python -m scripts.jobs $(STOPS)

cancel: ## cancel this project's Slurm jobs, all or some (ARGS='JOBID ...'; ARGS=--yes: without asking)
	@$(CALM) $(READY_TO_LOOK) $(STOPS)
	@$(CALM) $(START) python -m scripts.cancel $(STOPS)

test-slurm: export MIMFLOW_REQUIRE_SLURM := 1
test-slurm: ## the workflow on a real Slurm cluster, which the tests start on this machine (Debian, root)
	$(call pytest,tests/slurm -m 'not on_demand')

test-cluster: export MIMFLOW_REQUIRE_SLURM := 1
test-cluster: ## faults of runs on several nodes and of many runs, on the same cluster; half an hour
	$(call pytest,tests/slurm -m on_demand)

bench: ## compare with plain mim, timm and fastai; takes hours (DATA=archive-or-folder; or elpv, cifar10-test, sample)
	@$(CALM) $(READY) $(STOPS)
	@$(CALM) $(START) python -m bench.compare $${DATA:+--data="$$DATA"} $(STOPS)

doctor: ## what this machine has, and one line for each problem (CONFIG=configs/mine.yaml; PROFILE=profiles/slurm: the cluster too)
	@python=$(PYTHON_HERE); [ -x $$python ] || python="$$(sh envs/find_python.sh)" $(STOPS); \
		set -- "$$python" -I -X utf8 scripts/start.py python -m scripts.doctor; \
		[ "$$PROFILE" = profiles/local ] || set -- "$$@" --profile="$$PROFILE"; \
		set -- "$$@" $${CONFIG:+--config="$$CONFIG"}; \
		$(CALM) "$$@" $(STOPS)

wheelhouse: ## download every package of an environment, for a machine without internet (ENV=cuda11)
	@python="$$(sh envs/find_python.sh)" && "$$python" -I envs/wheelhouse.py $${ENV:+--env "$$ENV"}

locks: ## resolve envs/*.in into envs/*.lock again (ARGS=--upgrade: take newer versions)
	@python="$$(sh envs/find_python.sh)" && sh envs/lock.sh "$$python" "$$ARGS"

lint: ## check the code as CI does: ruff, mypy, layers, words and lengths, snakefmt, snakemake --lint
	@$(CALM) $(READY) $(STOPS)
	@sh envs/setup.sh --linters
	@$(START) bash .ci/lint

docs-site: ## the documentation as pages for a browser, in site/; they need no network, their search included
	@$(CALM) $(READY) $(STOPS)
	@sh envs/setup.sh --linters
	@$(CALM) $(START) bash .ci/site $(STOPS)

docs: ## generate docs/settings.md and configs/schema.json again, from scripts/lib/settings/
	@$(CALM) $(READY) $(STOPS)
	@$(CALM) $(START) python -m scripts.document_settings $(STOPS)

clean: ## remove a run, an experiment or a data set with its logs (RUN=results/demo/NAME/seed0; ARGS=--yes: without asking)
	$(call need,RUN,results/demo/mobilenet-v2/seed0)
	@$(CALM) $(READY_TO_LOOK) $(STOPS)
	@$(CALM) $(START) python -m scripts.clean --run="$$RUN" $(STOPS)

clean-demo: ## remove the demo's results
	rm -rf results/demo

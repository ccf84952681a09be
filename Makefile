# make venv   build .venv with all that development needs
# make demo   watch the bundled model think: one subgoal thought, one critique thought (installs only what that needs)
# make test   the tests, offline, in two processes (WORKERS=4: in four)
# make check  lint, format, types, import layers, spelling, file lengths
# Each builds .venv first where it is missing or older than what it was built from.

SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.built
PLAIN := .venv/.plain
comma := ,
PROMPT := a photo of a red couch and a blue horse
LONGEST := 400
WORKERS := 2
CODE := src tests $(wildcard benchmarks examples scripts)

.PHONY: venv demo test check clean

venv: $(STAMP)

define install
	@test -n "$(PYTHON)" || { echo "twgi needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(1)'
	@touch $(PLAIN) $@
endef

$(STAMP): pyproject.toml constraints.txt
	$(call install,[dev$(comma)train])

$(PLAIN): pyproject.toml constraints.txt
	$(call install,)

demo: $(PLAIN)
	@rm -rf out/demo
	@think() { \
		echo "== $$1: $(PROMPT)"; \
		OMP_NUM_THREADS=1 $(BIN)/twgi think "$(PROMPT)" --mode $$1 --seed $$2 --out "$(CURDIR)/out/demo/$$1" && echo; \
	}; think subgoal 0 && think critique 4

test: $(STAMP)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadscope

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	@find $(CODE) -name '*.py' -o -name '*.html' | xargs wc -l \
		| awk '$$2 != "total" && $$1 > $(LONGEST) { print $$2 ": " $$1 " lines, at most $(LONGEST)"; bad = 1 } END { exit bad }'

clean:
	rm -rf build dist out .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

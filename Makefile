VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-slow chaos check coverage docs clean

demo: $(VENV)/installed      ## render, stylise, measure; writes demo/report.html
	$(BIN)/stylize demo demo

test: $(VENV)/installed-test ## the test suite, without the slow tests
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow

chaos: $(VENV)/installed-test ## kills, damaged files, adversarial arrays, places without room or permission: 20 minutes
	$(BIN)/python tests/chaos/adversarial_arrays.py
	$(BIN)/python tests/chaos/damaged_files.py
	$(BIN)/python tests/chaos/random_kills.py
	$(BIN)/python tests/chaos/places.py --only render,learn,compare,gate

check: $(VENV)/installed-test ## formatter, linter, types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

coverage: $(VENV)/installed-test ## which lines no test reaches; writes htmlcov/index.html
	$(BIN)/python -m pytest -n 2 --cov=stylize --cov=metrics --cov-branch --cov-report=html --cov-report=term:skip-covered

docs: $(VENV)/installed-docs ## the site, offline, in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(BIN)/python:
	python3 -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@ $(VENV)/installed

$(VENV)/installed-docs: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@ $(VENV)/installed

clean:
	rm -rf demo site htmlcov .coverage $(VENV)

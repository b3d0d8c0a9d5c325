# Every path is relative and every call is `python -m …`: the folder's name may hold spaces.
SCALE ?= mini
# Stages at a time, one thread each: by default as many as cores, or one where there is a GPU.
JOBS ?=
PYTHON ?= python3.11
# `make PY=python …` uses an environment that is already active.
PY ?= .venv/bin/python
ENV := $(if $(filter .venv/bin/python,$(PY)),.venv/installed)
STAGE ?=

.PHONY: repro test lab verify compare report lint scale parity dry-paper

repro: $(ENV)
	"$(PY)" -m intp.nb clean notebooks/*.ipynb
	"$(PY)" -m dvc pull --quiet data.dvc $$("$(PY)" -m tools.scale frozen)
	"$(PY)" -m tools.scale run $(SCALE) -- "$(PY)" -m tools.repro $(if $(JOBS),--jobs $(JOBS))
	"$(PY)" -m tools.compare $(SCALE) || echo "see above: not all of it is as committed"

test: $(ENV)
	"$(PY)" -m dvc pull --quiet data.dvc $$("$(PY)" -m tools.scale frozen)
	"$(PY)" -m pytest

lab: $(ENV)
	JUPYTER_CONFIG_PATH="$$PWD/configs/jupyter" "$(PY)" -m jupyterlab --LabApp.default_url=/lab/tree/notebooks

verify: $(ENV)
	"$(PY)" -m tools.verify $(STAGE)

compare: $(ENV)
	"$(PY)" -m tools.compare $(SCALE)

report: $(ENV)
	"$(PY)" -m report.page $(SCALE)

lint: $(ENV)
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .

scale: $(ENV)
	"$(PY)" -m tools.scale use $(SCALE)

dry-paper: $(ENV)
	"$(PY)" -m dvc pull --quiet data.dvc
	"$(PY)" -m tools.dry_paper

parity: .venv-parity/installed
	.venv-parity/bin/python tools/parity/flow_matching.py
	.venv-parity/bin/python tools/parity/masked.py

# Upstream's pins contradict ours, so they lie in an environment of their own that sees ours behind.
.venv-parity/installed: requirements-parity.txt $(ENV)
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python -m pip install --quiet --no-deps -r requirements-parity.txt
	"$(PY)" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  "$$(.venv-parity/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ours.pth"
	touch $@

# The files of configs/jupyter make any JupyterLab of .venv save notebooks/ without outputs.
.venv/installed: requirements.txt pyproject.toml configs/webrtcvad/pyproject.toml
	$(PYTHON) -m venv .venv
	@echo "installing requirements.txt into .venv (8 GB, some minutes)"
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	cp -R configs/jupyter/. .venv/etc/jupyter/
	touch $@

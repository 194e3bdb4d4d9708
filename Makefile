# Two commands matter: `make demo` and `make test`. Both make the environment first, and reuse it afterwards.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Tests run tiny models: a second thread gains nothing, and processes that each take every core starve Ray's workers.
# Fixed counts are also what "same bytes on one machine" rests on. Telemetry of pyannote and Ray's OpenTelemetry stay
# off; a test that reaches for the hub fails at once instead of waiting for a time-out.
QUIET := OTEL_SDK_DISABLED=true PYANNOTE_METRICS_ENABLED=0 TOKENIZERS_PARALLELISM=false
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(QUIET)

.PHONY: env demo digits test check soak bench bench-gpu bench-speech quality clean

env: $(STAMP)

# Resemblyzer's metadata asks for the obsolete `typing`, which breaks Python 3.11, and for webrtcvad, a C build that
# nothing here calls: only its weights are read, so it comes without its dependencies.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -c constraints.txt resemblyzer
	touch $@

demo: env
	$(QUIET) $(BIN)/stepwell demo

# Spoken strings of digits from takes to scores, in some fifty minutes; figures, curves and audio in benchmarks/results/digits.
digits: env
	$(ONE_THREAD) $(BIN)/python -m benchmarks.digits

test: env
	$(ONE_THREAD) $(BIN)/python -m pytest

# Style, types, layers and the fast tests: some five minutes on two cores.
check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(ONE_THREAD) $(BIN)/python -m pytest -m "not slow and not ray"

# Hours: twenty kills of a build with every part on Ray, a hundred thousand inputs, five hours in one recording.
soak: env
	STEPWELL_SOAK=1 $(ONE_THREAD) $(BIN)/python -m pytest -s --timeout 0 \
		tests/faults/test_kills.py tests/pipeline/test_many_inputs.py tests/pipeline/test_long_recordings.py

bench: env
	$(ONE_THREAD) $(BIN)/python benchmarks/sequential.py
	$(ONE_THREAD) $(BIN)/python benchmarks/pack_speed.py
	$(ONE_THREAD) $(BIN)/python benchmarks/simulation_check.py
	$(ONE_THREAD) $(BIN)/python benchmarks/part_costs.py
	$(ONE_THREAD) $(BIN)/python -m benchmarks.trainer_speed
	$(ONE_THREAD) $(BIN)/python -m benchmarks.loader_speed

# Training on real speech, in some forty minutes of one core: a speaker left out, curves on read sentences, sixteen of them by heart.
bench-speech: env
	$(ONE_THREAD) $(BIN)/python -m benchmarks.speech --out benchmarks/results/speech

# One GPU: takes any python3 from 3.11 on with torch 2.11 or later, and says so where there is none. The material is made where the environment is.
bench-gpu:
	test -f benchmarks/gpu/material.pt || test ! -x $(BIN)/python || $(BIN)/python -m benchmarks.gpu.made_material
	python3 -m benchmarks.gpu

# Measures what the parts say on ../shared and writes docs/quality.md; `make quality TOPICS="vad text"` measures those alone.
quality: env
	$(ONE_THREAD) $(BIN)/python -m benchmarks.quality $(TOPICS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

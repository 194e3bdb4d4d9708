"""A million hours on a cluster, and the verb that says so."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from manifests.errors import RequestError
from pipeline.cli import app
from pipeline.costs import Prices
from pipeline.projection import Nodes, lines, project
from pipeline.rates import PartRate, Rates

ASR, CODES = "layers/turns/asr", "layers/turns/codes"


def with_gpu(codes_gpus: float = 0.5) -> Rates:
    """Three parts on CPUs and two on GPUs, the ASR by far the slower."""
    return Rates(
        parts=(
            PartRate(part="ingest", wall_s=0.01, cpu_s=0.008, num_bytes=16_000, num_objects=6),
            PartRate(part="spans/vad", reads=("ingest",), wall_s=0.02, cpu_s=0.02, setup_s=1.0),
            PartRate(part="clips/turns", reads=("ingest", "spans/vad"), wall_s=0.001, cpu_s=0.001),
            PartRate(part=ASR, reads=("clips/turns",), pool="asr", wall_s=0.05, cpu_s=0.01, num_gpus=1.0, setup_s=9.0),
            PartRate(part=CODES, reads=("clips/turns",), pool="codes", wall_s=0.01, cpu_s=0.01, num_gpus=codes_gpus),
        ),
        unit_audio_s=(60.0, 90.0, 30.0),
        worker_start_s=2.0,
        dispatch_s=0.005,
    )


def test_a_million_hours():
    projection = project(with_gpu(), 1e6, Nodes(16, 64, 8), Prices(0.04, 2.5))
    assert projection.bottleneck == "pool asr"
    assert projection.played_nodes == 1
    assert projection.played_wall_s == pytest.approx(projection.wall_s, rel=0.05)
    # 64 workers of the ASR at 0.05 s (and its dispatch) an audio-second.
    assert projection.speed == pytest.approx(64 / (0.05 + 0.005 / 60))
    assert projection.num_units == 60_000_000
    assert projection.num_bytes == pytest.approx(1e6 * 3600 * 16_000)
    paid = projection.played_wall_s / 3600 * 16 * (64 * 0.04 + 8 * 2.5)
    assert projection.cost == pytest.approx(paid)
    said = "\n".join(lines(projection))
    for figure in ("bounded by: pool asr", "audio-hours an hour", "units of 1 min 00 s", "writes a second", "USD", "balanced"):
        assert figure in said


def test_a_cluster_that_does_not_divide_is_played_as_a_whole():
    """Three pools on one GPU a node: a node cannot hold its share of two of them."""
    projection = project(with_gpu(codes_gpus=1.0), 100, Nodes(4, 8, 1))
    assert projection.played_nodes == 4
    assert projection.played_wall_s == pytest.approx(projection.wall_s, rel=0.1)


def test_units_of_another_length_change_what_goes_by_the_unit_alone():
    short, long = (project(with_gpu(), 1000, Nodes(1, 16, 2), unit_audio_s=length) for length in (60.0, 3600.0))
    assert (short.num_units, long.num_units) == (60_000, 1000)
    assert long.limits["driver"] == pytest.approx(60 * short.limits["driver"])
    assert long.num_bytes == short.num_bytes
    assert long.speed == pytest.approx(1 / 0.05, rel=0.01)


def test_the_verb_takes_rates_and_gives_them_back(tmp_path):
    path = tmp_path / "rates.json"
    path.write_text(with_gpu().model_dump_json())
    machines = ["--nodes", "2", "--cpus-per-node", "16", "--gpus-per-node", "2", "--hours", "1000", "--price-core-hour", "0.04"]
    done = CliRunner().invoke(app, ["simulate", "--rates", str(path), *machines, "--json"])
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)
    assert row["bottleneck"] == "pool asr"
    assert Rates.model_validate(row["rates"]) == with_gpu()
    assert row["cost"] == pytest.approx(row["played_wall_s"] / 3600 * 32 * 0.04)
    said = CliRunner().invoke(app, ["simulate", "--rates", str(path), *machines, "--unit-minutes", "60"])
    assert "units of 1 h 00 min" in said.stdout


@pytest.mark.parametrize("which", [[], ["--from", "a", "--rates", "b"]])
def test_rates_come_from_one_place(which):
    done = CliRunner().invoke(app, ["simulate", *which])
    assert isinstance(done.exception, RequestError)
    assert "give one of the two" in str(done.exception)

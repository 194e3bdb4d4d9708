from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from manifests.errors import RequestError
from manifests.pages import readable_percent, readable_span
from manifests.report import PAGE, SUMMARY, write_report
from tests.html_page import Page


@pytest.fixture
def tokenizer_dir(tmp_path: Path) -> str:
    rows = [{"step": step, "mel_error": 1.0 / step, "mean_frame_error": 0.8} for step in range(1, 20)]
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    final = {"mel_error": 0.2, "mean_frame_mel_error": 0.8, "codebook_use": 0.5, "perplexity": 30.0, "num_parameters": 1000}
    final |= {"letter_error": 0.06, "word_error": 0.123}
    final["held_out"] = {"num_clips": 4, "mel_error_ratio": 0.3, "word_error": 0.377}
    (tmp_path / "tokenizer" / "metrics.json").write_text(json.dumps(final))
    return str(tmp_path / "tokenizer")


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    rows = [{"stage": stage, "step": step, "loss": 5.0 - step / 10} for stage in ("align", "tts") for step in range(1, 31)]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run" / "evaluation.json").write_text('{"align_loss": 1.0, "swapped_loss": 1.5, "swap_rise": 0.5}')
    identity = {"recipe_digest": "d0", "pack_id": "p0", "tokenizer_id": "t0"}
    stages = [{"name": "align", "wall_s": 12.0, "trainable_parameters": 1234}]
    (tmp_path / "run" / "summary.json").write_text(
        json.dumps({"finished": True, "identity": identity, "stages": stages, "parameters": 9876})
    )
    return str(tmp_path / "run")


def test_a_full_report(tiny_corpus: str, tiny_pack: str, tokenizer_dir: str, run_dir: str, tmp_path: Path) -> None:
    steps = [{"step": "build", "wall_s": 60.0}, {"step": "train", "wall_s": 30.0}]
    out = tmp_path / "out"
    summary = write_report(str(out), tiny_corpus, tiny_pack, tokenizer_dir, run_dir, steps)
    assert json.loads((out / SUMMARY).read_text()) == json.loads(json.dumps(summary))
    page = (out / PAGE).read_text(encoding="utf-8")
    text = Page(page).text
    assert re.search(r"https?://|url\(", page) is None
    assert (summary["diarization"]["der"], summary["diarization"]["collar_s"]) == (pytest.approx(8 / 18), 0.0)
    assert summary["tokenizer"]["mel_error_ratio"] == pytest.approx(0.25)
    assert [stage["last_loss"] for stage in summary["training"]["stages"]] == [2.0, 2.0]
    assert (summary["training"]["stages"][0]["trainable_parameters"], summary["training"]["parameters"]) == (1234, 9876)
    assert {"what": "run: recipe digest", "id": "d0"} in summary["lineage"]
    assert summary["missing"] == []
    # The page says what the summary says.
    for said in (
        "44.4 %",
        "30.0 %",
        "12.3 %",
        "37.7 %",
        "2.3 min",
        "0.25 ×",
        "× 1.5",
        "not_audio",
        "no_text",
        "overlapped speech scored",
        "1.5 min",
    ):
        assert said in text, said
    assert page.count("<svg") == 5 + 7 + 1 + 2  # rows of the timeline, histograms, codec, stages


def test_the_funnel_goes_down_to_packed_clips(tiny_corpus: str, tiny_pack: str, tmp_path: Path) -> None:
    funnel = write_report(str(tmp_path), tiny_corpus, tiny_pack)["funnel"]
    assert [(row["step"], row["num"]) for row in funnel] == [
        ("inputs", 5),
        ("recordings", 3),
        ("speech", None),
        ("clips", 6),
        ("packed clips", 2),
    ]
    assert funnel[1]["lost"] == [
        {"what": "refused", "reason": "not_audio", "num": 1, "hours": None},
        {"what": "folded together", "reason": "same bytes as another input", "num": 1, "hours": None},
    ]
    assert funnel[4]["lost"] == [{"what": "dropped", "reason": "no_text", "num": 4, "hours": 0.004}]
    assert funnel[4]["hours"] == 0.002
    assert "make 2 documents of 0.1 s in all." in Page((tmp_path / PAGE).read_text(encoding="utf-8")).text
    # What is lost between two steps is what the step below has less (an input may be stored and cut short at once).
    assert funnel[0]["num"] - sum(loss["num"] for loss in funnel[1]["lost"]) == funnel[1]["num"]


def test_what_was_not_made_is_said_and_not_invented(tiny_corpus: str, tmp_path: Path) -> None:
    summary = write_report(str(tmp_path), tiny_corpus)
    assert summary["pack"] is summary["tokenizer"] is summary["training"] is summary["costs"]["wall_s"] is None
    assert len(summary["missing"]) == 4
    text = Page((tmp_path / PAGE).read_text(encoding="utf-8")).text
    for said in ("no codec was trained", "no training run was given", "no pack was given"):
        assert said in text


def test_the_recipes_notice_is_shown(tiny_corpus: str, tmp_path: Path) -> None:
    recipe = {"name": "offline", "notice": "labels <nothing>", "annotators": {"asr": {"kind": "pocketsphinx"}}}
    path = Path(tiny_corpus) / "runs" / "r0" / "recipe.json"
    path.write_text(json.dumps(recipe))
    try:
        summary = write_report(str(tmp_path), tiny_corpus)
    finally:
        path.unlink()
    assert (summary["recipe"], summary["asr"]) == ("offline", "pocketsphinx")
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert "labels &lt;nothing&gt;" in page
    assert "nobody should train on them" in Page(page).text


def test_a_run_on_another_pack_is_told(tiny_corpus: str, tiny_pack: str, run_dir: str, tmp_path: Path) -> None:
    (Path(run_dir) / "summary.json").write_text('{"identity": {"pack_id": "other"}}')
    missing = write_report(str(tmp_path / "out"), tiny_corpus, tiny_pack, run_dir=run_dir)["missing"]
    assert "the run was trained on another pack (other), not on the one given" in missing
    assert "the training run is not finished: its curves end where it stopped" in missing


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no corpus at"):
        write_report(str(tmp_path / "out"), str(tmp_path / "none"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.04, "0.0 s"), (59.0, "59.0 s"), (90, "1.5 min"), (5400, "1.50 h"), (3.6e9, "1,000,000 h")],
)
def test_lengths_of_time_are_readable(seconds: float | None, text: str) -> None:
    assert readable_span(seconds).replace("\u00a0", " ") == text


def test_shares_are_readable() -> None:
    assert readable_percent(0.1234).replace("\u00a0", " ") == "12.3 %"
    assert readable_percent(None) == "–"

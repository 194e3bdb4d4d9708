"""The report: one HTML page to look at, and the same figures for machines.

The page needs nothing else: styles and drawings are inline, no script, no font, no address. Parts that were not made (no
pack yet, no training) are said to be missing; nothing is estimated.
"""

from __future__ import annotations

import datetime
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manifests.corpus import Corpus
from manifests.figures import (
    build_recipe,
    clip_lengths_s,
    corpus_figures,
    cost_figures,
    lineage_figures,
    pack_figures,
    run_figures,
    score_figures,
    tokenizer_figures,
)
from manifests.packs import Pack
from manifests.pages import environment
from manifests.plots import curve_svg, histogram_svg, timeline_svg
from manifests.scoring import score_corpus
from manifests.store import Store, json_bytes
from manifests.timeline import Timeline, timelines

PAGE, SUMMARY = "report.html", "summary.json"
SHOWN_CLIPS = 14


@dataclass(frozen=True)
class ReportNames:
    """What the recipe calls the spans and the layer that the report scores."""

    vad: str = "vad"
    diarization: str = "diarization"
    asr: str = "asr"


def write_report(
    out_dir: str,
    corpus_uri: str,
    pack_uri: str | None = None,
    tokenizer_dir: str | None = None,
    run_dir: str | None = None,
    step_costs: Sequence[Mapping[str, Any]] = (),
    names: ReportNames = ReportNames(),
) -> dict[str, Any]:
    """Write ``report.html`` and ``summary.json`` into ``out_dir`` (any URI); return the summary.

    ``step_costs`` are rows ``{step, wall_s}`` in the order the steps ran. Raises RequestError when the corpus or the
    pack is not there.
    """
    corpus = Corpus.open(corpus_uri)
    pack = Pack.open(pack_uri) if pack_uri is not None else None
    recipe = build_recipe(corpus.store)
    own = corpus_figures(corpus, names.vad)
    scores = score_figures(score_corpus(corpus, names.diarization, names.asr))
    summary: dict[str, Any] = {
        "written_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "recipe": recipe.get("name"),
        "notice": " ".join(recipe.get("notice", "").split()),
        "asr": recipe.get("annotators", {}).get(names.asr, {}).get("kind"),
        "corpus": own,
        "pack": pack_figures(pack) if pack is not None else None,
        **scores,
        "tokenizer": tokenizer_figures(tokenizer_dir) if tokenizer_dir is not None else None,
        "training": run_figures(run_dir) if run_dir is not None else None,
        "costs": cost_figures(corpus, step_costs),
        "lineage": lineage_figures(corpus, pack, tokenizer_dir, run_dir),
    }
    summary["funnel"] = funnel(own, summary["pack"])
    summary["missing"] = _missing(summary)
    page = render(summary, timelines(corpus, names.vad, names.diarization), clip_rows(corpus, names.asr))
    store = Store(out_dir)
    store.write(SUMMARY, json_bytes(summary))
    store.write(PAGE, page.encode())
    return summary


def funnel(corpus: Mapping[str, Any], pack: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """From inputs to packed clips: how many, how long, and what was lost on the way to each, by reason.

    Hours are None where nothing could be measured (a refused input has no length).
    """
    hours, outcomes = corpus["hours"], corpus["inputs"]
    lost = [_loss("refused", row["reason"], row["num"]) for row in corpus["quarantine"] if row["outcome"] == "refused"]
    if twice := outcomes["stored"] + outcomes["partial"] - corpus["num_recordings"]:
        lost.append(_loss("folded together", "same bytes as another input", twice))
    steps: list[dict[str, Any]] = [
        {"step": "inputs", "num": corpus["inputs"]["num"], "hours": None, "lost": []},
        {
            "step": "recordings",
            "num": corpus["num_recordings"],
            "hours": hours["recordings"],
            "lost": lost,
        },
        {"step": "speech", "num": None, "hours": hours["speech"], "lost": []},
        {"step": "clips", "num": corpus["num_clips"], "hours": hours["clips"], "lost": []},
    ]
    if pack is not None:
        dropped = [_loss("dropped", row["reason"], row["num"], row["hours"]) for row in pack["funnel"] if row["reason"]]
        # Clips and not documents: of those, several may hold one clip, and be longer than all there was.
        packed = next(row for row in pack["funnel"] if row["step"] == "packed")
        steps.append({"step": "packed clips", "num": packed["num"], "hours": packed["hours"], "lost": dropped})
    return steps


def _loss(what: str, reason: str, num: int, hours: float | None = None) -> dict[str, Any]:
    return {"what": what, "reason": reason, "num": num, "hours": hours}


def clip_rows(corpus: Corpus, asr: str) -> list[dict[str, Any]]:
    """What the corpus says about its first clips: when, who, the text, the score, the tags."""
    clips = corpus.clips()
    layers = corpus.layers()
    columns: dict[str, list[Any]] = {}
    for layer, name, title in ((asr, "text", "text"), ("dnsmos", "dnsmos_ovrl", "score")):
        if layer in layers and name in (table := corpus.layer(layer)).column_names:
            columns[title] = table[name].to_pylist()
    tags = corpus.layer("style").to_pylist() if "style" in layers else []
    names: dict[bytes, str] = {}
    for row in corpus.inputs().to_pylist():
        names.setdefault(row["recording_id"], posixpath.basename(row["uri"]))
    rows = []
    for i, (clip, length_s) in enumerate(zip(clips.slice(0, SHOWN_CLIPS).to_pylist(), clip_lengths_s(clips), strict=False)):
        said = {
            k: v for k, v in (tags[i] if tags else {}).items() if k not in ("clip_id", "status", "error") and isinstance(v, str)
        }
        start_s = clip["start_sample"] / clip["sample_rate_hz"]
        row = {
            "start_s": start_s,
            "length_s": length_s,
            "speaker": clip["speaker_label"],
            "recording": names[clip["recording_id"]],
        }
        rows.append({**row, **{title: values[i] for title, values in columns.items()}, "tags": said})
    return rows


def _missing(summary: Mapping[str, Any]) -> list[str]:
    """What a full report would show and this one cannot."""
    told = {
        "pack": "no pack was given: the funnel ends at the clips",
        "tokenizer": "no codec was trained: no codec figures",
        "training": "no training run was given: no loss curves",
    }
    missing = [text for key, text in told.items() if summary[key] is None]
    if not summary["costs"]["steps"]:
        missing.append("no wall times of steps were given")
    if not summary["costs"]["parts"]:
        missing.append("the corpus has no ledger: no cost of its parts")
    if summary["corpus"]["hours"]["speech"] is None:
        missing.append("no VAD spans: hours of speech are not known")
    if summary["training"] is not None and not summary["training"]["is_finished"]:
        missing.append("the training run is not finished: its curves end where it stopped")
    ids = {row["what"]: row["id"] for row in summary["lineage"]}
    if "run: pack id" in ids and ids.get("pack: pack id", ids["run: pack id"]) != ids["run: pack id"]:
        missing.append(f"the run was trained on another pack ({ids['run: pack id']}), not on the one given")
    return missing + list(summary["notes"])


def render(summary: Mapping[str, Any], drawn: Sequence[Timeline], clips: Sequence[Mapping[str, Any]]) -> str:
    """The page. Everything that came from outside is escaped."""
    from markupsafe import Markup

    tokenizer, training = summary["tokenizer"], summary["training"]
    level = tokenizer["mean_frame_mel_error"] if tokenizer else None
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            s=summary,
            drawn=[(timeline, Markup(timeline_svg(timeline))) for timeline in drawn],
            clips=clips,
            histograms=[
                (facts, Markup(histogram_svg(facts)))
                for facts in (summary["corpus"]["clip_duration_s"], *summary["corpus"]["scores"])
                if facts["num"]
            ],
            codec=Markup(curve_svg(tokenizer["curve"], "mel error of the codec", level)) if tokenizer else None,
            losses=[(stage, Markup(curve_svg(stage["curve"], stage["stage"]))) for stage in training["stages"]]
            if training
            else [],
        )
    )

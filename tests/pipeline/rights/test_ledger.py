"""The ledger of rights: hours by source, and every planted gap."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from manifests.audit.holdings import Disagreements
from manifests.corpus import Corpus
from manifests.facts import check_licences
from manifests.recipes import decode_recipe
from pipeline.build import build
from pipeline.pack import pack
from pipeline.recipe import PackRecipe
from pipeline.rights.ledger import read_ledger


@pytest.fixture(scope="module")
def corpus(recordings, light, tmp_path_factory) -> str:
    """Units of one input; the bytes of the first come twice, under licences that disagree."""
    folder = tmp_path_factory.mktemp("ledger")
    first, second = sorted(recordings.glob("BAC*.wav"))
    again = shutil.copy(first, folder / "zz-again.wav")
    said = [
        {"uri": str(first), "source": "open", "licence": "CC-BY-4.0", "consent": "granted", "origin_uri": "https://example.org"},
        {"uri": str(again), "source": "closed", "licence": "CC-BY-NC-4.0"},
        {"uri": str(second), "source": "open", "licence": "cc-by-sa-4.0", "consent": "not_needed", "attribution": "A. Author"},
        {"uri": str(recordings / "conversation.wav"), "source": "calls", "consent": "withheld"},
        {"uri": str(recordings / "tone.flac"), "source": "calls", "licence": "house rules", "consent": "unknown"},
        {"uri": str(recordings / "broken.wav"), "source": "calls"},
    ]
    manifest = folder / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in said))
    out = str(folder / "corpus")
    build([str(manifest)], out, light(annotators={}))
    return out


def hours_of(rows: list[dict]) -> dict:
    return {row["value"]: round(row["hours"] * 3600, 3) for row in rows}


def test_hours_gaps_and_answers_by_source(corpus):
    opened = Corpus.open(corpus)
    length_s = {
        row["uri"].rsplit("/", 1)[1]: seconds
        for row in opened.inputs().to_pylist()
        for recording in opened.recordings().to_pylist()
        if recording["recording_id"] == row["recording_id"]
        for seconds in [round(recording["num_samples"] / recording["sample_rate_hz"], 3)]
    }
    first, second = length_s["BAC009S0764W0121.wav"], length_s["BAC009S0764W0122.wav"]
    talk, tone = length_s["conversation.wav"], length_s["tone.flac"]
    found = read_ledger(opened).to_json()
    sources = {row["source"]: row for row in found["sources"]}
    assert sources.keys() == {"open", "closed", "calls"}
    assert (sources["calls"]["num_inputs"], sources["calls"]["num_recordings"]) == (3, 2)
    assert hours_of(sources["open"]["licences"]) == {"CC-BY-4.0": first, "CC-BY-SA-4.0": second}
    assert hours_of(sources["closed"]["licences"]) == {"CC-BY-NC-4.0": first}
    assert hours_of(sources["calls"]["consents"]) == {"withheld": talk, "unknown": tone}
    in_s = {name: {gap: round(h * 3600, 3) for gap, h in row["gap_hours"].items() if h} for name, row in sources.items()}
    assert in_s["open"] == {"conflicting_licences": first, "no_origin": second}
    assert in_s["closed"] == {"conflicting_licences": first, "no_consent": first, "no_origin": first}
    gone = {"no_licence": talk, "consent_withheld": talk, "no_consent": tone, "no_origin": round(talk + tone, 3)}
    assert in_s["calls"] == pytest.approx(gone, abs=2e-3)
    answers = {question: round(hours["yes"] * 3600, 3) for question, hours in sources["open"]["allows"].items()}
    assert answers == {"commercial": second, "derivatives": second, "share_alike": second}
    assert sources["open"]["allows"]["commercial"]["unknown"] * 3600 == pytest.approx(first, abs=1e-3)
    assert found["total"]["hours"] * 3600 == pytest.approx(first + second + talk + tone, abs=5e-3)
    (conflict,) = found["conflicts"]
    assert conflict["licences"] == ["CC-BY-4.0", "CC-BY-NC-4.0"]
    assert len(conflict["uris"]) == 2


def test_the_verb_prints_the_ledger_and_ends_well_whatever_it_finds(corpus):
    import stepwell

    runner = CliRunner()
    people = runner.invoke(stepwell.app, ["manifest", "rights", corpus])
    assert people.exit_code == 0
    assert "conflicting_licences" in people.stdout
    assert "house rules" in people.stdout
    machines = runner.invoke(stepwell.app, ["manifest", "rights", corpus, "--json"])
    assert json.loads(machines.stdout)["total"]["num_recordings"] == 4


def test_one_licence_in_two_spellings_is_no_conflict_anywhere(recordings, light, tmp_path):
    """Not in the ledger, an audit, a pack or an export; and a licence that is an empty text is none."""
    first, second = sorted(recordings.glob("BAC*.wav"))
    twins = [(path, shutil.copy(path, tmp_path / f"twin-{path.name}")) for path in (first, second)]
    licences = [("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/"), ("", "CC0-1.0")]
    said = [
        {"uri": str(uri), "source": "open", "licence": licence}
        for uris, told in zip(twins, licences, strict=True)
        for uri, licence in zip(uris, told, strict=True)
    ]
    manifest, out = tmp_path / "m.jsonl", str(tmp_path / "corpus")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in said))
    build([str(manifest)], out, light(annotators={}))
    opened = Corpus.open(out)
    ledger = read_ledger(opened).to_json()
    assert ledger["conflicts"] == []
    assert {row["value"] for row in ledger["total"]["licences"]} == {"CC-BY-4.0", "CC0-1.0"}
    assert ledger["total"]["gap_hours"]["no_licence"] == 0
    tally = Disagreements(frozenset(), most=5)
    tally.add(opened.inputs())
    assert tally.figures()["num_recordings"] == 0
    check_licences(opened.inputs())
    recipe = {"name": "t", "text_from": [], "require_text": False, "licences": ["cc-by-4.0", "CC0 1.0"]}
    packed = pack(out, str(tmp_path / "pack"), decode_recipe(PackRecipe, yaml.safe_dump(recipe), "t"))
    assert packed.num_documents["train"] == opened.clips().num_rows > 0

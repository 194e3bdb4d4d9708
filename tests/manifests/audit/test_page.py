"""The page: whole without the network, escaped, true to the figures; in a browser, readable at any width."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from manifests.audit import work
from manifests.audit.figures import AuditFigures
from manifests.audit.listening import ListeningSample
from manifests.audit.page import Listening, matrix, place, render_audit, what_if_rows
from manifests.audit.plots import distribution_svg
from manifests.audit.verdicts import Verdict
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.fold import fold
from manifests.open_rows import corpus_rows

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def figures(tiny_corpus: str) -> AuditFigures:
    return work.audit_uri(tiny_corpus)


@pytest.fixture(scope="module")
def listening(tiny_corpus: str) -> Listening:
    corpus = Corpus.open(tiny_corpus)
    (sample,) = fold(corpus_rows(corpus), [ListeningSample(("clip.language",), 4, shows=("asr.text",))])
    verdicts = [Verdict(clip_id=drawn.clip_id, verdict="right") for drawn in sample.drawn()]
    return Listening.of(sample, corpus.audio(), verdicts)


@pytest.fixture(scope="module")
def page(figures: AuditFigures, listening: Listening) -> str:
    return render_audit(figures, listening)


def text_of(page: str) -> str:
    """What a reader sees."""
    body = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).replace("\u00a0", " ").split())


def test_it_asks_nothing_of_the_network(page):
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", page)
    kinds = {address.split(":")[0] if ":" in address else address[0] for address in addresses}
    assert kinds <= {"data", "#", "memory", "link.href", "U"}
    assert not re.search(r"<(link|iframe|img)\b|@import", page)


def test_it_says_what_the_figures_say(figures, page):
    text = text_of(page)
    assert f"{figures.totals['num_clips']} clips" in text
    assert "clip.language" in text
    for layer in figures.layers:
        assert layer["layer"] in text
    for step in figures.funnel["steps"]:
        assert step["filter"] in text
    broken = [rule for rule in figures.rules if rule["num_clips"]]
    assert broken
    for rule in broken:
        assert rule["title"] in text
        assert rule["first"][0]["clip_id"] in text
    assert f"{len(broken)} of {len(figures.rules)} rules are broken" in text


def test_listeners_are_told_with_their_uncertainty(page, listening):
    assert page.count("data:audio/flac;base64,") == len(listening.clips) == 4
    assert "0.0 % of the hours are wrong (0.0 % to 60.4 %, 95 %)" in text_of(page)


def test_a_verdict_on_another_sample_is_refused(tiny_corpus, listening):
    corpus = Corpus.open(tiny_corpus)
    (sample,) = fold(corpus_rows(corpus), [ListeningSample((), 1)])
    other = next(d.clip_id for d, _ in listening.clips if d.clip_id != sample.drawn()[0].clip_id)
    with pytest.raises(RequestError, match=f"verdict on clip '{other}': it is not in this sample; give the size"):
        Listening.of(sample, corpus.audio(), [Verdict(clip_id=other, verdict="right")])


def test_what_came_from_outside_is_escaped(figures):
    bad = '"><script>alert(1)</script>'
    group = {**figures.groups[0], "rows": [{"key": [bad], "num_clips": 1, "clip_h": 1.0, "speech_h": 1.0, "share": 1.0}]}
    funnel = {**figures.funnel, "sets": [{"failed": [bad], "num_clips": 1, "clip_h": 1.0}]}
    page = render_audit(AuditFigures(**{**figures.__dict__, "groups": [group], "funnel": funnel}))
    assert "<script>alert" not in page
    assert bad in html.unescape(page)


def test_a_corpus_without_clips_has_a_page(figures):
    nothing = {"num_clips": 0, "clip_h": 0.0, "speech_h": 0.0, "num_units": 0}
    empty = AuditFigures(
        **{
            **figures.__dict__,
            "totals": nothing,
            **{name: [] for name in ("groups", "distributions", "distinct", "layers", "rules", "outliers")},
            **dict.fromkeys(("speakers", "funnel", "holdings", "licence_disagreements")),
            "drift": {**figures.drift, "rows": [], "num_tests": 0},
        }
    )
    assert "0 h in 0 clips" in text_of(render_audit(empty)) or "0.0 s in 0 clips" in text_of(render_audit(empty))


def test_a_matrix_keeps_every_hour():
    rows = [{"key": [f"s{i}", f"l{i % 3}"], "clip_h": float(i)} for i in range(20)]
    made = matrix({"name": "both", "columns": ["a", "b"], "rows": rows, "rest": {"clip_h": 5.0}})
    assert len(made["lefts"]) == 12
    assert made["lefts"][0] == "s19"
    assert sum(map(sum, made["cells"])) + made["other_h"] == sum(range(20)) + 5.0


def test_what_if_rows_stand_around_the_threshold():
    facts = {"thresholds": [0, 1, 2, 3, 4], "clip_h_kept": [9, 7, 4, 2, 0], "num_clips_kept": [9, 7, 4, 2, 0], "at": 2}
    rows = what_if_rows(facts)
    assert [(row["threshold"], row["change_h"]) for row in rows] == [(0, 5), (1, 3), (2, 0), (3, -2), (4, -4)]
    assert [row["threshold"] for row in rows if row["is_now"]] == [2]


@pytest.mark.parametrize(
    ("uri", "href"),
    [
        ("/data/a #1.wav", "file:///data/a%20%231.wav#t=1.00,2.50"),
        ("https://host/a.wav", "https://host/a.wav#t=1.00,2.50"),
        ("s3://bucket/a.wav", None),
        ("javascript:alert(1)", None),
    ],
)
def test_links_lead_to_the_second(uri, href):
    row = {"clip_id": "c0", "uri": uri, "start_s": 1.0, "end_s": 2.5}
    assert place(row) == {"text": f"{uri.rpartition('/')[2]} 1.0–2.5 s", "href": href}
    assert place({"clip_id": "c0"}) == {"text": "c0", "href": None}


def test_thin_tails_are_not_drawn():
    edges, hours = list(range(101)), [0.0] * 100
    hours[50:60] = [1.0] * 10
    hours[99] = 0.001
    facts = {"edges": edges, "clip_h_by_bin": hours, "quantiles": {"p50": 55.0}, "title": "length"}
    svg = distribution_svg(facts)
    assert svg.count('class="bin"') == 10
    assert svg.count('class="median"') == 1
    assert distribution_svg({**facts, "clip_h_by_bin": [0.0] * 100}) == ""


def in_browser(page: str, script: str, width: int, folder: Path) -> str:
    """Text that ``script`` leaves in the title of the page, in a window of ``width`` CSS pixels."""
    # Headless windows are at least 500 wide: a frame of the asked width stands for the phone.
    (folder / "page.html").write_text(page.replace("</body>", f"<script>{script}</script></body>"))
    frame = f'<iframe id="f" src="page.html" style="width:{width}px;height:900px;border:0"></iframe>'
    read = "document.title = document.getElementById('f').contentDocument.title"
    (folder / "frame.html").write_text(f"{frame}<script>onload = () => setTimeout(() => {{ {read} }}, 200)</script>")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--virtual-time-budget=5000"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={folder}/profile", "--dump-dom", (folder / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return html.unescape(found[1])


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(page, figures, width, tmp_path):
    script = """
      const box = document.querySelector('#choice input'), kept = document.getElementById('kept');
      const before = kept.textContent; document.querySelectorAll('#choice input').forEach((b) => b.checked = false);
      box.dispatchEvent(new Event('change'));
      document.querySelector('.verdict input').click();
      document.title = JSON.stringify({ before, after: kept.textContent, told: document.getElementById('told').textContent,
        overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth });
    """
    seen = json.loads(in_browser(page, script, width, tmp_path))
    kept, all_h = figures.funnel["kept_h"], figures.funnel["all_h"]
    assert seen["before"].endswith(f"({100 * kept / all_h:.1f} %)")
    assert seen["after"].endswith("(100.0 %)")
    assert seen["told"] == "1 of 4 heard"
    assert seen["overflow"] <= 0


def test_the_verb_writes_it(tiny_corpus, tmp_path):
    path = str(tmp_path / "audit.html")
    made = work.audit_uri(tiny_corpus)
    work.write_page(made, path, listen=3)
    page = Path(path).read_text()
    assert page.count("<audio") == 3
    clips = re.findall(r'data-clip="([0-9a-f]{32})"', page)
    verdicts = tmp_path / "verdicts.jsonl"
    verdicts.write_text("".join(json.dumps({"clip_id": clip, "verdict": "wrong"}) + "\n" for clip in clips))
    work.write_page(made, path, listen=3, verdicts=str(verdicts))
    assert "100.0 % of the hours are wrong" in text_of(Path(path).read_text())


def test_a_pack_is_not_listened_to(tiny_pack, tmp_path):
    with pytest.raises(RequestError, match="is a pack; listen to its corpus"):
        work.write_page(work.audit_uri(tiny_pack), str(tmp_path / "a.html"), listen=3)

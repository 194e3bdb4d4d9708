"""Recipes of builds and packs: what is wrong is named by the path that the file has it at."""

from __future__ import annotations

import pytest

from manifests.errors import RequestError
from manifests.recipes import decode_recipe
from pipeline.recipe import BuildRecipe, PackRecipe

VAD = "name: x\nsegmenters: {vad: {kind: silero}}\nclip_set: {turns: null}\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            VAD + "annotators: {tags: {kind: style, fast: 1}}",
            "key 'annotators.tags.fast' is unknown; keys there are when, kind, ",
        ),
        (
            VAD + "annotators: {tags: {kind: style, when: {colum: a.b}}}",
            "key 'annotators.tags.when.colum' is unknown; keys there are column",
        ),
        (VAD + "annotators: {tags: {kind: stile}}", "'annotators.tags'"),
        (VAD + "unit: {max_inputs: 3}", "key 'unit' is unknown"),
        (VAD + "units: {max_inputs: 0}", "'units.max_inputs' = 0"),
        (
            "name: x\nsegmenters: {vad: {kind: silero, when: {spans: music}}}\nclip_set: {turns: null}",
            "segmenter 'music' is not in",
        ),
        ("name: x\nsegmenters: {vad: {kind: silero}}", "segmenter 'diarization' is not in segmenters (vad)"),
        ("[]", "must be a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_build_recipe_names_the_place(text, complaint):
    with pytest.raises(RequestError) as refusal:
        decode_recipe(BuildRecipe, text, "mine")
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_rule_of_the_whole_recipe_is_told_without_the_recipe():
    with pytest.raises(RequestError) as refusal:
        decode_recipe(BuildRecipe, "name: x\nsegmenters: {vad: {kind: silero}}", "mine")
    assert str(refusal.value).startswith("recipe 'mine': segmenter 'diarization' is not in segmenters (vad)")


def test_splits_must_sum_to_one_and_filters_name_layer_and_column():
    with pytest.raises(RequestError, match="must be shares that sum to 1"):
        decode_recipe(PackRecipe, "name: x\nsplits: {train: 0.5}", "mine")
    with pytest.raises(RequestError, match=r"filters.0.column"):
        decode_recipe(PackRecipe, "name: x\nfilters: [{column: dnsmos}]", "mine")
    recipe = decode_recipe(PackRecipe, "name: x\nfilters: [{column: dnsmos.dnsmos_ovrl, min: 2.5}]", "mine")
    assert recipe.filters[0].drop_reason == "dnsmos.dnsmos_ovrl<2.5"

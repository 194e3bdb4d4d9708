"""What a run starts from, by its recipe's ``start``: a whole published checkpoint, or an encoder, a decoder, or both.

Everything that can be known without reading weights is checked first: ``open_start`` compares configurations, names and
shapes, ``load`` copies. Rows that a text model does not bring are drawn (``growth``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from manifests.errors import MismatchError
from manifests.ids import digest_json
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary
from training.config import model_config
from training.growth import grow
from training.model import StepAudio2
from training.pretrained import decoder_readings, encoder_readings
from training.published import FACTS, TOKENIZER, published_readings
from training.recipe import Group
from training.start_recipe import StartRecipe
from training.weight_files import Reading, WeightFolder, check_readings, copy_readings

TEXT_PARTS = frozenset({Group.DECODER, Group.EMBEDDING, Group.HEAD})  # of a text model
ALL_PARTS = TEXT_PARTS | {Group.ENCODER, Group.ADAPTOR}  # of the published layout


@dataclass(frozen=True)
class Start:
    """Checked weights that wait to be copied, and the groups of the model that they fill."""

    readings: dict[str, Reading]
    loaded: frozenset[Group]
    trained: frozenset[Group]  # of these, all that somebody has trained
    vocabulary: Vocabulary
    grows: bool  # a text model brings its own rows only

    def digest(self) -> str:
        """Of all bytes of the files that the weights come from, wherever they lie; empty where there are none. Reads them whole."""
        folders = dict.fromkeys(reading.folder for reading in self.readings.values())
        return digest_json([folder.digests() for folder in folders]) if folders else ""

    def load(self, model: StepAudio2, seed: int) -> None:
        """Copy the weights into the model, in place, and draw the rows that a text model does not bring.

        Raises ModelUnavailable for damaged values.
        """
        copy_readings(self.readings, model)
        if self.grows:
            grow(model, self.vocabulary, seed, wrappers=False)


def open_start(start: StartRecipe, size: str, vocabulary: Vocabulary) -> Start:
    """The weights that the recipe names, checked for a model of that size and vocabulary, without reading them.

    Raises ModelUnavailable where a folder is absent or damaged, MismatchError where it is of another model.
    """
    config = model_config(size)
    readings: dict[str, Reading] = {}
    trained: frozenset[Group] = frozenset()
    if start.model is not None:
        folder = WeightFolder(start.model)
        readings |= published_readings(folder, config, size, vocabulary)
        trained |= trained_groups(folder, ALL_PARTS)
    if start.encoder is not None:
        readings |= encoder_readings(WeightFolder(start.encoder), config.encoder, size)
        trained |= {Group.ENCODER}
    if start.decoder is not None:
        folder = WeightFolder(start.decoder)
        readings |= decoder_readings(folder, config.decoder, size, vocabulary)
        trained |= trained_groups(folder, TEXT_PARTS)
    with torch.device("meta"):
        check_readings(readings, StepAudio2(config, vocabulary.num_rows, vocabulary.text_size), size)
    return Start(readings, loaded_groups(start), trained, vocabulary, start.decoder is not None)


def loaded_groups(start: StartRecipe) -> frozenset[Group]:
    """Parts of the model that the recipe's weights fill."""
    loaded = ALL_PARTS if start.model else frozenset()
    loaded |= {Group.ENCODER} if start.encoder else set()
    return loaded | TEXT_PARTS if start.decoder else loaded


def trained_groups(folder: WeightFolder, loaded: frozenset[Group]) -> frozenset[Group]:
    """Of the parts that a folder fills, those that its export says were trained; a folder from elsewhere is taken at its word."""
    trained = (folder.side_file(FACTS) or {}).get("trained", loaded)
    return frozenset(group for group in loaded if group in trained)


def check_tokenizer(start: StartRecipe, text: TextTokenizer) -> None:
    """Whether ids mean to the text model what they mean here; a folder without a tokenizer.json is taken at its word.

    Raises MismatchError naming the first id that stands for another token.
    """
    path = os.path.join(os.path.expanduser(start.decoder or ""), TOKENIZER)
    if start.decoder is None or not os.path.exists(path):
        return
    theirs = TextTokenizer.load(path)
    if theirs.digest == text.digest:
        return
    for number in range(max(theirs.bpe_size, text.bpe_size)):
        # By tokens and not by texts: half of the bytes are no text by themselves, and all of these would look alike.
        if theirs.token(number) != text.token(number):
            raise MismatchError(
                f"weights {start.decoder!r}: id {number} is {theirs.token(number)!r} in its {TOKENIZER}, "
                f"{text.token(number)!r} in the tokenizer here; make the tokenizer from that file"
            )

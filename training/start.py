"""What a run starts from, by its recipe's ``start``: a whole published checkpoint, or an encoder, a decoder, or both.

Everything that can be known without reading weights is checked first: ``open_start`` compares configurations, names and
shapes, ``load`` copies. Rows that a text model does not bring are drawn (``growth``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tokenization.vocabulary import Vocabulary
from training.config import StartRecipe, model_config
from training.growth import draw_new_rows
from training.model import StepAudio2
from training.pretrained import EMBEDDING, HEAD, decoder_readings, encoder_readings
from training.published import published_readings
from training.recipe import Group
from training.weight_files import Reading, WeightFolder, check_readings, copy_readings


@dataclass(frozen=True)
class Start:
    """Checked weights that wait to be copied, and the groups of the model that they fill."""

    readings: dict[str, Reading]
    loaded: frozenset[Group]
    vocabulary: Vocabulary
    grows: bool  # a text model brings its own rows only

    def load(self, model: StepAudio2, seed: int) -> None:
        """Copy the weights into the model, in place, and draw the rows that a text model does not bring.

        Raises ModelUnavailable for damaged values.
        """
        copy_readings(self.readings, model)
        if self.grows:
            for name in (EMBEDDING, HEAD):
                draw_new_rows(model.get_parameter(name), self.vocabulary.known_rows(wrappers=False), seed, name)


def open_start(start: StartRecipe, size: str, vocabulary: Vocabulary) -> Start:
    """The weights that the recipe names, checked for a model of that size and vocabulary, without reading them.

    Raises ModelUnavailable where a folder is absent or damaged, MismatchError where it is of another model.
    """
    config = model_config(size)
    readings: dict[str, Reading] = {}
    if start.model is not None:
        readings |= published_readings(WeightFolder(start.model), config, size, vocabulary)
    if start.encoder is not None:
        readings |= encoder_readings(WeightFolder(start.encoder), config.encoder, size)
    if start.decoder is not None:
        readings |= decoder_readings(WeightFolder(start.decoder), config.decoder, size, vocabulary)
    with torch.device("meta"):
        check_readings(readings, StepAudio2(config, vocabulary.num_rows, vocabulary.text_size), size)
    return Start(readings, loaded_groups(start), vocabulary, start.decoder is not None)


def loaded_groups(start: StartRecipe) -> frozenset[Group]:
    """Parts of the model that the recipe's weights fill."""
    text_model = {Group.DECODER, Group.EMBEDDING, Group.HEAD}
    loaded = text_model | {Group.ENCODER, Group.ADAPTOR} if start.model else set[Group]()
    loaded |= {Group.ENCODER} if start.encoder else set()
    return frozenset(loaded | text_model if start.decoder else loaded)

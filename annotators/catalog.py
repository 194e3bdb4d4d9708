"""Every segmenter and annotator that a recipe may name. A new part costs its module, its test and one line here.

Importing this module loads no model library: configs are light, and ``build().setup()`` does the loading.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from annotators.custom import CustomAnnotatorConfig, CustomSegmenterConfig
from annotators.diarization import DiarizationConfig
from annotators.dnsmos import DnsmosConfig
from annotators.pocketsphinx_asr import PocketsphinxConfig
from annotators.prosody import ProsodyConfig
from annotators.signal import SignalConfig
from annotators.silero import SileroConfig
from annotators.speaker_change import SpeakerChangeConfig
from annotators.speaker_embedding import SpeakerEmbeddingConfig
from annotators.style import StyleConfig
from annotators.whisperx_asr import WhisperxConfig

SegmenterConfig = Annotated[
    SileroConfig | SpeakerChangeConfig | DiarizationConfig | CustomSegmenterConfig, Field(discriminator="kind")
]

AnnotatorConfig = Annotated[
    PocketsphinxConfig
    | WhisperxConfig
    | DnsmosConfig
    | SignalConfig
    | ProsodyConfig
    | StyleConfig
    | SpeakerEmbeddingConfig
    | CustomAnnotatorConfig,
    Field(discriminator="kind"),
]

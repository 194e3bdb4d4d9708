"""Every segmenter, annotator and voice that a recipe may name. A new part costs its module, its test and one line here.

Importing this module loads no model library: configs are light, and ``build().setup()`` does the loading.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from annotators.audio_classifier import AudioClassifierConfig
from annotators.caption import CaptionConfig
from annotators.consensus import ConsensusConfig
from annotators.content import ContentConfig
from annotators.custom import CustomAnnotatorConfig, CustomSegmenterConfig, CustomVoiceConfig
from annotators.diarization import DiarizationConfig
from annotators.dnsmos import DnsmosConfig
from annotators.espeak_voice import EspeakConfig
from annotators.fitted_classifier import FittedClassifierConfig
from annotators.hf_asr import HfAsrConfig
from annotators.hf_voice import HfVoiceConfig
from annotators.integrity import IntegrityConfig
from annotators.paralinguistics import ParalinguisticsConfig
from annotators.pocketsphinx_asr import PocketsphinxConfig
from annotators.prosody import ProsodyConfig
from annotators.pyannote_pipeline import PyannotePipelineConfig
from annotators.pyannote_vad import PyannoteVadConfig
from annotators.rhythm import RhythmConfig
from annotators.signal import SignalConfig
from annotators.silero import SileroConfig
from annotators.sound_gate import SoundGateConfig
from annotators.speaker_change import SpeakerChangeConfig
from annotators.speaker_embedding import SpeakerEmbeddingConfig
from annotators.spectrum import SpectrumConfig
from annotators.style import StyleConfig
from annotators.text_facts import TextConfig
from annotators.whisperx_asr import WhisperxConfig

SegmenterConfig = Annotated[
    SileroConfig | PyannoteVadConfig | SpeakerChangeConfig | DiarizationConfig | PyannotePipelineConfig | CustomSegmenterConfig,
    Field(discriminator="kind"),
]

AnnotatorConfig = Annotated[
    PocketsphinxConfig
    | WhisperxConfig
    | HfAsrConfig
    | DnsmosConfig
    | IntegrityConfig
    | SignalConfig
    | SoundGateConfig
    | ProsodyConfig
    | StyleConfig
    | SpeakerEmbeddingConfig
    | AudioClassifierConfig
    | SpectrumConfig
    | TextConfig
    | ConsensusConfig
    | ContentConfig
    | FittedClassifierConfig
    | RhythmConfig
    | ParalinguisticsConfig
    | CaptionConfig
    | CustomAnnotatorConfig,
    Field(discriminator="kind"),
]

VoiceConfig = Annotated[EspeakConfig | HfVoiceConfig | CustomVoiceConfig, Field(discriminator="kind")]

"""A Whisper of 0.4 million weights besides its vocabulary that really knows a dozen words of two languages.

Layout and vocabulary are those of the published multilingual checkpoints, so that transformers, CTranslate2 and whisperx
load and decode it as they do the real ones; only the text part of the vocabulary is the bytes, the words and fillers.

Learning so much in minutes of one CPU core needs help that a test may give: the times of the words. The encoder is also
asked, frame by frame, which word it hears and the how manieth it is; the decoder's last cross-attention is told to look
at the word that it writes, so that the times which transformers reads from it are right too. Most steps hear short windows
(a window of 30 s costs ten times as much), the last ones hear 30 s, as recognisers give it. Timestamp tokens are not taught.

Shape legend: B batch, M mel bands, F frames of 20 ms, T positions, D width, V vocabulary.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.checkpoints.spoken_words import MAX_WORDS, WORDS, Phrase, phrases
from tests.checkpoints.training import padded, reproducible, train

if TYPE_CHECKING:
    import torch

NUM_PHRASES = 1500
SHORT_STEPS, LONG_STEPS = 1000, 80
SHORT_BATCH, LONG_BATCH = 16, 6
WINDOW_FRAMES = 1500
SAMPLES_A_FRAME = 320
PROMPT_TOKENS = 4  # start, language, task, no timestamps; each word is one token
MAX_LEAD_FRAMES = 10  # silence before a phrase, besides what it has
NUM_LANGUAGES, NUM_TEXT_TOKENS, NUM_TIMESTAMPS = 99, 50_257, 1501
ALL_WORDS = [word for words in WORDS.values() for word in words]
IGNORED = -100  # what cross_entropy leaves out


def train_whisper(folder: Path) -> None:
    """Write ``folder/transformers`` and, converted from it, ``folder/ctranslate2``."""
    import torch
    from ctranslate2.converters import TransformersConverter

    with reproducible(0):
        tokenizer = make_tokenizer()
        network = _network(tokenizer)
        course = _Course(network, tokenizer, phrases(NUM_PHRASES, seed=1))
        parameters = [*network.parameters(), *course.helpers.parameters()]
        train(parameters, course.loss, num_steps=SHORT_STEPS + LONG_STEPS, peak_lr=3e-3, seed=0)
    original, converted = folder / "transformers", folder / "ctranslate2"
    with torch.no_grad():
        network.save_pretrained(original)
    _save_processor(tokenizer, original)
    TransformersConverter(str(original), copy_files=["tokenizer.json"]).convert(str(converted))


def make_tokenizer() -> Any:
    """Tokenizer of the published multilingual order: text, specials, timestamps. " red" and the like are one token each."""
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    merges: list[tuple[str, str]] = []
    for word in ALL_WORDS:
        (piece, _), *_ = split.pre_tokenize_str(f" {word}")
        merges += [pair for end in range(1, len(piece)) if (pair := (piece[:end], piece[end])) not in merges]
    text = [*bytes_, *("".join(pair) for pair in merges)]
    # By the empty token CTranslate2 tells multilingual checkpoints.
    text += [*(f"Ġw{number}" for number in range(NUM_TEXT_TOKENS - len(text) - 1)), ""]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(text)}, merges=merges))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    codes = [code for code in _LANGUAGE_CODES if code != "yue"][:NUM_LANGUAGES]
    names = ["endoftext", "startoftranscript", *codes, "translate", "transcribe", "startoflm", "startofprev", "nospeech"]
    tokenizer.add_special_tokens([f"<|{name}|>" for name in (*names, "notimestamps")])
    times = [f"<|{number * 0.02:.2f}|>" for number in range(NUM_TIMESTAMPS)]
    tokenizer.add_tokens([AddedToken(time, special=False, normalized=False) for time in times])
    return tokenizer


def _network(tokenizer: Any) -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    end = tokenizer.token_to_id("<|endoftext|>")
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        # The published 0.02 is for widths near 1000: here what is heard would drown in the position embedding.
        init_std=0.1,
        decoder_start_token_id=tokenizer.token_to_id("<|startoftranscript|>"),
        **{f"{name}_token_id": end for name in ("bos", "eos", "pad")},
    )
    network = WhisperForConditionalGeneration._from_config(config, attn_implementation="eager")
    # Only the decoder has to tell where it looks; over 1,500 frames the encoder is much faster without.
    silent = copy.deepcopy(network.config)
    silent._attn_implementation = "sdpa"
    for layer in network.model.encoder.layers:
        layer.self_attn.config = silent
    network.generation_config = _settings(tokenizer, config)
    return network


def _settings(tokenizer: Any, config: Any) -> Any:
    """What the published generation_config.json says, for this vocabulary."""
    from transformers import GenerationConfig

    codes = [f"<|{code}|>" for code in WORDS]
    wordless = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech")
    last_layer, end = config.decoder_layers - 1, tokenizer.token_to_id("<|endoftext|>")
    return GenerationConfig(
        is_multilingual=True,
        lang_to_id={code: tokenizer.token_to_id(code) for code in codes},
        task_to_id={task: tokenizer.token_to_id(f"<|{task}|>") for task in ("transcribe", "translate")},
        no_timestamps_token_id=tokenizer.token_to_id("<|notimestamps|>"),
        prev_sot_token_id=tokenizer.token_to_id("<|startofprev|>"),
        alignment_heads=[[last_layer, head] for head in range(config.decoder_attention_heads)],
        max_length=config.max_target_positions,
        max_initial_timestamp_index=50,
        suppress_tokens=[tokenizer.token_to_id(f"<|{name}|>") for name in wordless],
        begin_suppress_tokens=[end],
        decoder_start_token_id=config.decoder_start_token_id,
        **{f"{name}_token_id": end for name in ("bos", "eos", "pad")},
    )


def _save_processor(tokenizer: Any, folder: Path) -> None:
    from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizerFast

    tokenizer.save(str(folder / "tokenizer.json"))
    fast = WhisperTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    WhisperProcessor(WhisperFeatureExtractor(feature_size=80), fast).save_pretrained(folder)


@dataclass(frozen=True)
class _Lesson:
    """A batch: what is heard, and all that the network is asked about it."""

    mel: torch.Tensor  # [B, M, 2 F]
    tokens: torch.Tensor  # [B, T]
    labels: torch.Tensor  # [B, T], the tokens that follow
    word: torch.Tensor  # [B, F], 1 + number of the word, 0 between words
    place: torch.Tensor  # [B, F], 1 + place of the word in the phrase, 0 between words
    looks: torch.Tensor  # [B, T, F], 1.0 where the decoder has to look; all 0 where nobody says


class _Course:
    """Lessons from phrases, and the loss of one."""

    def __init__(self, network: Any, tokenizer: Any, spoken: Sequence[Phrase]) -> None:
        import torch
        from whisperx.audio import log_mel_spectrogram

        width = network.config.d_model
        self.helpers = torch.nn.ModuleList([torch.nn.Linear(width, size + 1) for size in (len(ALL_WORDS), MAX_WORDS)])
        self._network, self._tokenizer, self._spoken = network, tokenizer, spoken
        self._mels = [log_mel_spectrogram(phrase.audio, 80) for phrase in spoken]
        # Scores of words that no phrase holds cost as much as all the rest: only the long lessons ask for them.
        specials = range(tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|10.00|>"))
        said = {token for word in ALL_WORDS for token in tokenizer.encode(f" {word}").ids}
        self._asked = torch.tensor(sorted({*said, *specials}))
        self._number = torch.full((tokenizer.get_vocab_size(),), IGNORED)
        self._number[self._asked] = torch.arange(len(self._asked))

    def loss(self, step: int, draw: random.Random) -> torch.Tensor:
        from torch.nn import functional as F

        is_short = step < SHORT_STEPS
        lesson = self._lesson(draw.sample(range(len(self._spoken)), SHORT_BATCH if is_short else LONG_BATCH), draw, is_short)
        encoded_BFD = _encode(self._network.model.encoder, lesson.mel)
        decoded = self._network.model(encoder_outputs=(encoded_BFD,), decoder_input_ids=lesson.tokens, output_attentions=True)
        output = self._network.proj_out.weight
        labels_BT = lesson.labels
        if is_short:
            output = output[self._asked]
            labels_BT = labels_BT.where(labels_BT == IGNORED, self._number[labels_BT.clamp(min=0)])
        losses = [F.cross_entropy((decoded.last_hidden_state @ output.T).flatten(0, 1), labels_BT.flatten())]
        for helper, target_BF in zip(self.helpers, (lesson.word, lesson.place), strict=True):
            losses.append(F.cross_entropy(helper(encoded_BFD).flatten(0, 1), target_BF.flatten()))
        seen_BHT = (decoded.cross_attentions[-1] * lesson.looks[:, None]).sum(-1)
        told_BHT = lesson.looks.any(-1)[:, None].expand_as(seen_BHT)
        losses.append(-(seen_BHT[told_BHT] + 1e-4).log().mean())
        return sum(losses[1:], losses[0])

    def _lesson(self, numbers: Sequence[int], draw: random.Random, is_short: bool) -> _Lesson:
        import torch

        leads = [draw.randint(0, MAX_LEAD_FRAMES) for _ in numbers]
        longest = max(self._mels[number].shape[1] // 2 + lead for number, lead in zip(numbers, leads, strict=True))
        num_frames = longest + draw.randint(1, 15) if is_short else WINDOW_FRAMES
        mel_BMF = torch.stack([self._mels[number].min().expand(80, 2 * num_frames) for number in numbers]).clone()
        word_BF = torch.zeros(len(numbers), num_frames, dtype=torch.int64)
        place_BF = torch.zeros_like(word_BF)
        looks_BTF = torch.zeros(len(numbers), PROMPT_TOKENS + MAX_WORDS, num_frames)
        for row, (number, lead) in enumerate(zip(numbers, leads, strict=True)):
            phrase, mel_MF = self._spoken[number], self._mels[number]
            mel_BMF[row, :, 2 * lead : 2 * lead + mel_MF.shape[1]] = mel_MF
            spans = [
                (lead + word.start_sample // SAMPLES_A_FRAME, lead + word.end_sample // SAMPLES_A_FRAME) for word in phrase.words
            ]
            for place, ((start, end), word) in enumerate(zip(spans, phrase.words, strict=True)):
                word_BF[row, start:end], place_BF[row, start:end] = 1 + ALL_WORDS.index(word.word), 1 + place
                looks_BTF[row, PROMPT_TOKENS - 1 + place, start:end] = 1.0
        rows = [self._written(self._spoken[number]) for number in numbers]
        labels_BT = padded([row[1:] for row in rows], IGNORED)
        tokens_BT = padded([row[:-1] for row in rows], self._tokenizer.token_to_id("<|endoftext|>"))
        return _Lesson(mel_BMF, tokens_BT, labels_BT, word_BF, place_BF, looks_BTF[:, : tokens_BT.shape[1]])

    def _written(self, phrase: Phrase) -> list[int]:
        words = [token for word in phrase.words for token in self._tokenizer.encode(f" {word.word}").ids]
        prefix = ("startoftranscript", phrase.language, "transcribe", "notimestamps")
        return [*(self._id(name) for name in prefix), *words, self._id("endoftext")]

    def _id(self, name: str) -> int:
        return int(self._tokenizer.token_to_id(f"<|{name}|>"))


def _encode(encoder: Any, mel_BMF: torch.Tensor) -> torch.Tensor:
    """The encoder's output on a window of any length: its own ``forward`` takes 30 s and nothing else."""
    from torch.nn import functional as F

    x_BFD = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel_BMF)))).transpose(1, 2)
    x_BFD = x_BFD + encoder.embed_positions.weight[: x_BFD.shape[1]]
    for layer in encoder.layers:
        x_BFD = layer(x_BFD, None, None)[0]
    return encoder.layer_norm(x_BFD)

"""Text, language and words by a transformers Whisper checkpoint.

Words lie where the decoder looked while it wrote them: the cross-attention of the heads that the checkpoint names
(``alignment_heads``), normalised and smoothed as in Whisper's own timing, then the best monotone path in place of its time
warping, which knows no pauses and may give several tokens one frame.

Shape legend: W windows, T tokens, F encoder frames of 20 ms, H heads, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from annotators.asr_schema import Alignment, Word, words_of
from annotators.checkpoints import Checkpoint, check_device, loading
from annotators.heard_windows import Heard
from annotators.monotone_path import best_path
from annotators.recogniser_config import check_language
from annotators.scripts import SPACELESS
from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.errors import ModelUnavailable

WHISPER = "whisper"
WHAT = "Whisper speech recogniser"
ENGLISH = "en"  # the language of checkpoints that have one
FRAME_SAMPLES = MODEL_RATE_HZ // 50  # of the encoder's output
FAST_ATTENTION, TELLING_ATTENTION = "sdpa", "eager"  # the first does not say where it looked
REPLACEMENT = "\ufffd"  # what an unfinished character decodes to
NO_HEADS = "no alignment heads in the checkpoint's generation_config.json"


class Token(NamedTuple):
    """A text token that was written, with its probability."""

    number: int
    prob: float


def check_whisper(found: Checkpoint) -> None:
    """Raises ModelUnavailable where the checkpoint is a Whisper without its decoder's head, by what its config.json says."""
    saved = found.config.get("architectures") or []
    if saved and "WhisperForConditionalGeneration" not in saved:
        raise ModelUnavailable(
            f"model {found.name!r} was saved as {saved[0]}, which is no {WHAT}; give one that was trained as such"
        )


class WhisperReader:
    """A recogniser. Constructing it raises ModelUnavailable where the checkpoint does not load."""

    def __init__(
        self, found: Checkpoint, device: str, dtype: str, beam_size: int, language: str | None, *, with_words: bool
    ) -> None:
        check_device(device)
        import torch
        from transformers import AutoFeatureExtractor, AutoTokenizer, WhisperForConditionalGeneration

        torch.set_num_threads(1)
        with loading(found, WHAT):
            network, loaded = WhisperForConditionalGeneration.from_pretrained(
                found.path,
                use_safetensors=found.has_safetensors,
                local_files_only=True,
                dtype=getattr(torch, dtype),
                attn_implementation=FAST_ATTENTION,
                output_loading_info=True,
            )
            self._extractor = AutoFeatureExtractor.from_pretrained(found.path, local_files_only=True)
            self._tokenizer = AutoTokenizer.from_pretrained(found.path, local_files_only=True)
            self._transcribe, self._no_timestamps = (
                self._tokenizer.get_vocab()[token] for token in ("<|transcribe|>", "<|notimestamps|>")
            )
        if lacking := sorted(set(loaded["missing_keys"]) - {"proj_out.weight"}):  # that one is the embedding again
            raise ModelUnavailable(f"model {found.name!r} lacks the weights {lacking[0]!r}; give one that was trained as {WHAT}")
        self._network, self._dtype = network.eval().to(device), getattr(torch, dtype)
        self._device, self._beam_size, self._with_words = device, beam_size, with_words
        settings = network.generation_config
        self._heads: list[list[int]] = getattr(settings, "alignment_heads", None) or []
        self._end = int(self._tokenizer.eos_token_id)
        self._start = int(network.config.decoder_start_token_id)
        self._special = {*self._tokenizer.all_special_ids, *self._tokenizer.get_added_vocab().values()}
        self._language_ids: dict[str, int] = {
            token.strip("<|>"): number for token, number in (getattr(settings, "lang_to_id", None) or {}).items()
        }
        if not self._language_ids and getattr(settings, "is_multilingual", None) is not False:
            raise ModelUnavailable(
                f"model {found.name!r} does not say its languages: no lang_to_id in its generation_config.json; "
                "take the file from the published checkpoint that it comes from"
            )
        check_language(found, language, self._language_ids or (ENGLISH,))

    def read(self, windows: list[Audio], languages: list[str | None]) -> list[tuple[Heard, Alignment | None]]:
        """What each window of at most 30 s says; words relative to its start."""
        import torch

        with torch.inference_mode():
            features = self._extractor(windows, sampling_rate=MODEL_RATE_HZ, return_tensors="pt").input_features
            encoded = self._network.model.encoder(features.to(self._device, self._dtype))
            said, silences = self._languages(encoded, languages)
            prompts = [self._prompt(language) for language, _ in said]
            texts = self._generate(encoded, prompts)
            answers = self._score(encoded, prompts, texts)
        found = []
        for window, (language, prob), silence, (tokens, end_prob, looked) in zip(windows, said, silences, answers, strict=True):
            text = self._tokenizer.decode([token.number for token in tokens]).strip()
            logprob = float(np.sum(np.log(np.maximum([*(token.prob for token in tokens), end_prob], 1e-30))))
            heard = Heard(text, logprob, len(tokens) + 1, language, prob, silence)
            found.append((heard, self._words(window, text, language, tokens, looked) if self._with_words else None))
        return found

    def _languages(self, encoded: Any, languages: list[str | None]) -> tuple[list[tuple[str, float | None]], list[float]]:
        """Language of each window with its probability where it was detected, and the probability that nobody speaks."""
        import torch

        start = torch.full((len(languages), 1), self._start, device=self._device)
        probs_WV = self._network(encoder_outputs=encoded, decoder_input_ids=start).logits[:, -1].float().softmax(dim=-1)
        # The token that stands for no speech comes right before the one for no timestamps, whatever it is called.
        silences = probs_WV[:, self._no_timestamps - 1].tolist()
        if not self._language_ids:
            return [(language or ENGLISH, None) for language in languages], silences
        names, numbers = list(self._language_ids), list(self._language_ids.values())
        likely = probs_WV[:, numbers]
        likely = likely / likely.sum(dim=-1, keepdim=True)
        best = likely.argmax(dim=-1).tolist()
        said: list[tuple[str, float | None]] = [
            (language, None) if language else (names[winner], float(likely[window, winner]))
            for window, (language, winner) in enumerate(zip(languages, best, strict=True))
        ]
        return said, silences

    def _prompt(self, language: str) -> list[int]:
        """The tokens before the text."""
        if not self._language_ids:
            return [self._start, self._no_timestamps]
        return [self._start, self._language_ids[language], self._transcribe, self._no_timestamps]

    def _generate(self, encoded: Any, prompts: list[list[int]]) -> list[list[int]]:
        """The text tokens that follow each prompt."""
        import torch
        from transformers import GenerationMixin

        # Whisper's own generate() finds languages and cuts windows, which is done here; this is the decoding below it.
        length = self._network.config.max_target_positions
        sequences = GenerationMixin.generate(
            self._network,
            encoder_outputs=encoded,
            attention_mask=torch.ones(encoded[0].shape[:2], dtype=torch.long, device=self._device),
            decoder_input_ids=torch.tensor(prompts, device=self._device),
            num_beams=self._beam_size,
            max_length=length,
            do_sample=False,
        )
        numbers = sequences[:, len(prompts[0]) :].tolist()
        texts = [row[: row.index(self._end)] if self._end in row else row for row in numbers]
        return [[number for number in row if number not in self._special] for row in texts]

    def _score(
        self, encoded: Any, prompts: list[list[int]], texts: list[list[int]]
    ) -> list[tuple[list[Token], float, np.ndarray | None]]:
        """Each text's tokens with their probabilities, the probability that it ends there, and attention ``[H, T + 1, F]``.

        One pass over what was written: rows of the attention belong to the text's tokens and the end.
        """
        import torch

        longest = max(map(len, texts))
        rows = [[*prompt, *text, *[self._end] * (longest - len(text))] for prompt, text in zip(prompts, texts, strict=True)]
        wants_attention = self._with_words and bool(self._heads)
        self._network.set_attn_implementation(TELLING_ATTENTION if wants_attention else FAST_ATTENTION)
        output = self._network(
            encoder_outputs=encoded,
            decoder_input_ids=torch.tensor(rows, device=self._device),
            output_attentions=wants_attention,
        )
        self._network.set_attn_implementation(FAST_ATTENTION)
        probs_WTV = output.logits.float().softmax(dim=-1)
        answers = []
        for window, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            written = [*text, self._end]
            at = torch.arange(len(prompt) - 1, len(prompt) + len(text), device=self._device)
            probs = probs_WTV[window, at, torch.tensor(written, device=self._device)].tolist()
            looked = None
            if wants_attention:
                heads = [output.cross_attentions[layer][window, head][at] for layer, head in self._heads]
                looked = torch.stack(heads).float().cpu().numpy()
            answers.append(([Token(*pair) for pair in zip(text, probs, strict=False)], probs[-1], looked))
        return answers

    def _words(
        self, audio_S: Audio, text: str, language: str | None, tokens: list[Token], looked: np.ndarray | None
    ) -> Alignment:
        if not text:
            return Alignment([])
        number = len(words_of(text, language))
        if looked is None:
            return Alignment([], number, NO_HEADS)
        frames = token_frames(looked[:, :, : max(1, len(audio_S) // FRAME_SAMPLES)])
        if frames is None:
            return Alignment([], number, "more tokens than frames")
        words = []
        for first, last, word in self._groups(tokens, spaceless=language in SPACELESS):
            begin, end = frames[first][0] * FRAME_SAMPLES, min(len(audio_S), frames[last - 1][1] * FRAME_SAMPLES)
            words.append(Word(word, begin, end, float(np.mean([token.prob for token in tokens[first:last]]))))
        return Alignment(words)

    def _groups(self, tokens: list[Token], *, spaceless: bool) -> list[tuple[int, int, str]]:
        """(first token, one past the last, word) of each word: tokens up to the next that starts with a space.

        Without spaces, every run of tokens that decodes to whole characters is a word.
        """
        pieces: list[tuple[int, int, str]] = []
        first = 0
        for last in range(1, len(tokens) + 1):
            piece = self._tokenizer.decode([token.number for token in tokens[first:last]])
            if REPLACEMENT not in piece or last == len(tokens):
                pieces.append((first, last, piece))
                first = last
        words: list[tuple[int, int, str]] = []
        for first, last, piece in pieces:
            if words and not spaceless and not piece.startswith(" "):
                words[-1] = (words[-1][0], last, words[-1][2] + piece)
            else:
                words.append((first, last, piece))
        return [(first, last, word.strip()) for first, last, word in words if word.strip()]


def token_frames(looked_HTF: np.ndarray) -> list[tuple[int, int]] | None:
    """Frames ``[start, end)`` of each token but the last, from attention ``[H, T, F]``; None where the frames are too few.

    Each frame's weights are normalised over the tokens, smoothed over 7 frames and averaged over the heads (Whisper's
    timing.py). The tokens follow one another, each with a frame or more; frames to which none of those in turn is more than
    average belong to none, as in a pause.
    """
    from scipy.ndimage import median_filter

    spread = np.maximum(looked_HTF.std(axis=1, keepdims=True), 1e-10)
    sharp_HTF = (looked_HTF - looked_HTF.mean(axis=1, keepdims=True)) / spread
    scores_TF = median_filter(sharp_HTF, size=(1, 1, 7), mode="reflect").mean(axis=0)[:-1]
    # As in CTC, with "none" in the place of the blank: average is 0 after normalising.
    states_FN = np.zeros((scores_TF.shape[1], 2 * len(scores_TF) + 1))
    states_FN[:, 1::2] = scores_TF.T
    may_skip_N = np.arange(states_FN.shape[1]) % 2 == 1
    path_F = best_path(states_FN, may_skip_N)
    if path_F is None:
        return None
    edges = np.searchsorted(path_F, np.arange(1, states_FN.shape[1] + 1)).tolist()
    return list(zip(edges[0:-1:2], edges[1::2], strict=True))

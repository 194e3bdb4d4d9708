"""A transformers CTC network (wav2vec2, HuBERT, WavLM, ...): audio to posteriors, and where the words of a text lie in it.

Shape legend: S samples, F frames, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from annotators.asr_schema import Alignment, Word, words_of
from annotators.checkpoints import Checkpoint, check_device, check_type, loading
from annotators.fused_weights import fuse_weights
from annotators.monotone_path import LabelSpan, label_spans
from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.errors import ModelUnavailable

WHAT = "CTC speech recogniser"
DELIMITER = "|"  # between words, in the vocabularies of wav2vec2 and its kin


def check_ctc(found: Checkpoint) -> None:
    """Raises ModelUnavailable where the checkpoint is no CTC network, by what its config.json says."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

    check_type(found, MODEL_FOR_CTC_MAPPING_NAMES, WHAT)
    saved = found.config.get("architectures") or []
    if saved and not any(name.endswith("ForCTC") for name in saved):
        raise ModelUnavailable(
            f"model {found.name!r} was saved as {saved[0]}, which is no {WHAT}; give one that was trained as such"
        )


class CtcNetwork:
    """A loaded network with its vocabulary. Constructing it raises ModelUnavailable where it does not load."""

    def __init__(self, found: Checkpoint, device: str, dtype: str = "float32") -> None:
        check_ctc(found)
        check_device(device)
        import torch
        from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

        torch.set_num_threads(1)
        self._dtype = getattr(torch, dtype)
        with loading(found, WHAT):
            network, loaded = AutoModelForCTC.from_pretrained(
                found.path,
                use_safetensors=found.has_safetensors,
                local_files_only=True,
                dtype=self._dtype,
                output_loading_info=True,
            )
            extractor = AutoFeatureExtractor.from_pretrained(found.path, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(found.path, local_files_only=True)
        # transformers fills what is missing with random numbers; the mask of training plays no part here.
        if lacking := sorted(key for key in loaded["missing_keys"] if not key.endswith("masked_spec_embed")):
            raise ModelUnavailable(f"model {found.name!r} lacks the weights {lacking[0]!r}; give one that was trained as {WHAT}")
        if extractor.sampling_rate != MODEL_RATE_HZ:
            raise ModelUnavailable(
                f"model {found.name!r} hears audio at {extractor.sampling_rate} Hz; recognisers get {MODEL_RATE_HZ} Hz, "
                "give one trained on that"
            )
        self._network, self._extractor, self._device = fuse_weights(network).to(device), extractor, device
        self.vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.blank = int(network.config.pad_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
        unspoken = {*tokenizer.all_special_ids, self.blank}
        self.labels = {number: label for label, number in self.vocabulary.items() if number not in unspoken}

    def log_probs(self, windows: Sequence[Audio], batch_size: int = 1) -> list[np.ndarray]:
        """Natural log posteriors float32 ``[F, V]`` of each window.

        Windows of one length run together and are never padded: many of these networks normalise over the whole input, so
        that padding would change what they hear.
        """
        import torch

        key = self._extractor.model_input_names[0]
        inputs = [
            torch.as_tensor(np.asarray(self._extractor(window, sampling_rate=MODEL_RATE_HZ, return_tensors="np")[key][0]))
            for window in windows
        ]
        alike: dict[tuple[int, ...], list[int]] = {}
        for number, values in enumerate(inputs):
            alike.setdefault(tuple(values.shape), []).append(number)
        found: list[np.ndarray] = [np.zeros((0, 0), np.float32)] * len(windows)
        with torch.inference_mode():
            for numbers in alike.values():
                for first in range(0, len(numbers), batch_size):
                    group = numbers[first : first + batch_size]
                    stacked = torch.stack([inputs[number] for number in group]).to(self._device, self._dtype)
                    logits = self._network(**{key: stacked}).logits.float()
                    for number, answer in zip(group, logits.log_softmax(dim=-1).cpu().numpy(), strict=True):
                        found[number] = answer
        return found

    def align(self, audio_S: Audio, text: str, language: str) -> Alignment:
        """Where the words of ``text`` lie in the audio; samples relative to its start, confidence the letters' mean posterior.

        Letters that the network does not know are passed over; a word without one that it knows has no time.
        """
        words = words_of(text, language)
        if not words:
            return Alignment([])
        letters = [[number for letter in word if (number := self._letter(letter)) is not None] for word in words]
        delimiter = self.vocabulary.get(DELIMITER)
        labels: list[int] = []
        owners: list[int] = []  # the word of each label; -1: between words
        for number, known in enumerate(letters):
            if known and labels and delimiter is not None:
                labels.append(delimiter)
                owners.append(-1)
            labels += known
            owners += [number] * len(known)
        if not labels:
            return Alignment([], len(words), "no letter that the model knows")
        log_probs_FV = self.log_probs([audio_S])[0]
        spans = label_spans(log_probs_FV, labels, self.blank)
        if spans is None:
            return Alignment([], len(words), "more letters than frames")
        step = len(audio_S) / len(log_probs_FV)
        of_word: dict[int, list[LabelSpan]] = {}
        for owner, span in zip(owners, spans, strict=True):
            of_word.setdefault(owner, []).append(span)
        aligned = [timed(words[number], of_word[number], step) for number in sorted(of_word.keys() - {-1})]
        lacking = len(words) - len(aligned)
        return Alignment(aligned, lacking, "words without a letter that the model knows" if lacking else None)

    def _letter(self, letter: str) -> int | None:
        """The id of a letter in whatever case the vocabulary has it."""
        for form in (letter, letter.lower(), letter.upper()):
            number = self.vocabulary.get(form)
            if number in self.labels and form != DELIMITER:
                return number
        return None


def timed(word: str, spans: Sequence[LabelSpan], samples_a_frame: float) -> Word:
    """A word from the frames of its labels."""
    frames = np.array([span.end - span.start for span in spans])
    prob = float(np.average([span.prob for span in spans], weights=frames))
    return Word(word, round(spans[0].start * samples_a_frame), round(spans[-1].end * samples_a_frame), min(1.0, prob))

"""The loop that a codec learns in, and the state that it goes on from.

B batch, N spectrum frames, M mel bins, Q digits, F code frames, L labels.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tokenization.codec_batches import BatchSource, CodecBatch, HeardClip
from tokenization.codec_measures import code_statistics
from tokenization.fsq import FsqNetwork, TextHead, codes_of_digits
from tokenization.vocabulary import NUM_CODES

if TYPE_CHECKING:
    from tokenization.codec_training import CodecTraining


class Learner:
    """A network, the head that supervises it, their optimizer and how far they have come."""

    def __init__(
        self, network: FsqNetwork, head: TextHead | None, clips: Sequence[HeardClip], training: CodecTraining, seed: int
    ) -> None:
        self.network, self.head, self.training = network, head, training
        self.rows: list[dict[str, Any]] = []
        self.earlier_s = 0.0  # what the trainings cost that this one goes on from
        self._step = 0
        self._began = time.monotonic()
        _take_statistics(network, [clip.mel for clip in clips])
        self._source = BatchSource(clips, training.batch_s, training.crop_s, seed)
        self._window = _Window()
        self._modules = torch.nn.ModuleList([network] if head is None else [network, head])
        self._optimizer = torch.optim.AdamW(
            self._modules.parameters(), lr=training.learning_rate, betas=(0.9, 0.95), weight_decay=training.weight_decay
        )

    def learn(self, on_log: Callable[[dict[str, Any]], None] | None, on_state: Callable[[int, bytes], None] | None) -> None:
        """The steps that are left; the modules end in eval mode."""
        training = self.training
        self._modules.train()
        while self._step < training.steps:
            self._train_step(self._source.draw())
            if self._step % training.log_every == 0 or self._step == training.steps:
                self.rows.append({"step": self._step, **self._window.row(), "wall_s": round(self._elapsed_s, 3)})
                self._window = _Window()
                if on_log:
                    on_log(self.rows[-1])
            if on_state and self._step % training.checkpoint_every == 0 and self._step < training.steps:
                on_state(self._step, self.state())
        self._modules.eval()

    def state(self) -> bytes:
        """All that the next step depends on, and what was measured so far."""
        file = io.BytesIO()
        torch.save(
            {
                "step": self._step,
                "modules": self._modules.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "source": self._source.state_dict(),
                "window": self._window.state_dict(),
                "rows": self.rows,
                "elapsed_s": self._elapsed_s,
            },
            file,
        )
        return file.getvalue()

    def load_state(self, state: bytes) -> None:
        """Go on from what ``state`` returned for the same clips and settings."""
        found = torch.load(io.BytesIO(state), weights_only=True)
        self._step, self.rows, self.earlier_s = found["step"], found["rows"], found["elapsed_s"]
        self._modules.load_state_dict(found["modules"])
        self._optimizer.load_state_dict(found["optimizer"])
        self._source.load_state_dict(found["source"])
        self._window.load_state_dict(found["window"])

    @property
    def _elapsed_s(self) -> float:
        return self.earlier_s + time.monotonic() - self._began

    def _train_step(self, batch: CodecBatch) -> None:
        training, network = self.training, self.network
        for group in self._optimizer.param_groups:
            group["lr"] = training.learning_rate * _rate(self._step, training)
        digits_BQF = network.digits(batch.mel_BNM, batch.lengths_B)
        out_BNM = network.rebuild(digits_BQF, batch.lengths_B)
        # In units of each bin's deviation: a bin that hardly moves counts as much as one that does.
        difference_BNM = ((out_BNM - batch.mel_BNM) / network.mel_std).abs() * batch.within_BN1
        loss = training.reconstruction_weight * difference_BNM.sum() / (batch.within_BN1.sum() * out_BNM.shape[2])
        text_loss = None if self.head is None else _text_loss(self.head, digits_BQF, batch)
        if text_loss is not None:
            loss = loss + training.text_weight * text_loss
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._modules.parameters(), 1.0)
        self._optimizer.step()
        self._step += 1
        self._window.add(loss.detach(), text_loss, batch, out_BNM.detach(), codes_of_digits(digits_BQF), network.mel_mean)


def _text_loss(head: TextHead, digits_BQF: Tensor, batch: CodecBatch) -> Tensor | None:
    """CTC's loss in nats a letter over the clips of the batch that supervise; None where none does."""
    spoken = [place for place, labels in enumerate(batch.labels) if labels]
    if not spoken:
        return None
    labels = [batch.labels[place] or () for place in spoken]
    lengths_B = batch.lengths_B[spoken]
    log_probs_BFL = head(digits_BQF[spoken], lengths_B)
    targets = torch.tensor([label for own in labels for label in own])
    target_lengths_B = torch.tensor([len(own) for own in labels])
    total = torch.nn.functional.ctc_loss(log_probs_BFL.transpose(0, 1), targets, lengths_B, target_lengths_B, reduction="sum")
    return total / target_lengths_B.sum()


def _take_statistics(network: FsqNetwork, mels: Sequence[Tensor]) -> None:
    """Mean and deviation of each mel bin over the clips, into the network's buffers."""
    frames = torch.cat(list(mels)).double()
    network.mel_mean.copy_(frames.mean(dim=0))
    # A bin that never moves (above a telephone's band) would divide by zero; a tenth of a neper is below what is heard.
    network.mel_std.copy_(frames.std(dim=0, unbiased=False).clamp(min=0.1))


def _rate(step: int, training: CodecTraining) -> float:
    """Share of the learning rate: linear warm-up, then half a cosine down to 2 %."""
    if step < training.warmup_steps:
        return (step + 1) / training.warmup_steps
    done = (step - training.warmup_steps) / max(1, training.steps - training.warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1.0 + float(np.cos(np.pi * min(1.0, done))))


class _Window:
    """Sums over the steps since the last row of the curve."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.text_losses: list[float] = []
        self.error = self.mean_error = self.values = 0.0
        self.counts = np.zeros(NUM_CODES, np.int64)

    def add(
        self, loss: Tensor, text_loss: Tensor | None, batch: CodecBatch, out_BNM: Tensor, codes_BF: Tensor, mean_M: Tensor
    ) -> None:
        within_BN1 = batch.within_BN1
        self.losses.append(float(loss))
        self.text_losses += [] if text_loss is None else [float(text_loss.detach())]
        self.error += float(((out_BNM - batch.mel_BNM).abs() * within_BN1).sum())
        self.mean_error += float(((mean_M - batch.mel_BNM).abs() * within_BN1).sum())
        self.values += float(within_BN1.sum()) * out_BNM.shape[2]
        self.counts += np.bincount(codes_BF[batch.within_BF].numpy(), minlength=NUM_CODES)

    def row(self) -> dict[str, Any]:
        """``text_loss`` (nats a letter) is None where no clip supervised."""
        return {
            "loss": float(np.mean(self.losses)),
            "text_loss": float(np.mean(self.text_losses)) if self.text_losses else None,
            "mel_error": self.error / self.values,
            "mean_frame_error": self.mean_error / self.values,
            **code_statistics(self.counts),
        }

    def state_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "counts": torch.from_numpy(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "counts": state["counts"].numpy()})

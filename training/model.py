"""Step-Audio-2: encoder, adaptor, decoder and output head under the published weight names.

Shapes: B batch, T positions, A audio pieces (in row-major order of their examples), C mel bands, M mel frames,
F encoder frames, N patches, D decoder width, V vocabulary rows, L text labels. ``ctc_head`` and ``tag_heads`` are this
trainer's own: they exist to pretrain the encoder and are no part of the published layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import nn

from manifests.errors import ContractError
from training.adaptor import Adaptor
from training.attention import DocumentSpans
from training.cache import KeyValueCache
from training.config import ModelConfig
from training.decoder import Decoder
from training.encoder import AudioEncoder

EMBEDDING_STD = 0.02

# Which part of the curriculum's vocabulary each weight belongs to, by the start of its name.
GROUP_PREFIXES = {
    "encoder": ("encoder.",),
    "ctc_head": ("ctc_head.",),
    "tag_heads": ("tag_heads.",),
    "adaptor": ("adapter.",),
    "embedding": ("model.embed_tokens.",),
    "decoder": ("model.layers.", "model.norm."),
    "head": ("lm_head.",),
}


class StepAudio2(nn.Module):
    """The whole model. ``num_rows`` is the joint vocabulary's, ``num_text`` the number of text ids (CTC labels).

    ``num_tag_labels``: classes of each tag that the encoder is pretrained to tell.
    """

    def __init__(
        self, config: ModelConfig, num_rows: int, num_text: int, num_tag_labels: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = AudioEncoder(config.encoder)
        self.adapter = Adaptor(config)
        self.model = Decoder(config.decoder, num_rows)
        self.lm_head = nn.Linear(config.decoder.width, num_rows, bias=False)
        self.ctc_head = nn.Linear(config.encoder.width, num_text + 1)  # the last label is the blank
        self._start_weights()
        # Last: what a model draws does not depend on whether it has any.
        self.tag_heads = nn.ModuleDict({name: nn.Linear(config.encoder.width, num) for name, num in num_tag_labels.items()})

    def _start_weights(self) -> None:
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Linear):
                # Layers that write to the residual stream start smaller, so that depth does not raise its variance.
                depth = math.sqrt(2 * self.config.decoder.num_layers) if name.endswith(("o_proj", "down_proj")) else 1.0
                nn.init.normal_(module.weight, std=1.0 / (math.sqrt(module.in_features) * depth))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.model.embed_tokens.weight, std=EMBEDDING_STD)
        nn.init.normal_(self.lm_head.weight, std=EMBEDDING_STD)

    def encode(self, mels_ACM: torch.Tensor, num_valid_A: torch.Tensor) -> torch.Tensor:
        """Encoder frames ``[A, F, E]`` at 25 Hz."""
        return self.encoder(mels_ACM, num_valid_A)

    def ctc_logits(self, mels_ACM: torch.Tensor, num_valid_A: torch.Tensor) -> torch.Tensor:
        """Label logits ``[A, F, L + 1]``; label L is the blank."""
        return self.ctc_head(self.encode(mels_ACM, num_valid_A))

    def tag_logits(self, frames_AFE: torch.Tensor, num_frames_A: torch.Tensor, tag: str) -> torch.Tensor:
        """Logits ``[A, classes]`` of a tag, from the mean over each piece's encoder frames."""
        return self.tag_heads[tag](frames_AFE.sum(1) / num_frames_A[:, None])

    def hear(self, mels_ACM: torch.Tensor, num_valid_A: torch.Tensor, num_patches_A: torch.Tensor) -> torch.Tensor:
        """Adaptor features ``[sum of num_patches, D]`` of all pieces, one after the other."""
        return self.adapt(self.encode(mels_ACM, num_valid_A), num_patches_A)

    def adapt(self, frames_AFE: torch.Tensor, num_patches_A: torch.Tensor) -> torch.Tensor:
        """As ``hear``, of encoder frames; see ``Adaptor.forward``."""
        features_AND = self.adapter(frames_AFE)
        own_AN = torch.arange(features_AND.shape[1], device=features_AND.device)[None, :] < num_patches_A[:, None]
        return features_AND[own_AN]

    def embed(
        self, ids_BT: torch.Tensor, heard_BT: torch.Tensor | None = None, features_ND: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the decoder reads, ``[B, T, D]``: embeddings, and features in their place where ``heard_BT`` is true.

        Features fill the true positions in row-major order. Raises ContractError when the counts differ.
        """
        x_BTD = self.model.embed_tokens(ids_BT)
        if heard_BT is None or features_ND is None:
            return x_BTD
        places = int(heard_BT.sum())
        if places != len(features_ND):
            raise ContractError(f"{len(features_ND)} audio features for {places} patches; lay one patch a feature")
        # masked_scatter copies: writing into the embedding's output in place would break its gradient.
        return x_BTD.masked_scatter(heard_BT[:, :, None], features_ND.to(x_BTD.dtype))

    def hidden(
        self,
        ids_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        spans: DocumentSpans,
        heard_BT: torch.Tensor | None = None,
        features_ND: torch.Tensor | None = None,
        cache: KeyValueCache | None = None,
        places_N: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states ``[B, T, D]`` of embedded ids and features, or ``[N, D]`` at flat places; see ``embed`` and ``Decoder.forward``."""
        return self.model(self.embed(ids_BT, heard_BT, features_ND), positions_BT, spans, cache, places_N)

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Trainable parameters by group, with their names, in the order of the weights; constants are left out."""
        found: dict[str, list[tuple[str, nn.Parameter]]] = {group: [] for group in GROUP_PREFIXES}
        for name, parameter in self.named_parameters():
            if name == "encoder.positional_embedding.weight":
                continue
            group = next(group for group, prefixes in GROUP_PREFIXES.items() if name.startswith(prefixes))
            found[group].append((name, parameter))
        return found

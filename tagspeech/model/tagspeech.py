"""TagSpeech: two encoders, two projectors, one LLM (docs/paper.md).

    features -> semantic encoder -> projector -> anchors -\
    features -> voice encoder    -> projector -> anchors --> prompt -> LLM -> target text

Shape suffixes: B batch, T time, F mel bins, D encoder channels, P projected frames, S stream
positions, L positions of the LLM's input, N scored positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tagspeech.config import Config, StreamConfig
from tagspeech.data.transfer import int_tensors, on_its_way
from tagspeech.encoders.aligner import WordAligner
from tagspeech.encoders.build import build_encoder, split_features
from tagspeech.encoders.halving import encode
from tagspeech.errors import InputError
from tagspeech.llm.packing import checkpoint_layers, run_layers
from tagspeech.llm.prompt import build_prompt, encode_text
from tagspeech.model.anchors import Anchors, AnchorSetup, EmbeddingRows, build_anchors
from tagspeech.model.frames import Frames, Projected, Streams
from tagspeech.model.inputs import Drops, build_inputs
from tagspeech.model.loss import IGNORED, EmbeddingCtc, LossOutput, total_loss
from tagspeech.model.projector import build_projector, project

LLM_PREFIX = "llm."  # of the names of the LLM's weights in a state dict


class TagSpeechModel(nn.Module):
    """The model as an ordinary `nn.Module`; frozen parts stay in eval mode.

    In the paper only the projectors are trained; `llm.trainable`, `llm.lora` and `tune_lr` add to
    them. All weights that are not the LLM's are saved and loaded with the model.

    Args:
        config: Names the parts.
        llm: Any Hugging Face causal LM.
        tokenizer: Its tokenizer.
    """

    def __init__(self, config: Config, llm: Any, tokenizer: Any) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.prompt = build_prompt(tokenizer, config.prompt.voice)
        self.semantic_encoder = build_encoder(config, "semantic")
        self.voice_encoder = build_encoder(config, "voice")
        hidden_size = llm.config.hidden_size
        self.semantic_projector = build_projector(config.semantic, hidden_size)
        self.voice_projector = build_projector(config.voice, hidden_size)
        for projector in (self.semantic_projector, self.voice_projector):
            if hasattr(projector, "norm"):
                norms_V = llm.get_input_embeddings().weight.detach().float().norm(dim=-1)
                projector.norm.copy_(norms_V.mean())
        self.semantic_anchors = self._anchors(config.semantic, hidden_size)
        self.voice_anchors = self._anchors(config.voice, hidden_size)
        self.llm = llm
        self.ctc = EmbeddingCtc(llm, tokenizer, self.prompt, config.loss.semantic_merges)
        self.aligner: WordAligner | None = None  # not trained here, and on the CPU: no module
        self.freeze()
        self.train(False)

    def _anchors(self, stream: StreamConfig, hidden_size: int) -> Anchors:
        setup = AnchorSetup(
            interval=stream.anchor_interval,
            frame_seconds=stream.stack / stream.frames_per_second,
            time_grid=self.config.target.time_grid,
            hidden_size=hidden_size,
            tokenizer=self.tokenizer,
            digits=self.prompt.digits,
        )
        return build_anchors(self.config.prompt.anchors, setup)

    @property
    def device(self) -> torch.device:
        """Where the encoders compute."""
        return next(self.semantic_encoder.parameters()).device

    def state_without_llm(self) -> dict[str, Tensor]:
        """The weights of all parts but the LLM: what a saved model always holds."""
        weights = self.state_dict().items()
        return {name: weight for name, weight in weights if not name.startswith(LLM_PREFIX)}

    def frozen_parts(self) -> list[nn.Module]:
        """Parts that are not trained: encoders without `tune_lr`, the LLM unless configured."""
        config = self.config
        streams = (config.semantic, self.semantic_encoder), (config.voice, self.voice_encoder)
        frozen: list[nn.Module] = [part for stream, part in streams if not stream.tune_lr]
        if config.llm.trainable not in ("none", "full"):
            raise InputError(f"llm.trainable: must be none or full, got {config.llm.trainable}")
        if config.llm.lora.r and config.llm.trainable == "full":
            raise InputError(
                "llm.lora.r: needs llm.trainable: none; adapters are for an LLM that stays frozen"
            )
        if config.llm.trainable == "none" and not config.llm.lora.r:
            frozen.append(self.llm)
        return frozen

    def freeze(self) -> None:
        """Turns on gradients for what the configuration trains, and off for everything else."""
        self.requires_grad_(True)
        for frozen in self.frozen_parts():
            frozen.requires_grad_(False)
        if self.config.semantic.tune_lr:
            self.semantic_encoder.train_only_adapters()
        if self.config.llm.lora.r:
            for name, weight in self.llm.named_parameters():
                weight.requires_grad_(".lora_" in name)

    def train(self, mode: bool = True) -> TagSpeechModel:
        """Train mode for what is trained; frozen parts stay in eval mode."""
        super().train(mode)
        for frozen in self.frozen_parts():
            frozen.eval()
        if self.config.llm.gradient_checkpointing:
            checkpoint_layers(self.llm, mode)
        return self

    def encode(
        self,
        features_BTF: Tensor,
        feature_lens_B: Tensor,
        *,
        voice: bool = True,
        names: Sequence[str] = (),
    ) -> Frames:
        """Runs the encoders on features (B, T, F), 100 frames a second, from any device.

        Without `voice`, the voice frames are empty. Lengths stay on the CPU. `names` are those of
        the items, for errors.
        """
        feature_lens_B = feature_lens_B.cpu()
        features_BTF = on_its_way(features_BTF, self.device)
        semantic_BTF, voice_BTF = split_features(self.config, features_BTF)
        semantic, voices = self.config.semantic, self.config.voice
        semantic_BTD, semantic_lens_B = encode(
            *(self.semantic_encoder, semantic_BTF, feature_lens_B, names), semantic.tune_lr > 0
        )
        voice_BTD = voice_BTF.new_zeros(len(voice_BTF), 0, voices.output_dim)
        voice_lens_B = torch.zeros_like(feature_lens_B)
        if voice:
            voice_BTD, voice_lens_B = encode(
                *(self.voice_encoder, voice_BTF, feature_lens_B, names), voices.tune_lr > 0
            )
        return Frames(semantic_BTD, semantic_lens_B, voice_BTD, voice_lens_B)

    def project(self, frames: Frames) -> Projected:
        """Projected frames of both streams of each item, without anchors.

        Without a voice stream (prompt.voice) the second is empty.
        """
        semantic = project(self.semantic_projector, frames.semantic, frames.semantic_lens)
        voice_BPH, voice_lens = project(self.voice_projector, frames.voice, frames.voice_lens)
        if not self.config.prompt.voice:
            voice_lens = [0] * len(voice_lens)
        return Projected(*semantic, voice_BPH, voice_lens)

    def add_anchors(
        self,
        projected: Sequence[tuple[Tensor, Tensor]],
        anchored: Sequence[bool] | None = None,
        rows: EmbeddingRows | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Both streams of each item with anchors (prompt.anchors), (S, H) each.

        Args:
            projected: Both streams of each item, (P, H) each.
            anchored: Which items get anchors; None: all.
            rows: Where anchors come from; None: the LLM's embedding.
        """
        rows = rows or self.rows()
        return [
            (
                self.semantic_anchors.insert(semantic_PH, rows),
                self.voice_anchors.insert(voice_PH, rows),
            )
            if has_anchors
            else (semantic_PH, voice_PH)
            for (semantic_PH, voice_PH), has_anchors in zip(
                projected, anchored or [True] * len(projected), strict=True
            )
        ]

    def rows(self) -> EmbeddingRows:
        """Rows of the LLM's input embedding."""
        return EmbeddingRows(self.embed(self.prompt.digits), self.embed)

    def streams(self, features_BTF: Tensor, feature_lens_B: Tensor) -> Streams:
        """The two input streams of the LLM, anchors included."""
        pairs = self.add_anchors(self.project(self.encode(features_BTF, feature_lens_B)))
        semantic, voice = map(list, zip(*pairs, strict=True))
        return Streams(
            pad_sequence(semantic, batch_first=True),
            torch.tensor([len(stream_SH) for stream_SH in semantic]),
            pad_sequence(voice, batch_first=True),
            torch.tensor([len(stream_SH) for stream_SH in voice]),
        )

    def embed(self, ids: Sequence[int]) -> Tensor:
        """The LLM's input embeddings of token ids: (len(ids), H)."""
        table: nn.Embedding = self.llm.get_input_embeddings()
        return table(*int_tensors(table.weight.device, ids))

    def prompts(
        self, pairs: Sequence[tuple[Tensor, Tensor]], rows: EmbeddingRows | None = None
    ) -> list[Tensor]:
        """The embedded prompt of each item with its streams in place, (L, H) each."""
        rows = rows or self.rows()
        before, between, after = map(
            rows.of, (self.prompt.before, self.prompt.between, self.prompt.after)
        )
        return [rows.join([before, semantic, between, voice, after]) for semantic, voice in pairs]

    def target_ids(self, target: str) -> list[int]:
        """Token ids that the LLM learns to write for a target text, with the end of the turn."""
        return encode_text(self.tokenizer, target) + self.prompt.ending

    def loss(
        self,
        features_BTF: Tensor,
        feature_lens_B: Tensor,
        targets: Sequence[str],
        return_logits: bool = False,
    ) -> LossOutput:
        """Cross entropy of target texts given features; see `loss_from_frames`."""
        frames = self.encode(features_BTF, feature_lens_B)
        return self.loss_from_frames(frames, targets, return_logits)

    def loss_from_frames(
        self,
        frames: Frames,
        targets: Sequence[str],
        return_logits: bool = False,
        *,
        given: Sequence[list[int]] | None = None,
        labels: Sequence[list[int]] | None = None,
        drops: Drops | None = None,
        heads: nn.Module | None = None,
    ) -> LossOutput:
        """Cross entropy of target texts given encoder frames: the mean over all scored tokens.

        Scored is everything after the assistant line, the end of the turn included
        (docs/released-format.md). The vocabulary projection is applied at scored positions only,
        chunk by chunk.

        Args:
            frames: Output of the encoders.
            targets: Target text of each item.
            return_logits: Whether the output has the logits.
            given: Token ids that the LLM reads instead of those of `targets`.
            labels: Token ids that it must write then; IGNORED is not scored.
            drops: Empties streams, and says which items get anchors.
            heads: Further terms of the loss, from the LLM's states (`SpeakerHeads`).
        """
        projected = self.project(frames)
        labels = labels or [self.target_ids(text) for text in targets]
        read = [ids[:-1] for ids in given or labels]
        inputs = build_inputs(self, projected, read, drops)
        layer = self.config.loss.speaker_layer if heads else -1
        decoder, head = self.llm.get_decoder(), self.llm.get_output_embeddings()
        hidden_NH, states_NH = run_layers(
            decoder, inputs.rows_NH, inputs.lens, self.config.llm, layer
        )
        scored = [
            (start - 1 + place, label)
            for start, ids in zip(inputs.starts, labels, strict=True)
            for place, label in enumerate(ids)
            if label != IGNORED
        ]
        places_N, labels_N = int_tensors(hidden_NH.device, *zip(*scored, strict=True))
        others = {}
        if self.config.loss.semantic_ctc:
            others["semantic_ctc"], _ = self.semantic_ctc(projected, targets)
        if heads:
            of_voice = inputs.voice_places, inputs.starts
            others |= heads(states_NH, hidden_NH, *of_voice, targets, self.tokenizer)
        scored_NH = hidden_NH.index_select(0, places_N)
        output = total_loss(self.config.loss, head, scored_NH, labels_N, others)
        return output._replace(logits=head(scored_NH).float()) if return_logits else output

    def semantic_logits(self, projected: Projected) -> Tensor:
        """Logits of tokens at projected semantic frames, (B, P, V): `EmbeddingCtc.logits`."""
        projector = self.semantic_projector
        scale = projector.ctc_scale / projector.norm if self.config.semantic.normalise else 1.0
        frames_BPH = projected.semantic_BPH[:, : max(projected.semantic_lens)]
        return self.ctc.logits(frames_BPH, scale)

    def semantic_ctc(self, projected: Projected, targets: Sequence[str]) -> tuple[Tensor, int]:
        """CTC of the words on projected semantic frames, and their tokens: `EmbeddingCtc.loss`."""
        return self.ctc.loss(self.semantic_logits(projected), projected.semantic_lens, targets)

    def voice_places(self, semantic: int, voice: int, frames: int) -> list[int]:
        """The positions of an item's projected voice frames in the LLM's input.

        Args:
            semantic: Length of the semantic stream, with or without anchors.
            voice: Length of the voice stream, likewise.
            frames: Number of voice frames.
        """
        start = len(self.prompt.before) + semantic + len(self.prompt.between)
        no_anchors = voice == frames
        positions = range(frames) if no_anchors else self.voice_anchors.positions(frames)
        return [start + position for position in positions]

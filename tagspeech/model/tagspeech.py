"""TagSpeech: two encoders, two projectors, one LLM (docs/paper.md).

    features -> semantic encoder -> projector -> anchors -\
    features -> voice encoder    -> projector -> anchors --> prompt -> LLM -> target text

Shape suffixes: B batch, T time, F mel bins, D encoder channels, P projected frames, S stream
positions, L positions of the LLM's input, N scored positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tagspeech.config import FRAMES_PER_SECOND, Config
from tagspeech.encoders.whisper import build_semantic_encoder, split_features
from tagspeech.encoders.zipformer import Zipformer
from tagspeech.errors import InputError
from tagspeech.llm.packing import checkpoint_layers, run_layers
from tagspeech.llm.prompt import build_prompt, encode_text
from tagspeech.model.anchors import Anchors
from tagspeech.model.loss import IGNORED, LossOutput, semantic_ctc, total_loss
from tagspeech.model.projector import Projector

# Projected streams of each item to those that the LLM gets, and which items get anchors
Drops = Callable[[list[tuple[Tensor, Tensor]]], tuple[list[tuple[Tensor, Tensor]], list[bool]]]


class Frames(NamedTuple):
    """Output of the two encoders, 25 Hz (Whisper: 50): (B, T, D) each, valid lengths (B,)."""

    semantic: Tensor
    semantic_lens: Tensor
    voice: Tensor
    voice_lens: Tensor


class Streams(NamedTuple):
    """What enters the LLM, anchors included: (B, S, H) each, zero after the lengths (B,)."""

    semantic: Tensor
    semantic_lens: Tensor
    voice: Tensor
    voice_lens: Tensor


class TagSpeechModel(nn.Module):
    """The model as an ordinary `nn.Module`; what is frozen stays in eval mode.

    In the paper only the projectors learn; `llm.trainable`, `llm.lora` and `tune_lr` add more.

    llm        any Hugging Face causal LM
    tokenizer  its tokenizer
    """

    def __init__(self, config: Config, llm: Any, tokenizer: Any) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.prompt = build_prompt(tokenizer, config.prompt.voice)
        grid = config.target.time_grid
        self.anchors = Anchors(config.prompt.anchors, tokenizer, self.prompt, grid)
        self.semantic_encoder = build_semantic_encoder(config.semantic)
        self.voice_encoder = Zipformer(config.voice.encoder)
        hidden = llm.config.hidden_size
        self.semantic_projector = Projector(
            config.semantic.output_dim, hidden, config.semantic.stack
        )
        self.voice_projector = Projector(
            config.voice.encoder.output_dim, hidden, config.voice.stack
        )
        self.llm = llm
        self.freeze()
        self.train(False)

    def frozen_parts(self) -> list[nn.Module]:
        """What never learns here: encoders without `tune_lr`, the LLM unless told otherwise."""
        config = self.config
        frozen: list[nn.Module] = []
        if not config.semantic.tune_lr:
            frozen.append(self.semantic_encoder)
        if not config.voice.tune_lr:
            frozen.append(self.voice_encoder)
        if config.llm.trainable not in ("none", "full"):
            raise InputError(f"llm.trainable: wants none or full, found {config.llm.trainable}")
        if config.llm.lora.r and config.llm.trainable == "full":
            raise InputError("llm.lora.r: wants llm.trainable: none; the LLM itself stays frozen")
        if config.llm.trainable == "none" and not config.llm.lora.r:
            frozen.append(self.llm)
        return frozen

    def freeze(self) -> None:
        """Gradients for what the configuration says learns, for nothing else."""
        self.requires_grad_(True)
        for frozen in self.frozen_parts():
            frozen.requires_grad_(False)
        if self.config.llm.lora.r:
            for name, weight in self.llm.named_parameters():
                weight.requires_grad_(".lora_" in name)

    def train(self, mode: bool = True) -> TagSpeechModel:
        """Train mode for what learns; frozen parts stay in eval mode."""
        super().train(mode)
        for frozen in self.frozen_parts():
            frozen.eval()
        if self.config.llm.gradient_checkpointing:
            checkpoint_layers(self.llm, mode)
        return self

    def encode(self, features_BTF: Tensor, feature_lens_B: Tensor) -> Frames:
        """Both encoders over features (B, T, F), 100 frames a second, on any device."""
        learn = torch.is_grad_enabled()
        device = self.semantic_projector.linear1.weight.device
        features_BTF, feature_lens_B = features_BTF.to(device), feature_lens_B.to(device)
        semantic_BTF, voice_BTF = split_features(self.config, features_BTF)
        with torch.set_grad_enabled(learn and self.config.semantic.tune_lr > 0):
            semantic = self.semantic_encoder(semantic_BTF, feature_lens_B)
        with torch.set_grad_enabled(learn and self.config.voice.tune_lr > 0):
            voice = self.voice_encoder(voice_BTF, feature_lens_B)
        return Frames(*semantic, *voice)

    def project(self, frames: Frames) -> list[tuple[Tensor, Tensor]]:
        """Projected frames of both streams, each (P, H), item by item; no anchors yet.

        Without a voice stream (prompt.voice) that of each item is empty.
        """
        semantic_BPH = self.semantic_projector(frames.semantic)
        voice_BPH = self.voice_projector(frames.voice)
        semantic_lens = (frames.semantic_lens // self.config.semantic.stack).tolist()
        voice_lens = (frames.voice_lens // self.config.voice.stack).tolist()
        has_voice = self.config.prompt.voice
        return [
            (semantic_BPH[item, :semantic_len], voice_BPH[item, : voice_len * has_voice])
            for item, (semantic_len, voice_len) in enumerate(
                zip(semantic_lens, voice_lens, strict=True)
            )
        ]

    def add_anchors(
        self, projected: list[tuple[Tensor, Tensor]], anchored: Sequence[bool] | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Both streams of each item with anchors (prompt.anchors), each (S, H).

        anchored  which items get anchors; None: all
        """
        rows = (self.embed(self.prompt.digits), self.embed)
        semantic, voice = self._anchor_times()
        return [
            (
                self.anchors.insert(semantic_PH, *semantic, *rows),
                self.anchors.insert(voice_PH, *voice, *rows),
            )
            if has_anchors
            else (semantic_PH, voice_PH)
            for (semantic_PH, voice_PH), has_anchors in zip(
                projected, anchored or [True] * len(projected), strict=True
            )
        ]

    def _anchor_times(self) -> list[tuple[int, float]]:
        """Of both streams: projected frames between two anchors, seconds of a projected frame."""
        semantic, voice = self.config.semantic, self.config.voice
        rates = ((semantic, semantic.frames_per_second), (voice, FRAMES_PER_SECOND))
        return [(stream.anchor_interval, stream.stack / rate) for stream, rate in rates]

    def streams(self, features_BTF: Tensor, feature_lens_B: Tensor) -> Streams:
        """The two streams as the LLM gets them, anchors included."""
        pairs = self.add_anchors(self.project(self.encode(features_BTF, feature_lens_B)))
        semantic, voice = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return Streams(
            pad_sequence(semantic, batch_first=True),
            torch.tensor([len(one) for one in semantic]),
            pad_sequence(voice, batch_first=True),
            torch.tensor([len(one) for one in voice]),
        )

    def embed(self, ids: Sequence[int]) -> Tensor:
        """The LLM's input embeddings of token ids: (len(ids), H)."""
        table: nn.Embedding = self.llm.get_input_embeddings()
        return table(torch.tensor(ids, dtype=torch.long, device=table.weight.device))

    def prompts(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """The embedded prompt of each item, streams in place: (L, H) each."""
        before, between, after = map(
            self.embed, (self.prompt.before, self.prompt.between, self.prompt.after)
        )
        return [
            torch.cat([before, semantic.to(before), between, voice.to(before), after])
            for semantic, voice in pairs
        ]

    def target_ids(self, target: str) -> list[int]:
        """Token ids the LLM learns to write for a target text, the end of the turn included."""
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

        given   token ids that the LLM reads up to each token in place of those of `targets`, and
        labels  those it has to write then, IGNORED where nothing is asked
        drops   leaves some streams empty, and says which items get anchors
        heads   further terms of the loss, asked of the LLM's states (`model.speaker_heads`)
        """
        projected = self.project(frames)
        heard, anchored = drops(projected) if drops else (projected, None)
        pairs = self.add_anchors(heard, anchored)
        prompts = self.prompts(pairs)
        labels = labels or [self.target_ids(text) for text in targets]
        scored = [[place for place, label in enumerate(one) if label != IGNORED] for one in labels]
        inputs = [
            torch.cat([prompt, self.embed(one[:-1])])
            for prompt, one in zip(prompts, given or labels, strict=True)
        ]
        layer = self.config.loss.speaker_layer if heads else -1
        hidden, states = run_layers(self.llm.get_decoder(), inputs, self.config.llm, layer)
        hidden_NH = torch.cat(
            [
                own[len(prompt) - 1 :][places]
                for own, prompt, places in zip(hidden, prompts, scored, strict=True)
            ]
        )
        head = self.llm.get_output_embeddings()
        others = {}
        if self.config.loss.semantic_ctc:
            semantic = [pair[0] for pair in projected]
            others["semantic_ctc"], _ = semantic_ctc(
                self.llm, self.tokenizer, self.prompt, semantic, targets
            )
        if heads:
            places = [
                self.voice_places(len(semantic), len(voice), len(own))
                for (semantic, voice), (_, own) in zip(pairs, heard, strict=True)
            ]
            others |= heads(
                states, hidden, places, list(map(len, prompts)), targets, self.tokenizer
            )
        ids = [[label for label in one if label != IGNORED] for one in labels]
        output = total_loss(self.config.loss, head, hidden_NH, ids, others)
        return output._replace(logits=head(hidden_NH).float()) if return_logits else output

    def voice_places(self, semantic: int, voice: int, frames: int) -> list[int]:
        """Where in an LLM's input each of `frames` voice frames stands.

        semantic, voice  lengths of the streams, with anchors or without
        """
        start = len(self.prompt.before) + semantic + len(self.prompt.between)
        _, times = self._anchor_times()
        bare = voice == frames
        own = range(frames) if bare else self.anchors.frame_positions(frames, *times)
        return [start + place for place in own]

"""TagSpeech: two encoders, two projectors, one LLM (docs/paper.md).

    features -> semantic encoder -> projector -> anchors -\
    features -> voice encoder    -> projector -> anchors --> prompt -> LLM -> target text

Shape suffixes: B batch, T time, F mel bins, D encoder channels, P projected frames, S stream
positions, L positions of the LLM's input, N scored positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tagspeech.config import FRAMES_PER_SECOND, Config
from tagspeech.errors import InputError
from tagspeech.models.anchors import Anchors
from tagspeech.models.losses import IGNORED, LossOutput, semantic_ctc, total_loss
from tagspeech.models.projector import Projector
from tagspeech.models.prompt import build_prompt, encode_text
from tagspeech.models.sequences import checkpoint_layers, run_layers
from tagspeech.models.speaker_heads import SpeakerHeads
from tagspeech.models.whisper import build_semantic_encoder, split_features
from tagspeech.models.zipformer import Zipformer


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
        self.speaker_heads: SpeakerHeads | None = None  # in training only
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

    def add_anchors(self, projected: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Both streams of each item with anchors (prompt.anchors), each (S, H).

        In training some items go without anchors (drop.anchors).
        """
        rows = (self.embed(self.prompt.digits), self.embed)
        semantic, voice = self._anchor_times()
        return [
            (semantic_PH, voice_PH)
            if self._drops(self.config.drop.anchors)
            else (
                self.anchors.insert(semantic_PH, *semantic, *rows),
                self.anchors.insert(voice_PH, *voice, *rows),
            )
            for semantic_PH, voice_PH in projected
        ]

    def _anchor_times(self) -> list[tuple[int, float]]:
        """Of both streams: projected frames between two anchors, seconds of a projected frame."""
        semantic, voice = self.config.semantic, self.config.voice
        rates = ((semantic, semantic.frames_per_second), (voice, FRAMES_PER_SECOND))
        return [(stream.anchor_interval, stream.stack / rate) for stream, rate in rates]

    def drop_streams(self, projected: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """In training, some streams are empty (drop.semantic, drop.voice)."""
        drop = self.config.drop
        return [
            (
                semantic[:0] if self._drops(drop.semantic) else semantic,
                voice[:0] if self._drops(drop.voice) else voice,
            )
            for semantic, voice in projected
        ]

    def _drops(self, chance: float) -> bool:
        """A throw of the dice, in training only; none where the chance is 0."""
        return self.training and chance > 0 and torch.rand(()).item() < chance

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
    ) -> LossOutput:
        """Cross entropy of target texts given encoder frames: the mean over all scored tokens.

        Scored is everything after the assistant line, the end of the turn included
        (docs/released-format.md). The vocabulary projection is applied at scored positions only,
        chunk by chunk.

        given   token ids that the LLM reads up to each token in place of those of `targets`, and
        labels  those it has to write then, IGNORED where nothing is asked
        """
        projected = self.project(frames)
        heard = self.drop_streams(projected)
        pairs = self.add_anchors(heard)
        prompts = self.prompts(pairs)
        labels = labels or [self.target_ids(text) for text in targets]
        scored = [[place for place, label in enumerate(one) if label != IGNORED] for one in labels]
        inputs = [
            torch.cat([prompt, self.embed(one[:-1])])
            for prompt, one in zip(prompts, given or labels, strict=True)
        ]
        hidden, states = self.hidden_states(inputs)
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
        if self.speaker_heads is not None:
            places = [
                self.voice_places(len(semantic), len(voice), len(own))
                for (semantic, voice), (_, own) in zip(pairs, heard, strict=True)
            ]
            others |= self.speaker_heads(
                states, hidden, places, list(map(len, prompts)), targets, self.tokenizer
            )
        ids = [[label for label in one if label != IGNORED] for one in labels]
        output = total_loss(self.config.loss, head, hidden_NH, ids, others)
        return output._replace(logits=head(hidden_NH).float()) if return_logits else output

    def hidden_states(self, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """States of the LLM over embedded sequences (L, H), each (L, H).

        The last ones, and those behind layer `loss.speaker_layer` if there are speaker heads.
        """
        layer = self.config.loss.speaker_layer if self.speaker_heads is not None else -1
        return run_layers(self.llm.get_decoder(), inputs, self.config.llm, layer)

    def voice_places(self, semantic: int, voice: int, frames: int) -> list[int]:
        """Where in an LLM's input each of `frames` voice frames stands.

        semantic, voice  lengths of the streams, with anchors or without
        """
        start = len(self.prompt.before) + semantic + len(self.prompt.between)
        _, times = self._anchor_times()
        dropped = voice == frames  # drop.anchors
        own = range(frames) if dropped else self.anchors.frame_positions(frames, *times)
        return [start + place for place in own]

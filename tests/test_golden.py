"""Our arithmetic against what the released system computed on two real recordings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
DATA = GOLDEN.parent / "data"
WAVS = ("alimeeting/R8009_M8028-11-0-116.wav", "ami/EN2002c-12-0-35.wav")  # golden-0, golden-1

pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason="../shared/golden is not here")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "golden.npz") as arrays:
        figures = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return figures, json.loads((GOLDEN / "golden.json").read_text())


@pytest.fixture(scope="module")
def model():
    """The released tiny model, put together part by part."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tagspeech.config import Config, LLMConfig, SemanticConfig, VoiceConfig
    from tagspeech.models.tagspeech import TagSpeechModel
    from tagspeech.models.zipformer import zipformer_config_from_released

    folder = GOLDEN / "checkpoint"
    released = json.loads((folder / "config.json").read_text())
    config = Config(
        semantic=SemanticConfig(
            encoder=zipformer_config_from_released(released["audio_encoder_config"])
        ),
        voice=VoiceConfig(encoder=zipformer_config_from_released(released["voice_encoder_config"])),
        llm=LLMConfig(name=str(folder / "llm")),
    )
    llm = AutoModelForCausalLM.from_pretrained(folder / "llm", dtype=torch.float32)
    model = TagSpeechModel(config, llm, AutoTokenizer.from_pretrained(folder))
    permitted = {"model_batch_count"}
    for part, name in ((model.semantic_encoder, "audio"), (model.voice_encoder, "voice")):
        weights = load_file(folder / f"{name}_encoder" / "model.safetensors")
        part.load_state_dict({key: w for key, w in weights.items() if key not in permitted})
    projectors = torch.load(folder / "projectors.pt", weights_only=True)
    for stream in ("semantic", "voice"):
        prefix = f"{stream}_projector."
        own = {key[len(prefix) :]: w for key, w in projectors.items() if key.startswith(prefix)}
        getattr(model, f"{stream}_projector").load_state_dict(own)
    return model.float().eval()


def close(ours, theirs, relative):
    return (ours - theirs).abs().max() <= relative * theirs.abs().max()


def features_of(golden, item):
    figures, _ = golden
    length = int(figures["fbank_lens"][item])
    return figures["fbank"][item : item + 1, :length], torch.tensor([length])


def target_of(golden, item):
    return golden[1]["target_xml"][item]


@pytest.mark.parametrize("item", [0, 1])
def test_encoders_and_streams_of_each_recording_alone(golden, model, item):
    figures, _ = golden
    features, lens = features_of(golden, item)
    frames = model.encode(features, lens)
    assert close(frames.semantic, figures[f"single{item}_sem_enc"], 1e-4)
    assert close(frames.voice, figures[f"single{item}_voi_enc"], 1e-4)
    streams = model.streams(features, lens)
    assert close(streams.semantic, figures[f"single{item}_sem_stream"], 1e-4)
    assert close(streams.voice, figures[f"single{item}_voi_stream"], 1e-4)
    assert streams.semantic_lens.item() == figures[f"single{item}_sem_stream"].shape[1]


def test_projectors_on_the_recorded_encoder_outputs(golden, model):
    figures, _ = golden
    for name, projector in (("sem", model.semantic_projector), ("voi", model.voice_projector)):
        projected = projector(figures[f"{name}_enc"])
        for item, length in enumerate(figures[f"{name}_proj_lens"].tolist()):
            theirs = figures[f"{name}_proj"][item, :length]
            assert close(projected[item, :length], theirs, 1e-4)


@pytest.mark.parametrize("item", [0, 1])
def test_token_ids_of_prompt_and_target(golden, model, item):
    prompt, audio = model.prompt, golden[1]["tokenizer"]["audio_id"]
    ids = [*prompt.before, audio, *prompt.between, audio, *prompt.after]
    assert ids == golden[1]["ids_gen_unexpanded"][item]
    ids += model.target_ids(target_of(golden, item))
    assert ids == golden[1]["ids_train_unexpanded"][item]


@pytest.mark.parametrize("item", [0, 1])
def test_loss_and_logits_of_each_recording_alone(golden, model, item):
    figures, _ = golden
    output = model.loss(*features_of(golden, item), [target_of(golden, item)])
    assert abs(output.loss.item() - figures[f"single{item}_train_loss"].item()) < 1e-4
    theirs = figures[f"single{item}_train_logits"][0]
    theirs = theirs[len(theirs) - 1 - output.tokens : -1]
    assert close(output.logits, theirs, 1e-3)


def test_loss_of_a_padded_batch_is_the_token_mean(golden, model):
    figures, _ = golden
    singles = [model.loss(*features_of(golden, item), [target_of(golden, item)]) for item in (0, 1)]
    batch = model.loss(
        figures["fbank"], figures["fbank_lens"], [target_of(golden, item) for item in (0, 1)]
    )
    tokens = sum(one.tokens for one in singles)
    mean = sum(one.loss.item() * one.tokens for one in singles) / tokens
    assert batch.tokens == tokens
    assert abs(batch.loss.item() - mean) < 1e-5


def test_projector_gradients_from_the_recorded_encoder_outputs(golden, model):
    from tagspeech.models.tagspeech import Frames

    figures, text = golden
    frames = Frames(*(figures[f"{s}_enc{part}"] for s in ("sem", "voi") for part in ("", "_lens")))
    model.zero_grad()
    with torch.enable_grad():
        model.loss_from_frames(frames, text["target_xml"]).loss.backward()
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            assert close(weight.grad, figures[f"grad.{name}"], 1e-3), name
        else:
            assert weight.grad is None


@pytest.mark.parametrize("item", [0, 1])
def test_greedy_ids_of_each_recording_alone(golden, model, item):
    from tagspeech.decoding.greedy import generate_ids

    figures, _ = golden
    frames = model.encode(*features_of(golden, item))
    ids = generate_ids(model, frames, max_new_tokens=40)[0]
    assert ids == figures[f"single{item}_gen_ids"].tolist()[: len(ids)]
    assert len(ids) == 40


@pytest.mark.parametrize("item", [0, 1])
def test_features_of_the_real_recordings(golden, item):
    from tagspeech.config import FeatureConfig
    from tagspeech.data.batches import FeatureReader
    from tagspeech.decoding.transcribe import read_audio

    samples = read_audio(DATA / WAVS[item], 16000)
    features, lens = FeatureReader(FeatureConfig()).of_samples([samples])
    theirs = golden[0][f"single{item}_fbank_alone"]
    assert lens.item() == len(theirs)
    assert close(features[0], theirs, 1e-4)

"""Our arithmetic against what the released system computed on two real recordings."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from reference import GOLDEN

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
    """The released tiny model, loaded as a user loads it."""
    from tagspeech import TagSpeech

    return TagSpeech.from_pretrained(GOLDEN / "checkpoint")


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
    target = [target_of(golden, item)]
    output = model.loss(*features_of(golden, item), target, return_logits=True)
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
    from tagspeech.model.frames import Frames

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
def test_greedy_ids_and_text_of_each_recording_alone(golden, model, item):
    figures, text = golden
    features = features_of(golden, item)
    (spelt,), (ids,) = model.generate(*features, max_new_tokens=40, return_ids=True, grammar=False)
    assert ids == figures[f"single{item}_gen_ids"].tolist() == text["gen_ids_one_by_one"][item]
    assert spelt == model.tokenizer.decode(ids)
    assert model.generate(*features, max_new_tokens=40, grammar=False) == [spelt]


@pytest.mark.parametrize("item", [0, 1])
def test_rendered_prompt(golden, model, item):
    prompt, decode = model.prompt, model.tokenizer.decode
    before, between, after = map(decode, (prompt.before, prompt.between, prompt.after))
    rendered = f"{before}<|AUDIO|>{between}<|AUDIO|>{after}"
    assert rendered == golden[1]["rendered_gen"][item]
    rendered += decode(model.target_ids(target_of(golden, item)))
    assert rendered == golden[1]["rendered_train"][item]


def test_greedy_ids_in_half_precision(golden):
    """Theirs too has the LLM in float16, encoders and projectors in float32."""
    from tagspeech import TagSpeech

    half = TagSpeech.from_pretrained(GOLDEN / "checkpoint", dtype=torch.float16)
    assert half.llm.dtype == torch.float16
    for item in (0, 1):
        features = features_of(golden, item)
        _, (ids,) = half.generate(*features, max_new_tokens=20, return_ids=True, grammar=False)
        assert ids == golden[1]["fp16_gen_ids_one_by_one"][item][:20]


def test_trainer_checkpoint(golden, model):
    """Its projectors are those of the published model: loaded over others they bring it back."""
    from tagspeech import TagSpeech

    other = TagSpeech.from_pretrained(GOLDEN / "checkpoint")
    wanted = {name: one for name, one in model.state_dict().items() if "projector" in name}
    with torch.no_grad():
        for name in wanted:
            other.get_parameter(name).zero_()
    other.load_projectors(GOLDEN / "trainer-checkpoint-4.pt")
    assert len(wanted) == 8
    assert all(torch.equal(other.get_parameter(name), one) for name, one in wanted.items())


@pytest.mark.parametrize("item", [0, 1])
def test_features_of_the_real_recordings(golden, item):
    from tagspeech.audio.sources import Span, open_audio
    from tagspeech.config import FeatureConfig
    from tagspeech.data.batches import FeatureReader

    (audio,) = open_audio(DATA / WAVS[item])
    samples = audio.samples(16000, Span(0.0, audio.duration))
    features, lens = FeatureReader(FeatureConfig()).of_samples([samples])
    theirs = golden[0][f"single{item}_fbank_alone"]
    assert lens.item() == len(theirs)
    assert close(features[0], theirs, 1e-4)

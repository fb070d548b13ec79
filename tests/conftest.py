"""Fixtures and settings of all tests."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from reference import SHARED

from tagspeech.config import Config
from tagspeech.config_file import load_config
from tagspeech.segments import Segment

ROOT = Path(__file__).resolve().parent.parent

# One thread: the same bits on every machine, and no contention between parallel tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Tests in the background ignore SIGINT; processes that they interrupt must not inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run: a failure must be reproducible.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# The longest tests start first, so that no processor is idle at the end.
LONGEST = ("test_recipe_stages", "test_run_sh", "test_template", "test_training", "test_replicas")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves the files of `LONGEST` to the front."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture
def spent() -> Callable[[], float]:
    """Returns the CPU seconds of child processes that the test has waited for, unlike a clock
    independent of the load of the machine."""

    def seconds() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = seconds()
    return lambda: seconds() - before


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference vectors and recordings that are too large for the repository.

    It is next to the repository or at TAGSPEECH_SHARED. Without it, tests that need it are skipped.
    """
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: no reference vectors to compare with")
    return SHARED


# A TagSpeech of about ten thousand weights, trained for a few steps: all runs, nothing learns.
TINY_YAML = """\
semantic:
  encoder: &encoder
    embed_channels: [2, 3, 4]
    num_encoder_layers: [1, 1]
    downsampling_factor: [1, 2]
    encoder_dim: [16, 24]
    feedforward_dim: [32]
    num_heads: [2]
    query_head_dim: [4]
    value_head_dim: [4]
    pos_head_dim: [2]
    pos_dim: 8
    cnn_module_kernel: [5]
    dropout: 0.05
  sot: {units: word, vocab_size: 200}
  train: &train {max_steps: 6, max_duration: 40, warmup_steps: 2, schedule: cosine, num_buckets: 3,
                 log_every: 2, valid_every: 6, checkpoint_every: 2, average: 2}
voice:
  encoder: {<<: *encoder, encoder_dim: [12, 16]}
  train: *train
llm:
  trainable: full
  attention: eager
  new: {vocab_size: 900, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2,
        num_attention_heads: 2, num_key_value_heads: 1, train: *train}
target: {time_grid: 0.1}
loss: {semantic_ctc: 0.3}
train: *train
decode: {max_new_tokens: 30, max_duration: 20}
"""


@pytest.fixture(scope="session")
def tiny_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tagspeech.yaml with which each stage takes about a second."""
    path = tmp_path_factory.mktemp("config") / "tagspeech.yaml"
    path.write_text(TINY_YAML)
    return path


@pytest.fixture(scope="session")
def tiny_groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of utterance groups made from simulated meetings: 40 train, 10 dev, 10 test."""
    from tagspeech.corpus.groups import make_groups
    from tagspeech.simulation.simulate import SimulateConfig, simulate

    folder = tmp_path_factory.mktemp("corpus")
    simulate(folder / "corpus", SimulateConfig(40, 10, 10, 0), jobs=1)
    make_groups(
        folder / "corpus",
        folder / "groups",
        rejected=folder / "rejected.jsonl",
        splits=("train", "dev", "test"),
        max_pause=1.0,
        language="en",
    )
    return folder / "groups"


@pytest.fixture(scope="session")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small replicas of AMI and AliMeeting: `ami`, `alimeeting`."""
    from make import make_replica

    folder = tmp_path_factory.mktemp("replicas")
    for layout in ("ami", "alimeeting"):
        make_replica(layout, folder / layout, minutes=0.2)
    return folder


@pytest.fixture(scope="session")
def tiny_segments() -> list[Segment]:
    """Two speakers of one session, overlapping."""
    return [
        Segment("one", "a", 0.3, 1.2, "set the lamp to seven", "f"),
        Segment("one", "b", 0.9, 2.1, "she will call at three", "m"),
        Segment("one", "a", 2.2, 2.9, "bring two paper cups", "f"),
    ]


@pytest.fixture(scope="session")
def tiny_config(
    tmp_path_factory: pytest.TempPathFactory, tiny_yaml: Path, tiny_segments: list[Segment]
) -> Config:
    """The configuration of `tiny_yaml` with a new LLM."""
    from tagspeech.llm.new import make_llm
    from tagspeech.serialize import to_target

    folder = tmp_path_factory.mktemp("llm") / "llm"
    config = load_config(tiny_yaml, [f"llm.name={folder}"])
    targets = [to_target(tiny_segments, config.target.time_grid)]
    make_llm(config.llm.new, targets, config.target.time_grid, 12.0, folder)
    return config


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Path:
    """A saved model with random weights."""
    import torch

    from tagspeech.checkpoints.native import save_pretrained
    from tagspeech.llm.load import load_llm
    from tagspeech.model.tagspeech import TagSpeechModel

    torch.manual_seed(1)
    model = TagSpeechModel(tiny_config, *load_llm(tiny_config.llm))
    folder = tmp_path_factory.mktemp("model") / "pretrained"
    save_pretrained(model, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, tiny_groups: Path, tiny_yaml: Path) -> Path:
    """A folder with `model`, which has random weights, and `embeddings` of its encoders."""
    import torch

    from tagspeech.checkpoints.native import save_pretrained
    from tagspeech.corpus.groups import group_targets
    from tagspeech.data.batches import read_groups
    from tagspeech.llm.load import load_llm
    from tagspeech.llm.new import make_llm
    from tagspeech.model.tagspeech import TagSpeechModel
    from tagspeech.training.embed import embed

    folder = tmp_path_factory.mktemp("base")
    config = load_config(tiny_yaml, [f"llm.name={folder / 'llm'}"])
    targets = group_targets(read_groups(tiny_groups / "train.jsonl.gz"), config.target.time_grid)
    make_llm(config.llm.new, targets, config.target.time_grid, 30.0, folder / "llm")
    torch.manual_seed(1)
    save_pretrained(TagSpeechModel(config, *load_llm(config.llm)), folder / "model")
    embed(
        *(config, tiny_groups, None, None, folder / "embeddings", ("train", "dev")),
        init_from=folder / "model",
    )
    return folder

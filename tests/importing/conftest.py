"""Fixtures of the tests of importing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from corpora import NAMES, Source, noise

from tagspeech.formats import write
from tagspeech.simulation.simulate import SimulateConfig, simulate


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Forty sessions."""
    folder = tmp_path_factory.mktemp("simulated")
    simulate(folder, SimulateConfig(20, 10, 10, 0), jobs=1)
    return Source(folder)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, source: Source) -> Path:
    """The same sessions in all layouts."""
    folder = tmp_path_factory.mktemp("corpus")
    source.write_audio(folder)
    for format in ("stm", "seglst", "textgrid", "json"):
        source.write_words(folder, format)
    source.write_ctm(folder)
    source.write_kaldi(folder)
    anonymous = [replace(segment, speaker="speech") for segment in source.segments]
    write(anonymous, folder / "anonymous.stm")
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three recordings of two seconds with two segments each."""
    lines = []
    for split, name in NAMES.items():
        noise(tmp_path / f"audio/{split}/{name}.wav")
        lines += [f"{name} 1 anna 0.1 0.9 yes\n", f"{name} 1 bert 0.8 1.7 no <o,f0,male> way\n"]
    (tmp_path / "all.stm").write_text("".join(lines))
    return tmp_path

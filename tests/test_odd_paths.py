"""Paths with characters that mean something to YAML, a shell, find, argparse or a browser."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tagspeech.errors import InputError
from tagspeech.formats import read, write
from tagspeech.report.page import write_page_of
from tagspeech.segments import Segment

ODD = ["a #b", "a: b", "*[x", "a\\b", "'q\"", "&a {", "%41", "~", "null", "- x", "größe 100%?"]


@pytest.mark.parametrize("name", ODD)
def test_parts_name_any_folder(root: Path, tmp_path: Path, name: str) -> None:
    """What `tagspeech parts` prints is read again by `--set`."""
    command = ["tagspeech", "parts", "--config", root / "egs/mini/conf/scratch.yaml", "--no-search"]
    folder = f"{tmp_path}/{name}/llm"
    command += ["--record", tmp_path / "parts.json", "--from-scratch", "--new-llm", folder]
    said = subprocess.check_output(command, text=True)
    sets = [f"--set={line}" for line in said.splitlines() if not line.startswith("new_llm=")]
    command = ["tagspeech", "config", "--config", root / "egs/mini/conf/scratch.yaml", *sets]
    found = subprocess.check_output([*command, "--stages"], text=True)
    assert json.loads(found)["6"]["llm.name"] == folder


@pytest.mark.parametrize("name", [*ODD, "-x", "--x"])
def test_files_of_a_corpus_in_any_folder(root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name / "sub").mkdir(parents=True)
    (tmp_path / name / "sub/a.wav").write_text("x")
    (tmp_path / name / "sub/._a.wav").write_text("x")
    (tmp_path / name / "sub/a.txt").write_text("x")
    script = (
        '. "$0/utils/log.sh"; . "$0/local/corpus.sh"; list_files "./$1" ./list opts "sub/*.wav"'
    )
    subprocess.run(["bash", "-euc", script, root, name], cwd=tmp_path, check=True)
    assert (tmp_path / "list").read_text() == f"{tmp_path / name}\nopts\n1 sub/a.wav\n"


def test_file_of_a_corpus_with_a_newline_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x\ny.wav").write_text("x")
    script = '. "$0/utils/log.sh"; . "$0/local/corpus.sh"; list_files a ./list opts "*.wav"'
    said = subprocess.run(
        ["bash", "-euc", script, root], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert "a name of a file has a newline here; rename it" in said.stderr


@pytest.mark.parametrize(
    ("value", "becomes"), [("-x", "./-x"), ("-1", "-1"), ("-.5", "-.5"), ("a #b", "a #b")]
)
def test_option_that_begins_with_a_dash(root: Path, value: str, becomes: str) -> None:
    script = '. "$0/utils/log.sh"; name=x; . "$0/utils/parse_options.sh"; echo "$name"'
    said = subprocess.check_output(["bash", "-euc", script, root, "--name", value], text=True)
    assert said == f"{becomes}\n"


def test_option_with_a_newline(root: Path) -> None:
    script = '. "$0/utils/log.sh"; name=x; . "$0/utils/parse_options.sh"; echo "$name"'
    said = subprocess.run(
        ["bash", "-euc", script, root, "--name", "a\nb"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert "option '--name': must have no newline" in said.stderr


@pytest.mark.parametrize("name", ["a#b", "a?b", "100%", "a:b", "%41", "c d", "\udcff"])
def test_page_links_to_any_file(tmp_path: Path, name: str) -> None:
    """The address, decoded as a browser does, is the file."""
    from urllib.parse import unquote_to_bytes, urlsplit

    audio = tmp_path / f"{name}.wav"
    try:
        soundfile.write(os.fsencode(audio), np.zeros(8000), 8000)
    except OSError:
        pytest.skip("the file system has no such names")
    rows = [Segment(name, "anna", 0.0, 0.9, "so")]
    if "\udcff" in name:
        from tagspeech.report.page import _link

        assert _link(str(audio), tmp_path) == "%FF.wav"
        return
    write(rows, tmp_path / "hyp.seglst.json", "seglst")
    write_page_of(tmp_path / "page.html", tmp_path / "hyp.seglst.json", None, [audio])
    page = (tmp_path / "page.html").read_text()
    link = page.split('"audio": "')[-1].split('"')[0] if '"audio": "' in page else ""
    link = link or page.split('"audio":"')[-1].split('"')[0]
    parts = urlsplit(link)
    assert (parts.scheme, parts.query, parts.fragment) == ("", "", "")
    assert unquote_to_bytes(parts.path) == audio.name.encode()


GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 3
tiers? <exists>
size = {tiers}
item []:
    item [1]:
        class = "IntervalTier"
        name = "anna"
        xmin = 0
        xmax = 3
        intervals: size = {intervals}
        intervals [1]:
            xmin = 0
            xmax = 1
            text = "so"
        intervals [2]:
            xmin = 1
            xmax = 3
            text = "it is"
"""


def test_sizes_of_a_textgrid(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(GRID.format(tiers=1, intervals=2))
    assert [item.words for item in read(path)] == ["so", "it is"]
    for tiers, intervals in ((1, 1), (1, 0), (0, 2), (1, -1)):
        path.write_text(GRID.format(tiers=tiers, intervals=intervals))
        with pytest.raises(InputError, match=r"a\.TextGrid, line \d+: more tiers or intervals"):
            read(path)

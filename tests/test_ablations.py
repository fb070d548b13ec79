"""utils/ablations.sh on a replica: done once; a deleted experiment alone comes back."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tagspeech.config_file import load_config
from tagspeech.errors import InputError
from tagspeech.report.ablations import read_tables, spread, write_tables

# Models are not trained here: files that name their variant take their place, and the variant's
# outputs are the reference without its first segments. All else is tagspeech itself.
STAND_IN = """#!{python}
import gzip, json, os, sys
from pathlib import Path

args = sys.argv[1:]
verb = " ".join(args[:2]) if args[0] == "train" else args[0]
options = {{k: v for k, v in zip(args, args[1:]) if k.startswith("--")}}
with open(os.environ["CALLS"], "a") as calls:
    calls.write(f"{{verb}}\\n")
made = {{
    "train semantic": ["final.pt"],
    "train voice": ["final.pt"],
    "embed": ["train.jsonl.gz", "dev.jsonl.gz"],
    "new-llm": ["pretrained/config.json"],
    "train tagspeech": ["pretrained/config.json", "pretrained/model.safetensors"],
}}
if verb == "decode":
    from tagspeech import formats
    from tagspeech.segments import Segment

    output = Path(options["--output"])
    output.mkdir(parents=True)
    groups = [json.loads(line) for line in gzip.open(options["--groups"], "rt")]
    ref = [
        Segment(
            *(cut["id"], one["speaker"], one["start"]), one["start"] + one["duration"], one["text"]
        )
        for cut in groups
        for one in cut["supervisions"]
        if one.get("text")
    ]
    formats.write(ref, output / "test.ref.seglst.json")
    for name in ("hyp", "hyp-voice"):
        lost = ref[3 if Path(options["--variant"]).stem == "text" else 6 :]
        formats.write(lost, output / f"test.{{name}}.seglst.json")
    rows = [{{"session": cut["id"], "text": "", "malformed": False}} for cut in groups]
    text = "".join(json.dumps(row) + "\\n" for row in rows)
    (output / "test.raw.jsonl").write_text(text)
    (output / "test.places.json").write_text("[]")
elif verb == "report":
    Path(options["--output"]).write_text('{{"commit": "abc"}}')
    Path(options["--page"]).write_text("")
elif verb in made:
    for name in made[verb]:
        path = Path(options["--output"]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if path.suffix == ".gz" else verb.encode())
else:
    os.execv(sys.executable, [sys.executable, "-m", "tagspeech", *args])
"""
RECIPES = ("ami", "alimeeting")
TABLES = """\
- name: anchor_form
  title: Form
  rows:
    - {label: numeric, variant: numeric, paper: {der: 24.84}}
    - {label: text, variant: text}
  found: Text is better.
"""


@pytest.fixture
def house(root: Path, tmp_path: Path) -> Path:
    """The repository's shell parts and configurations, with a table of two variants."""
    recipes = [f"egs/{one}/{part}" for one in RECIPES for part in ("run.sh", "conf", "local")]
    for name in ("run.sh", "path.sh", "local", "utils", *recipes, "egs/template/conf"):
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy2
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy(root / name, tmp_path / name)
    (tmp_path / "local/ablations/tables.yaml").write_text(TABLES)
    for one in RECIPES:
        (tmp_path / "egs" / one / "RESULTS.md").write_text("# Results\n\nBefore.\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tagspeech").write_text(STAND_IN.format(python=sys.executable))
    (tmp_path / "bin/tagspeech").chmod(0o755)
    return tmp_path


def run(house: Path, root: Path, corpus: Path) -> list[str]:
    """Runs the ablation of the recipe that `corpus` is named for; gives the verbs, those that only
    look left out."""
    recipe = corpus.name
    calls = house / "calls"
    calls.write_text("")
    here = str(Path(sys.executable).parent)
    words = f"--recipe {recipe} --corpus-dir {corpus} --install false --from-scratch true"
    done = subprocess.run(
        [house / "utils/ablations.sh", *words.split(), "--config", f"egs/{recipe}/conf/tiny.yaml"],
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(house / "bin"), here, os.environ["PATH"]]),
            "PYTHONPATH": str(root),
            "CALLS": str(calls),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (house / "log").write_text(done.stderr)
    looks = {"config", "gpus", "parts", "ablation-cells", "ablation-tables"}
    return [verb for verb in calls.read_text().splitlines() if verb not in looks]


def rows(results: Path) -> dict[str, list[str]]:
    """The first table's cells, by its rows' first."""
    block = results.read_text().partition("ablations:anchor_form:begin")[2]
    lines = block.split("\n\n")[1].splitlines()
    return {cells[1]: cells[2:-1] for cells in (re.split(r" *\| *", line) for line in lines)}


CELL = ["new-llm", "train tagspeech", "decode", "score", "score", "report"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_tables_by_one_command(house: Path, root: Path, replicas: Path, recipe: str) -> None:
    folder = house / "egs" / recipe
    results, experiments = folder / "RESULTS.md", folder / "exp-ablations"
    begin = []
    if recipe == "alimeeting":  # as mini does: an LLM that the variants begin with, made once
        (folder / "conf/ablations").mkdir()
        (folder / "conf/ablations/llm.yaml").write_text("drop: {voice: 0.5}\n")
        begin = CELL[:2]
    calls = run(house, root, replicas / recipe)
    assert calls == ["groups", "train semantic", "train voice", "embed", *begin, *2 * CELL]
    llm = f"--llm egs/{recipe}/exp-ablations/llm/tagspeech/pretrained/llm "
    assert (house / "log").read_text().count(llm) == (2 if begin else 0)
    path = experiments / "numeric/seed-1/tagspeech/greedy/scores.json"
    scores = json.loads(path.read_text())
    table = rows(results)
    assert table["Form"][:4] == ["seeds", "DER", "paper", "cpWER"]
    assert table["numeric"][:3] == [
        "1",
        f"{100 * scores['overall']['der']['error_rate']:.1f}",
        "24.84",
    ]
    assert table["text"][::2][:2] == ["1", "-"]
    assert 0 < float(table["text"][1]) < float(table["numeric"][1])
    filled = results.read_text()
    assert filled.startswith("# Results\n\nBefore.\n")
    assert ", at abc; " in filled
    assert "DER, overlapped" in filled
    assert "By duration in seconds (groups: " in filled
    plot = folder / "ablations-anchor_form.svg"
    assert f"]({plot.name})" in filled
    assert "missed" in plot.read_text()

    assert run(house, root, replicas / recipe) == []
    shutil.rmtree(experiments / "numeric")
    assert run(house, root, replicas / recipe) == CELL
    assert results.read_text() == filled

    scores["overall"]["der"]["error_rate"] = 0.1
    second = experiments / "numeric/seed-2/tagspeech/greedy/scores.json"
    second.parent.mkdir(parents=True)
    second.write_text(json.dumps(scores))
    tables = read_tables(house / "local/ablations/tables.yaml")
    write_tables(tables, 2, experiments, results, "the command")
    first = float(table["numeric"][1])
    low, high = sorted([first, 10.0])
    assert rows(results)["numeric"][1].endswith(f" ({low}-{high})")
    assert rows(results)["text"] == table["text"]


@pytest.mark.parametrize("recipe", ["mini", "ami", "alimeeting"])
def test_every_variant_differs_from_the_system_in_what_it_is_named_for(
    root: Path, recipe: str
) -> None:
    conf = root / "egs" / recipe / "conf"
    own = conf / "ablations.yaml"
    config = own if own.exists() else conf / "tagspeech.yaml"
    tables = read_tables(root / "local/ablations/tables.yaml")
    found = {}
    for row in (row for table in tables for row in table.rows):
        file = f"ablations/{row.variant}.yaml"
        path = conf / file if (conf / file).exists() else root / "local" / file
        found[row.variant] = load_config(config, variant=path)
    assert found["numeric"] == load_config(config)
    assert len(set(map(repr, found.values()))) == len(found) == 12
    for name, one in found.items():
        interval = int(name.partition("-")[2]) if name.startswith("interval") else 8
        assert one.semantic.anchor_interval == one.voice.anchor_interval == interval
        same_encoder = one.semantic.sot, one.semantic.train
        assert (
            same_encoder == (found["numeric"].semantic.sot, found["numeric"].semantic.train)
        ) is (name != "without-sot")
    assert found["numeric"].llm.name != "egs/mini/pretrained/llm"
    if own.exists():  # its LLM has learnt with numeric anchors: variants begin with another
        begin = load_config(own, variant=conf / "ablations/llm.yaml")
        assert begin.llm.name == "egs/mini/pretrained/llm"
        assert begin.prompt.anchors == "none"
        assert begin.drop.voice == 0.5


def test_tables_without_an_experiment_have_dashes(root: Path, tmp_path: Path) -> None:
    tables = read_tables(root / "local/ablations/tables.yaml", "encoders")
    results = tmp_path / "RESULTS.md"
    write_tables(tables, 2, tmp_path / "none", results, "the command")
    once = results.read_text()
    assert "`the command`: not run yet." in once
    assert "| one encoder (SOT), one stream | 0 | - | 30.94 |" in once
    write_tables(tables, 2, tmp_path / "none", results, "the command")
    assert results.read_text() == once
    results.write_text(once.replace("<!-- ablations:encoders:end -->", ""))
    with pytest.raises(InputError, match=r"RESULTS\.md: has .*encoders:begin.* no "):
        write_tables(tables, 2, tmp_path / "none", results, "the command")


def test_what_the_tables_lack_is_named(root: Path) -> None:
    with pytest.raises(
        InputError, match=r"--table dreams: must be one of encoders, anchor_form, anchor_"
    ):
        read_tables(root / "local/ablations/tables.yaml", "dreams")


def test_spread() -> None:
    assert spread([]) == spread([None]) == "-"
    assert spread([0.25]) == "25.0"
    assert spread([0.25, None, 0.35]) == "30.0 (25.0-35.0)"

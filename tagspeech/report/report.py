"""Reports a run (`tagspeech report`): results.json, tables, three examples and the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagspeech import formats
from tagspeech.files import read_json, write_json
from tagspeech.report.examples import read_scores, render_examples
from tagspeech.report.table import render_table, results


def report(
    scores_path: str | Path,
    ref_path: str | Path,
    hyp_path: str | Path,
    recipe: str,
    commit: str,
    seconds: Mapping[str, float],
    output: str | Path,
    scores_voice_path: str | Path | None = None,
    places: Path | None = None,
    page: str | Path | None = None,
    **page_options: Any,
) -> dict[str, Any]:
    """Writes results.json to `output` and prints the tables and three examples.

    Args:
        scores_path: Scores with the speakers of the LLM.
        ref_path: The reference.
        hyp_path: The hypothesis with the speakers of the LLM, for examples and page.
        recipe: The name of the recipe.
        commit: The commit of the code.
        seconds: Duration of each stage.
        output: Path of results.json.
        scores_voice_path: Scores with speakers assigned by voice; None: not scored.
        places: The file of `decode` that lists where it computed.
        page: Path of the page; None: no page.
        page_options: Further arguments of `write_page`.
    """
    scores = {"test": read_scores(scores_path)}
    if scores_voice_path is not None:
        scores["test_voice"] = read_scores(scores_voice_path)
    content = results(scores, recipe, commit, seconds)
    if places is not None:
        content["computed_on"] = read_json(places)
    write_json(output, content)
    print(render_table(content, scores), end="\n\n")
    ref, hyp = formats.read(ref_path), formats.read(hyp_path)
    print(render_examples(ref, hyp, scores["test"]["sessions"]))
    if page is not None:
        from tagspeech.report.page import write_page

        write_page(page, f"{recipe} at {commit}", scores, ref, hyp, **page_options)
    return content

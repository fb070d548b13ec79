"""Behind `tagspeech report`: results.json, the tables, three examples and the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagspeech import formats
from tagspeech.files import write_json
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
    page: str | Path | None = None,
    **page_options: Any,
) -> dict[str, Any]:
    """`tagspeech report`: writes results.json to `output`, prints the tables and three examples.

    The examples are those of `scores_path` and `hyp_path`, with the speakers that the LLM wrote; so
    are the sessions of `page`, written where it is named with the options of `write_page`.
    """
    scores = {"test": read_scores(scores_path)}
    if scores_voice_path is not None:
        scores["test_voice"] = read_scores(scores_voice_path)
    content = results(scores, recipe, commit, seconds)
    write_json(output, content)
    print(render_table(content, scores), end="\n\n")
    ref, hyp = formats.read(ref_path), formats.read(hyp_path)
    print(render_examples(ref, hyp, scores["test"]["sessions"]))
    if page is not None:
        from tagspeech.report.page import write_page  # needs the tables above

        write_page(page, f"{recipe} at {commit}", scores, ref, hyp, **page_options)
    return content

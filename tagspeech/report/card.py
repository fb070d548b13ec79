"""The card of a model: its README.md, filled from what a recipe has measured."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData, model_info
from huggingface_hub.errors import HTTPError

from tagspeech.config import Config
from tagspeech.errors import InputError
from tagspeech.files import read_json
from tagspeech.report.examples import percent
from tagspeech.report.table import TITLES

log = logging.getLogger(__name__)

RATES = {"wer": "WER", "cpwer": "cpWER", "tcpwer": "tcpWER", "der": "DER, collar 0"}
UNKNOWN = "not known: ask its publisher"


@dataclass(frozen=True)
class CardFacts:
    """What the card of a model says and its configuration does not know.

    Attributes:
        licence: Of the model, as the Hub names it, such as apache-2.0.
        experiment: The folder of a recipe with results.json, meetings/results.json and parts.json;
            None: a card without figures.
        data: The corpus, for people; empty: the name of the recipe.
        command: The command that trained the model; empty: that of the recipe.
        part_licences: The licences of pretrained parts by their names in parts.json, such as llm;
            those of parts on the Hub are looked up.
        offline: Nothing is looked up.
    """

    licence: str
    experiment: Path | None = None
    data: str = ""
    command: str = ""
    part_licences: Mapping[str, str] = field(default_factory=dict)
    offline: bool = False


def model_card(name: str, config: Config, facts: CardFacts) -> str:
    """The card of a model, with the metadata that the Hub reads at its head.

    Args:
        name: Of the model, such as ORG/NAME.
        config: Of the model.
        facts: What else it says.

    Raises:
        InputError: The experiment has no results.json, or a licence is given for a part that the
            experiment does not have.
    """
    results, meetings, parts = _measured(facts.experiment)
    unknown = set(facts.part_licences) - set(parts)
    if unknown:
        raise InputError(
            f"licence of {', '.join(sorted(unknown))}: must be of one of the parts "
            f"{', '.join(parts) or 'of an experiment, which is missing'}"
        )
    recipe = str(results.get("recipe", ""))
    figures = {**results, **{f"meetings {key}": value for key, value in meetings.items()}}
    data = ModelCardData(
        license=facts.licence,
        language=config.language,
        library_name="tagspeech",
        pipeline_tag="automatic-speech-recognition",
        tags=["speaker-diarization", "meetings"],
        model_name=name,
        eval_results=_evaluations(recipe, results) or None,
    )
    sections = [
        f"---\n{data.to_yaml()}\n---\n\n# {name}",
        "Transcribes conversations: who spoke, when, and what they said (TagSpeech, "
        "[arXiv 2601.06896](https://arxiv.org/abs/2601.06896)).",
        "```python\nfrom tagspeech import TagSpeech\n\n"
        f'model = TagSpeech.from_pretrained("{name}")\n'
        'segments = model.transcribe(["meeting.wav"])[0]\n```',
        f"## Data\n\n{facts.data or (f'The recipe `{recipe}`.' if recipe else 'Not stated.')}",
        f"## Figures\n\n{_figures(recipe, results, figures)}",
        f"## Training\n\n{_training(config, facts, recipe, results)}",
        f"## Licences\n\nThis model: {facts.licence}.\n\n{_licences(parts, facts)}",
    ]
    return "\n\n".join(sections) + "\n"


def _measured(experiment: Path | None) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """results.json, that of whole meetings, and parts.json; {} for what is missing."""
    if experiment is None:
        return {}, {}, {}
    paths = [experiment / name for name in ("results.json", "meetings/results.json", "parts.json")]
    if not paths[0].exists():
        raise InputError(f"{paths[0]}: is missing; stage 9 of the recipe writes it")
    results, meetings, parts = (read_json(path) if path.exists() else {} for path in paths)
    return results, meetings, parts


def _evaluations(recipe: str, results: Mapping[str, Any]) -> list[EvalResult]:
    """The figures of the test set, as the Hub lists them; in percent."""
    return [
        EvalResult(
            task_type="automatic-speech-recognition",
            dataset_type=recipe,
            dataset_name=f"{recipe}, test",
            metric_type=key,
            metric_name=name,
            metric_value=round(100 * results["test"][key], 2),
        )
        for key, name in RATES.items()
        if results and results["test"].get(key) is not None
    ]


def _figures(recipe: str, results: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """A table in percent: a row for each part of the scores."""
    if not results:
        return "Not measured."
    heads = ["", "sessions", *(f"{name} %" for name in RATES.values())]
    rows = [heads, ["---"] * len(heads)]
    for key, rates in figures.items():
        if isinstance(rates, dict) and "cpwer" in rates:
            kind = key.removeprefix("meetings ")
            title = TITLES.get(kind.removesuffix("_protocol"), kind)
            title += ", groups of the paper's lengths" if kind.endswith("_protocol") else ""
            values = [percent(rates.get(rate)) for rate in RATES]
            rows.append([title, str(rates["sessions"]), *values])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        f"On the test set of the recipe `{recipe}`, scored by `tagspeech score` at "
        f"commit {results['commit']}:\n\n{table}"
    )


def _training(config: Config, facts: CardFacts, recipe: str, results: Mapping[str, Any]) -> str:
    command = facts.command or (f"./run.sh --recipe {recipe}" if recipe else "")
    lines = [f"- LLM: {config.llm.name}, trained: {config.llm.trainable}"]
    if config.llm.lora.r:
        lines[0] += f", LoRA of rank {config.llm.lora.r}"
    anchors = config.semantic.anchor_interval
    lines.append(f"- an anchor after every {anchors} projected frames; `config.json` has the rest")
    if command:
        at = f" (commit {results['commit']})" if results else ""
        lines.insert(0, f"- command{at}: `{command}`")
    return "\n".join(lines)


def _licences(parts: Mapping[str, Any], facts: CardFacts) -> str:
    """A table of the pretrained parts that the model contains or was trained from."""
    if not parts:
        return "Pretrained parts are not recorded."
    rows = ["| part | name | commit | licence |", "| --- | --- | --- | --- |"]
    for name, part in parts.items():
        licence = facts.part_licences.get(name) or _licence_of(part, facts.offline)
        if licence is None:
            log.warning(
                "%s: the licence of %s is not known; give it: --part-licence %s=LICENCE",
                *(name, part["name"], name),
            )
        cells = (name, part["name"], part.get("commit") or "", licence or UNKNOWN)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _licence_of(part: Mapping[str, Any], offline: bool) -> str | None:
    """What the Hub says of a part with a commit there; None: unknown."""
    if offline or not part.get("commit"):
        return None
    try:
        card = model_info(part["name"], revision=part["commit"]).card_data
    except (OSError, ValueError, HTTPError) as error:
        log.warning("%s: its card cannot be read: %s", part["name"], str(error).split("\n")[0])
        return None
    licence: str | None = card.license if card is not None else None
    return licence

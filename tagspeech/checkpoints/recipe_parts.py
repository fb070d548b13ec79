"""The pretrained parts of a recipe: the options of run.sh and the configuration together."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tagspeech.checkpoints.starting_points import find_parts
from tagspeech.config import Config
from tagspeech.config_file import parse_yaml, to_tree
from tagspeech.errors import InputError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class GivenParts:
    """What the options of run.sh say of pretrained parts, before the configuration.

    Attributes:
        named: paths or names on the Hub, by their names in `parts`, and that of the LLM as `llm`.
        init_from: folder of a trained TagSpeech, which has all parts.
        from_scratch: whether no pretrained part is used.
        new_llm: folder of the LLM that stage 6 makes where none is named.
    """

    named: Mapping[str, str]
    init_from: Path | None = None
    from_scratch: bool = False
    new_llm: Path | None = None

    def overrides(self) -> list[str]:
        """What they change in a configuration, for `load_config`."""
        if self.from_scratch or self.init_from:
            return ["parts={}", "llm.name=''", "llm.revision=null", "llm.sha256=null"]
        trees: dict[str, Any] = {
            f"parts.{name}": {"name": value} for name, value in self.named.items() if name != "llm"
        }
        if "llm" in self.named:
            trees |= {"llm.name": self.named["llm"], "llm.revision": None, "llm.sha256": None}
        return [f"{key}={json.dumps(tree, ensure_ascii=False)}" for key, tree in trees.items()]


def recipe_parts(
    load: Callable[[Sequence[str]], Config],
    given: GivenParts,
    record: Path,
    *,
    offline: bool = False,
    search: bool = True,
) -> dict[str, str]:
    """What run.sh has to know of the pretrained parts of a recipe.

    Args:
        load: reads the configuration with overrides that the user's own come after.
        given: the options of run.sh.
        record: see `find_parts`.
        offline: see `find_parts`.
        search: false where no stage will read a part: nothing is looked for.

    Returns:
        Variables of run.sh: what `find_parts` gives by the names in `parts`; `new_llm`, "true"
        where stage 6 makes the LLM; `llm_folder`, where that of others is a folder here. And the
        values of the configuration, by key and as YAML, that it must have for all of this.

    Raises:
        InputError: see `find_parts`; for an `init_from` that is no model.
    """
    if given.named and (given.from_scratch or given.init_from):
        option = "--from-scratch" if given.from_scratch else f"--init-from {given.init_from}"
        log.warning("%s: other parts are not used: %s", option, ", ".join(given.named))
    config = load(given.overrides())
    answer: dict[str, str] = {}
    if given.overrides():
        answer = {
            "parts": json.dumps(to_tree(config.parts), ensure_ascii=False),
            "llm.name": config.llm.name,
            "llm.revision": config.llm.revision or "null",
            "llm.sha256": config.llm.sha256 or "null",
        }
    if given.init_from:
        if not (given.init_from / "config.json").is_file():
            raise InputError(
                f"--init-from {given.init_from}: is no folder of a TagSpeech (no config.json); "
                "a model of the Hub is downloaded first: hf download ORG/NAME --local-dir FOLDER"
            )
        answer |= dict.fromkeys(("semantic_encoder", "voice_encoder"), str(given.init_from))
    else:
        if search:
            answer |= find_parts(config, record, offline=offline)
        if not config.llm.name and given.new_llm:
            answer |= {"new_llm": "true", "llm.name": str(given.new_llm)}
        elif config.llm.name and Path(config.llm.name).is_dir():
            answer["llm_folder"] = config.llm.name
    return {key: _as_yaml(value) if key == "llm.name" else value for key, value in answer.items()}


def _as_yaml(text: str) -> str:
    """A text, in quotes where YAML would read something else."""
    try:
        return text if parse_yaml(text, "") == text else json.dumps(text, ensure_ascii=False)
    except InputError:
        return json.dumps(text, ensure_ascii=False)

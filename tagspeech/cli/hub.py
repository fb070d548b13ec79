"""The verb that uploads a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from tagspeech.cli.arguments import verb
from tagspeech.options import option


def _part_and_licence(text: str) -> tuple[str, str]:
    part, _, licence = text.partition("=")
    if not (part and licence):
        raise argparse.ArgumentTypeError(f"must be PART=LICENCE, got {text!r}")
    return part, licence


@verb("push")
class Push:
    """Uploads a model to the Hugging Face Hub, with a card filled from the results of a recipe."""

    model: str = option("folder of the model")
    to: str = option("ORG/NAME on the Hub; made if it is missing")
    licence: str = option("of the model, as the Hub names it, such as apache-2.0")
    experiment: Path | None = option(
        "folder of a recipe, with results.json and parts.json; without it, the card has no figures",
        None,
    )
    data: str = option("the corpus, for people", "", shown="the name of the recipe")
    command: str = option("what trained the model", "", shown="./run.sh --recipe NAME")
    part_licence: tuple[tuple[str, str], ...] = option(
        "licence of a pretrained part in parts.json; may be repeated; that of a part on the Hub is "
        "looked up",
        (),
        metavar="PART=LICENCE",
        parse=_part_and_licence,
        is_repeated=True,
    )
    private: bool = option("make a new repository private", False)
    revision: str | None = option("branch on the Hub", None, shown="the main branch")

    def run(self) -> None:
        from tagspeech.api import push
        from tagspeech.report.card import CardFacts

        licences = dict(self.part_licence)
        facts = CardFacts(self.licence, self.experiment, self.data, self.command, licences)
        push(self.model, self.to, facts, private=self.private, revision=self.revision)

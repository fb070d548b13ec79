"""The command `tagspeech`: parse, call one function, return. Nothing heavy is imported to parse."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from tagspeech.cli import ablations, corpus, meetings, results, training, transcribe
from tagspeech.errors import InputError

VERBS = (
    corpus.add_simulate,
    corpus.add_import,
    corpus.add_groups,
    training.add_parts,
    training.add_train,
    training.add_embed,
    training.add_new_llm,
    results.add_decode,
    results.add_merge_decoded,
    results.add_score,
    results.add_report,
    results.add_page,
    results.add_examples,
    results.add_plot,
    ablations.add_ablation_cells,
    ablations.add_ablation_tables,
    transcribe.add_transcribe,
    meetings.add_combine,
    meetings.add_meetings,
    corpus.add_convert,
    training.add_config,
    training.add_export,
    training.add_verify,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. Returns 0; 2 for what the user can mend, said in one line on stderr."""
    args = _parser().parse_args(argv)
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    try:
        args.run(args)
    except InputError as error:
        print(f"tagspeech {args.verb}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a missing permission
        print(f"tagspeech {args.verb}: {error}", file=sys.stderr)
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tagspeech", description="Who spoke what and when in a meeting recording."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in VERBS:
        add(verbs)
    return parser

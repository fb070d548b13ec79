"""Verbs of utils/ablations.sh."""

from __future__ import annotations

import argparse

from tagspeech.cli.arguments import add_path, add_verb, positive


def add_ablation_cells(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.report.ablations import cells, read_tables

        for cell in cells(read_tables(args.tables, args.table), args.seeds):
            print(*cell)

    summary = "Prints variant, seed and encoders of each experiment of the ablations."
    _add_tables(add_verb(verbs, "ablation-cells", summary, run))


def add_ablation_tables(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.report.ablations import read_tables, write_tables

        tables = read_tables(args.tables, args.table)
        write_tables(tables, args.seeds, args.exp, args.results, args.command)

    summary = "Fills the tables of the ablations with what is scored."
    parser = add_verb(verbs, "ablation-tables", summary, run)
    _add_tables(parser)
    add_path(parser, "exp", "folder of the experiments, VARIANT/seed-N")
    add_path(parser, "results", "Markdown file with the tables")
    parser.add_argument("--command", required=True, help="what to say the figures come from")


def _add_tables(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "tables", "local/ablations/tables.yaml")
    parser.add_argument("--table", default="all", metavar="NAME", help="one of them (default: all)")
    parser.add_argument("--seeds", type=positive, default=1, metavar="N", help="seeds 1 to N")

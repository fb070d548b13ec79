"""The command `tagspeech`: parse, call one function, return. Nothing heavy is imported to parse."""

from __future__ import annotations

import argparse
import inspect
import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from tagspeech.cli import corpus, hub, machine, results, serve, training, transcribe  # noqa: F401  # register verbs
from tagspeech.cli.arguments import VERBS, add_options, call, read, usage
from tagspeech.errors import InputError, one_line

GROUPS = {"export": "Writes a trained model, or parts of a model, for other programs."}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb.

    Returns:
        0; 2 for an error that the user can mend, 1 for one of the machine, such as a full disk;
        either is reported in one line on stderr.
    """
    args = _parser().parse_args(argv)
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    try:
        call(read(VERBS[args.verb_name], args))
    except (InputError, OSError) as error:
        print(f"tagspeech {args.verb_name}: {one_line(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Version(argparse.Action):
    """Prints the version of the installed package, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"tagspeech {version('tagspeech')}")
        except PackageNotFoundError:
            parser.error("the version is unknown: the package is not installed")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tagspeech",
        description="Transcribes meetings: who spoke what and when.",
        epilog="tagspeech VERB --help explains a verb.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    groups: dict[str, Any] = {}
    for name, cls in VERBS.items():
        *above, last = name.split()
        if above and above[0] not in groups:
            summary = GROUPS[above[0]]
            group = verbs.add_parser(above[0], help=summary, description=summary)
            groups[above[0]] = group.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
        text = inspect.cleandoc(cls.__doc__)
        made = (groups[above[0]] if above else verbs).add_parser(
            last,
            help=text.partition("\n")[0].replace("%", "%%"),
            description=text.replace("%", "%%"),
            formatter_class=argparse.RawDescriptionHelpFormatter
            if "\n" in text
            else argparse.HelpFormatter,
        )
        made.set_defaults(verb_name=name)
        made.add_argument("--verbose", action="store_true", help="log what is done (default: off)")
        made.usage = usage(made.prog, add_options(made, cls))
    return parser

"""Verbs that make corpora, groups and files of segments."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from tagspeech.cli.arguments import (
    add_configuration,
    add_path,
    add_subtitle_speakers,
    add_verb,
    config_of,
    count,
)


def add_simulate(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.simulation.simulate import SimulateConfig, simulate

        names = [field.name for field in dataclasses.fields(SimulateConfig)]
        config = SimulateConfig(**{name: getattr(args, name) for name in names})
        simulate(args.output, config, jobs=args.jobs)

    parser = add_verb(verbs, "simulate", "Writes simulated meetings with Lhotse manifests.", run)
    add_path(parser, "output", "folder of the corpus")
    parser.add_argument("--train-groups", type=int, default=12500)
    parser.add_argument("--dev-groups", type=int, default=200)
    parser.add_argument("--test-groups", type=int, default=400)
    parser.add_argument("--meetings", type=int, default=3, help="whole meetings")
    parser.add_argument("--meeting-minutes", type=float, default=5.0)
    parser.add_argument("--max-speakers", type=int, default=3, help="in an utterance group")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        *("--train-from",),
        choices=("train", "pretrain"),
        default="train",
        help="whose voices and sentences train has; pretrain shares none with other splits",
    )
    parser.add_argument(
        *("--overlap-share",),
        type=float,
        default=0.65,
        help="of the changes of speaker; 0.65 overlaps 14 %% of the speech, 0.5 11 %%",
    )
    parser.add_argument("--jobs", type=int, default=2)


IMPORT = """\
Makes Lhotse manifests of a corpus, as stage 2 of a recipe reads them:
OUTPUT/{train,dev,test}_{recordings,supervisions}.jsonl.gz

  --audio FOLDER --words PATH [--speakers PATH]
      Recording NAME is NAME.wav or NAME.flac anywhere in FOLDER. Words: STM,
      CTM, SegLST, TextGrid, or a JSON list of objects with speaker, start, end
      (seconds), text, perhaps gender and session, as WhisperX, VibeVoice and MOSS
      write it. PATH is one file, or a folder with files of one format; what names
      no session in it (a TextGrid, a JSON list without sessions) belongs to the
      recording with the file's name.
      Speakers: RTTM, in place of those that the words tell. A CTM needs it; each
      word goes to the turn that it overlaps most.
  --kaldi FOLDER
      wav.scp, text, utt2spk; segments, spk2gender, reco2file_and_channel where
      they exist. Commands in wav.scp are run once.

What is taken of several channels and the output of commands are written to
OUTPUT/audio; all other audio stays where it is. With --channel each, the channel
field of STM, CTM and RTTM says on which channel of ID a line is, where it is a
letter or its numbers differ within ID; else words name ID-ch0, ID-ch1, ...

What stops the import, all of one kind counted and the first named:
  - a recording without segments, segments without a recording (both are left
    out with --skip-unmatched)
  - audio that cannot be read, is empty or lacks the channel
  - a line that cannot be read, or whose times are negative or the wrong way
    round: the first such line only
What is listed in OUTPUT/rejected.jsonl, and stops the import where it is more
than --max-rejected:
  - a segment that starts behind the end of its recording, has zero duration or
    has no speaker
  - with --speakers, a word or segment at whose time nobody has a turn
  - an utterance that is not in all of segments, text and utt2spk
What is mended, with a warning: a segment that reaches past the end of its
recording ends with it.
"""


def add_import(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.corpus.importing import ImportConfig, import_corpus

        names = [field.name for field in dataclasses.fields(ImportConfig)]
        import_corpus(args.output, ImportConfig(**{name: getattr(args, name) for name in names}))

    parser = add_verb(verbs, "import", "Makes Lhotse manifests of your own corpus.", run)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = IMPORT
    add_path(parser, "output", "folder for the manifests")
    add_path(parser, "audio", "folder of WAV and FLAC files", required=False)
    add_path(parser, "words", "file or folder: who spoke what and when", required=False)
    add_path(parser, "speakers", "RTTM, file or folder: who spoke when", required=False)
    add_path(parser, "kaldi", "Kaldi data directory", required=False)
    parser.add_argument(
        *("--wav-root",),
        type=Path,
        default=Path(),
        metavar="PATH",
        help="what relative paths in wav.scp are relative to (default: the current folder)",
    )
    add_path(parser, "genders", "lines of a speaker and m or f, as in spk2gender", required=False)
    parser.add_argument(
        *("--local-speakers",),
        action="store_true",
        help="the same name is somebody else in another recording, as A and B often are",
    )
    parser.add_argument(
        *("--channel",),
        type=channel,
        metavar="mix|each|N",
        help="of audio that has several: mix: their mean; each: all, as recordings ID-ch0, ID-ch1, "
        "...; N: that one, from 0 (default: the mix of two, the first of more)",
    )
    _add_splitting(parser)
    parser.add_argument("--skip-unmatched", action="store_true", help="see above")
    parser.add_argument(
        *("--max-rejected",),
        type=float,
        default=0.1,
        metavar="SHARE",
        help="largest share of segments that may be rejected (default: 0.1)",
    )


def _add_splitting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        *("--split-by",),
        choices=("folder", "lists", "shares"),
        default="folder",
        help="folder (default): the folders train, dev and test in --audio or --kaldi; lists: see "
        "--lists; shares: see --shares. Recordings stay whole",
    )
    add_path(parser, "lists", "folder of train.txt, dev.txt, test.txt: recordings", required=False)
    parser.add_argument(
        *("--shares",),
        type=shares,
        default=(0.8, 0.1, 0.1),
        metavar="TRAIN,DEV,TEST",
        help="of the number of recordings, drawn with --seed (default: 0.8,0.1,0.1)",
    )
    parser.add_argument("--seed", type=count, default=1)


def channel(text: str) -> int | str:
    """mix, each, or the number of a channel."""
    if text not in ("mix", "each") and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be mix, each or a number from 0, got {text!r}")
    return int(text) if text.isdecimal() else text


def shares(text: str) -> tuple[float, ...]:
    """Fractions, separated by commas."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"wants three numbers: 0.8,0.1,0.1; not {text!r}"
        ) from error


def add_groups(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.corpus.groups import make_groups

        make_groups(
            args.manifests,
            args.output,
            rejected=args.rejected,
            splits=args.splits.split(),
            max_pause=args.max_pause,
            language=config_of(args).language,
            left_out=args.left_out,
            max_rejected=args.max_rejected,
        )

    parser = add_verb(verbs, "groups", "Cuts recordings into utterance groups.", run)
    add_configuration(parser)
    add_path(
        parser, "manifests", "folder of SPLIT_recordings.jsonl.gz and SPLIT_supervisions.jsonl.gz"
    )
    add_path(parser, "output", "folder for SPLIT.jsonl.gz")
    add_path(parser, "rejected", "list of what cannot be used, with reasons; a table beside it")
    add_path(parser, "left-out", "the same list of what the manifests lack", required=False)
    parser.add_argument(
        *("--max-rejected",),
        type=float,
        default=0.1,
        metavar="SHARE",
        help="largest share of the seconds of speech that may be listed (default: 0.1)",
    )
    parser.add_argument("--splits", default="train dev test", help="names, separated by spaces")
    parser.add_argument("--max-pause", type=float, default=0.0, help="seconds within a group")


def add_convert(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.formats.convert import convert

        convert(
            *(args.files, args.format.split(","), args.output),
            subtitle_speakers=args.subtitle_speakers,
        )

    parser = add_verb(verbs, "convert", "Turns one format of segments into another.", run)
    parser.add_argument("--format", required=True, help="formats, separated by commas")
    add_path(parser, "output", "folder; without it the first format goes to stdout", required=False)
    add_subtitle_speakers(parser)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")

"""Verbs that make corpora and utterance groups, and convert files of segments."""

from __future__ import annotations

from pathlib import Path

from tagspeech.cli.arguments import ConfigOptions, SubtitleOptions, TranscriptOptions, verb
from tagspeech.options import ImportConfig, SimulateOptions, argument, group, option
from tagspeech.ranges import NonNegative, Processes, Share

FORMATS = "formats, separated by commas: seglst, rttm, stm, ctm, srt, vtt, ass, textgrid, tagged"
COMMANDS = "run the commands that recordings of a manifest come from, each once; check them first"


@verb("simulate")
class Simulate:
    """Writes simulated meetings with Lhotse manifests."""

    output: Path = option("folder of the corpus")
    jobs: Processes = option("processes that share the work", 2)
    sizes: SimulateOptions = group("sizes")

    def run(self) -> None:
        from tagspeech.simulation.simulate import SimulateConfig, simulate

        simulate(self.output, SimulateConfig(**vars(self.sizes)), jobs=self.jobs)


@verb("import", "tagspeech.corpus.importing.import_corpus")
class Import:
    """Makes Lhotse manifests of your corpus.

    Stage 2 of a recipe reads OUTPUT/{train,dev,test}_{recordings,supervisions}.jsonl.gz.

      --audio FOLDER --words PATH [--speakers PATH]
          Recording NAME is NAME.wav or NAME.flac anywhere in FOLDER. Words: STM, CTM,
          SegLST, TextGrid, or a JSON list of objects with speaker, start, end (seconds),
          text, and optionally gender and session, as WhisperX, VibeVoice and MOSS write it.
          PATH is a file, or a folder of files in one format. What names no session (a
          TextGrid, a JSON list without sessions) belongs to the recording with the name of
          the file. Speakers: RTTM; it replaces the speakers of the words. A CTM needs it:
          each word belongs to the turn that it overlaps most.
      --kaldi FOLDER
          wav.scp, text, utt2spk, and if present segments, spk2gender, reco2file_and_channel.
          Commands in wav.scp are run once.

    Extracted channels and the output of commands are written to OUTPUT/audio; all other
    audio stays in place. With --channel each, the channel field of STM, CTM and RTTM names
    the channel of ID if it is a letter or has several numbers within ID; otherwise words
    name ID-ch0, ID-ch1, ...

    Errors that stop the import, counted by kind, with the first example:
      - a recording without segments, or segments without a recording (--skip-unmatched
        leaves both out)
      - audio that cannot be read, is empty or lacks the channel
      - a line that cannot be read, or has negative or reversed times: only the first line
    Segments listed in OUTPUT/rejected.jsonl; more than --max-rejected stop the import:
      - a segment that starts after the end of its recording, has zero duration or no speaker
      - with --speakers, a word or segment during which nobody has a turn
      - an utterance that is missing in segments, text or utt2spk
    Corrected with a warning: a segment that exceeds its recording ends with the recording.
    """

    output: Path = option("folder for the manifests")
    config: ImportConfig = group("corpus")


@verb("groups")
class Groups(ConfigOptions):
    """Cuts recordings into utterance groups."""

    manifests: Path = option("folder of SPLIT_{recordings,supervisions}.jsonl.gz")
    output: Path = option("folder for SPLIT.jsonl.gz")
    rejected: Path = option("list of segments that cannot be used, with reasons; a table beside it")
    left_out: Path | None = option("the same list of what the manifests lack", None)
    max_rejected: Share = option("largest share of the seconds of speech that may be listed", 0.1)
    splits: tuple[str, ...] = option("names of splits", ("train", "dev", "test"))
    max_pause: NonNegative = option("seconds without speech within a group", 0.0)
    allow_commands: bool = option(COMMANDS, False)

    def run(self) -> None:
        from tagspeech.corpus.groups import make_groups

        values = {name: vars(self)[name] for name in Groups.__annotations__}
        make_groups(**values, language=self.load().language)


@verb("convert")
class Convert(SubtitleOptions, TranscriptOptions):
    """Converts files of segments to other formats."""

    paths: tuple[Path, ...] = argument("files of segments", metavar="FILE")
    formats: tuple[str, ...] = option(FORMATS, flag="--format")
    output_dir: Path | None = option(
        "folder", None, flag="--output", shown="the first format goes to stdout"
    )

    def run(self) -> None:
        from tagspeech.formats.convert import convert

        inputs = (self.paths, self.formats, self.output_dir)
        convert(
            *inputs,
            subtitle_speakers=self.subtitle_speakers,
            names=self.names,
            readable=not self.exact_subtitles,
        )


@verb("combine", "tagspeech.scoring.combine.combine_files")
class Combine:
    """Combines several views of the same meetings: speakers by DOVER-Lap, words by time."""

    views: tuple[Path, ...] = argument(
        "files or folders of segments, each of a channel, a model, or a shift of the windows"
    )
    output: Path = option("file of segments; its extension names the format")
    session: str | None = option("session of views that name the same meeting differently", None)

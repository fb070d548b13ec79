"""The formats word by word: what is written, what others write, errors, and `convert`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import meeteval.io
import pytest
from lhotse import SupervisionSet

from tagspeech.errors import InputError
from tagspeech.files import read_text
from tagspeech.formats import EXTENSIONS, FORMATS, read, render, split_name, write
from tagspeech.formats.convert import convert
from tagspeech.segments import Segment, by_time
from tagspeech.serialize import UNKNOWN_SPEAKER

TWO = [
    Segment("talk", "2", 2.9, 5.205, 'r & d costs < 5 > 3 "x"', "f"),
    Segment("talk", "1", 0.35, 3.14, "我们 okay", "m"),
    Segment("talk", "1", 3661.5, 3662.0, "", "m"),
]
ONE_SESSION = ("srt", "vtt", "textgrid", "tagged")


def test_the_texts(tmp_path: Path) -> None:
    assert render(TWO, "rttm") == (
        "SPEAKER talk 1 0.350 2.790 <NA> <NA> 1 <NA> <NA>\n"
        "SPEAKER talk 1 2.900 2.305 <NA> <NA> 2 <NA> <NA>\n"
        "SPEAKER talk 1 3661.500 0.500 <NA> <NA> 1 <NA> <NA>\n"
    )
    assert render(TWO, "stm") == (
        "talk 1 1 0.350 3.140 我们 okay\n"
        'talk 1 2 2.900 5.205 r & d costs < 5 > 3 "x"\n'
        "talk 1 1 3661.500 3662.000\n"
    )
    assert render(TWO, "srt") == (
        "1\n00:00:00,350 --> 00:00:03,140\n1: 我们 okay\n\n"
        '2\n00:00:02,900 --> 00:00:05,205\n2: r & d costs < 5 > 3 "x"\n\n'
        "3\n01:01:01,500 --> 01:01:02,000\n1:\n"
    )
    assert render(TWO, "vtt") == (
        "WEBVTT\n\n00:00:00.350 --> 00:00:03.140\n<v 1>我们 okay\n\n"
        '00:00:02.900 --> 00:00:05.205\n<v 2>r &amp; d costs &lt; 5 &gt; 3 "x"\n\n'
        "01:01:01.500 --> 01:01:02.000\n<v 1>\n"
    )
    assert render(TWO[:1], "ctm").split("\n")[:3] == [
        ";; word_times: estimated (each segment's time spread over its characters)",
        "talk 1 2.900 0.153 r",
        "talk 1 3.053 0.154 &",
    ]


def test_textgrid_tiers() -> None:
    rows = [
        Segment("s", "A", 0.5, 2.0, 'says "hi"'),
        Segment("s", "A", 1.0, 3.0, "over himself"),
        Segment("s", "B", 0.0, 1.0, ""),
    ]
    text = render(rows, "textgrid")
    assert text.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\n')
    names = [line.strip() for line in text.split("\n") if "name =" in line]
    assert names == ['name = "B"', 'name = "A"', 'name = "A (2)"']
    assert 'text = "says ""hi"""\n' in text
    sizes = [line.strip() for line in text.split("\n") if "intervals: size" in line]
    assert sizes == [f"intervals: size = {count}" for count in (2, 3, 2)]  # with the silence
    assert text.count("xmax = 3.000\n") == 1 + 3 + 3  # of the grid, the tiers, their ends


def test_textgrid_of_others(tmp_path: Path) -> None:
    short = tmp_path / "short.TextGrid"
    short.write_text(
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n3\n<exists>\n2\n'
        '"IntervalTier"\n"A"\n0\n3\n2\n0\n1.5\n"hi ""there"""\n1.5\n3\n""\n'
        '"TextTier"\n"clicks"\n0\n3\n1\n0.7\n"click"\n',
        encoding="utf-8",
    )
    assert read(short) == [Segment("short", "A", 0, 1.5, 'hi "there"')]


def test_subtitles_of_others(tmp_path: Path) -> None:
    vtt = tmp_path / "a.vtt"
    vtt.write_text(
        "WEBVTT - a title\n\nNOTE\nnothing --> here\n\nSTYLE\n::cue { color: red }\n\n"
        "intro\n00:01.000 --> 00:02.500 align:start\n<i>no voice</i> &amp; so\n\n"
        "01:00:00.000 --> 01:00:01.000\n<v.loud Ann Lee>one</v>\n<v Bob>two</v>\n",
        encoding="utf-8",
    )
    assert read(vtt, session="s") == [
        Segment("s", UNKNOWN_SPEAKER, 1.0, 2.5, "no voice & so"),
        Segment("s", "Ann Lee", 3600.0, 3601.0, "one"),
        Segment("s", "Bob", 3600.0, 3601.0, "two"),
    ]
    srt = tmp_path / "a.srt"
    srt.write_bytes(
        "\ufeff1\r\n00:00:01,000 --> 00:00:02,000\r\nnobody\r\nknown\r\n\r\n\r\n"
        "2\r\n00:00:02,000 --> 00:00:03,000\r\nAnn: hi: there\r\n".encode()
    )
    # One of two subtitles has a prefix: too few to tell, so that the option decides.
    assert read(srt, subtitle_speakers="prefix") == [
        Segment("a", UNKNOWN_SPEAKER, 1.0, 2.0, "nobody known"),
        Segment("a", "Ann", 2.0, 3.0, "hi: there"),
    ]


def test_line_formats_of_others(tmp_path: Path) -> None:
    rttm = tmp_path / "a.rttm"
    rttm.write_text(
        "; a comment\nSPKR-INFO talk 1 <NA> <NA> <NA> unknown A <NA>\n\n"
        "SPEAKER talk 1 1.00 2.50 <NA> <NA> 50%_off <NA>\n"
    )
    assert read(rttm) == [Segment("talk", "50%_off", 1.0, 3.5, "")]
    seglst = tmp_path / "a.json"
    seglst.write_text('[{"start_time": "1.5", "end_time": 2, "speaker": 3, "words": "a  b"}]')
    assert read(seglst) == [Segment("a", "3", 1.5, 2.0, "a b")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.rttm", "SPEAKER a 1 0 1\n", "line 1: RTTM must have 9 or 10 fields"),
        (
            "a.rttm",
            "\nSPEAKER a 1 0 x <NA> <NA> b <NA>\n",
            "line 2: times must be seconds, got 0 and x",
        ),
        (
            "a.stm",
            "a 1 b 2.0 1.0 w\n",
            "line 1: segment 2.0-1.0 of session 'a': must have 0 <= start",
        ),
        (
            "a.stm",
            "a 1 b\n",
            "line 1: STM must have session, channel, speaker, start, end, words, got 3",
        ),
        ("a.ctm", "a 1 0 1\n", "confidence, got 4 fields"),
        ("a.srt", "1\n00:00:01 --> 00:00:02,000\nx\n", "line 2: '00:00:01 --> 00:00:02,000'"),
        ("a.vtt", "hello\n", "line 1: must begin with WEBVTT"),
        ("a.TextGrid", "hello\n", "ends where a text must follow"),
        ("a.TextGrid", '"ooTextFile" "TextGrid"\n0 "x"', "line 2: must be a number"),
        (
            "a.seglst.json",
            "[\n{]",
            "is not JSON: Expecting property name enclosed in double quotes: line 2",
        ),
        ("a.seglst.json", "{}", "must be a JSON list"),
        ("a.seglst.json", '[{"start_time": 0}]', "entry 1: end_time must be seconds, got None"),
        ("a.seglst.json", "[3]", "entry 1: must be an object"),
        (
            "a.seglst.json",
            '[{"start_time": 0, "end_time": 1, "gender": "male"}]',
            "entry 1: gender must be one of m, f, u, got 'male'",
        ),
        ("a.txt", "Once upon a time", "is no target text"),
        ("a.wav", "RIFF", "its extension names no format"),
    ],
)
def test_errors_name_file_and_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.rttm: No such file"):
        read(tmp_path / "none.rttm")


@pytest.mark.parametrize("format", FORMATS)
def test_sessions(format: str, tmp_path: Path) -> None:
    rows = [replace(row, session=session) for session in ("b", "a") for row in TWO]
    if format in ONE_SESSION:
        with pytest.raises(InputError, match=f"{format} holds one session, not 2"):
            render(rows, format)
    else:
        path = tmp_path / f"x.{EXTENSIONS[format]}"
        write(rows, path)
        assert {row.session for row in read(path)} == {"a", "b"}


def test_names_without_a_character() -> None:
    for format in ("rttm", "stm"):
        with pytest.raises(InputError, match=rf"{format} must have a name.*got an empty name"):
            render([Segment("s", "", 0, 1, "x")], format)


def test_too_short_to_print_is_a_millisecond() -> None:
    assert "00:00:01,000 --> 00:00:01,001" in render([Segment("s", "A", 1.0, 1.0001, "x")], "srt")


def test_a_malformed_target_text_is_read_with_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("<text>\n0.00-1.00>hello\n")
    assert read(path) == [Segment("a", UNKNOWN_SPEAKER, 0, 1, "hello")]
    assert "a.txt: it ends before </speaker>" in caplog.text


def test_libraries_read_ours(tmp_path: Path) -> None:
    rows = [replace(row, speaker=f"spk {row.speaker}") for row in by_time(TWO)]
    for format in ("seglst", "rttm", "stm", "ctm"):
        write(rows, tmp_path / f"talk.{EXTENSIONS[format]}")
    # SegLST.load wants simplejson, which meeteval does not bring along; the rest is the same.
    seglst = meeteval.io.asseglst(json.loads(read_text(tmp_path / "talk.seglst.json")))
    for row, entry in zip(rows, seglst, strict=True):
        assert (entry["session_id"], entry["speaker"]) == (row.session, row.speaker)
        assert entry["words"] == row.words
        assert (entry["start_time"], entry["end_time"]) == (row.start, row.end)
    stm = meeteval.io.STM.load(tmp_path / "talk.stm")
    assert [line.transcript for line in stm] == [row.words for row in rows]
    assert [float(line.end_time) for line in stm] == [row.end for row in rows]
    rttm = meeteval.io.RTTM.load(tmp_path / "talk.rttm")
    assert [line.speaker_id for line in rttm] == ["spk%201", "spk%202", "spk%201"]
    ctm = meeteval.io.CTM.load(tmp_path / "talk.ctm")
    assert [line.word for line in ctm][:3] == ["我们", "okay", "r"]
    supervisions = list(SupervisionSet.from_rttm(tmp_path / "talk.rttm"))
    assert [(item.start, item.end) for item in supervisions] == [(r.start, r.end) for r in rows]
    assert {item.recording_id for item in supervisions} == {"talk"}


@pytest.mark.parametrize("format", FORMATS)
def test_names_of_files(format: str) -> None:
    assert split_name(f"dir/a.b.{EXTENSIONS[format]}") == ("a.b", format)
    assert split_name(f"a.{EXTENSIONS[format].upper()}") == ("a", format)
    assert split_name("a.b.wav") == ("a.b", None)


def test_convert_to_all(tmp_path: Path) -> None:
    source = tmp_path / "talk.seglst.json"
    write(TWO, source)
    formats = [format for format in FORMATS if format != "seglst"]
    written = convert([source], formats, tmp_path)
    assert written == [tmp_path / f"talk.{EXTENSIONS[format]}" for format in formats]
    for path, format in zip(written, formats, strict=True):
        assert read_text(path) == render(TWO, format)


def test_convert_to_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        rows = [replace(row, session=name) for row in TWO]
        write(rows, tmp_path / f"{name}.stm")
    paths = [tmp_path / "a.stm", tmp_path / "b.stm"]
    assert convert(paths, ["rttm", "srt"]) == []
    assert capsys.readouterr().out.count("SPEAKER") == 6


def test_convert_refuses_before_it_works(tmp_path: Path) -> None:
    write(TWO, tmp_path / "a.stm")
    write(TWO, tmp_path / "a.rttm")
    out = tmp_path / "out"
    refused = [
        ([tmp_path / "a.stm", tmp_path / "a.rttm"], ["srt"], out, "both be written to"),
        ([tmp_path / "a.stm"], ["stm", "srt"], tmp_path, "an input and would be overwritten"),
        ([tmp_path / "a.stm"], ["srt", "mp3"], out, "format: must be one of seglst.*got 'mp3'"),
        ([], ["srt"], out, "at least one"),
        ([tmp_path / "a.stm"], [], None, "at least one"),
        ([tmp_path / "a.stm", tmp_path / "b.stm"], ["srt"], out, "b.stm"),
    ]
    for paths, formats, folder, message in refused:
        with pytest.raises(InputError, match=message):
            convert(paths, formats, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.rttm", "a.stm"]

"""Files as people and other tools write them: the right value, or one line that says what to do."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tagspeech.errors import InputError
from tagspeech.formats import read, render, split_name
from tagspeech.formats.convert import convert
from tagspeech.report.page import write_page_of
from tagspeech.scoring import score
from tagspeech.scoring.files import read_sides, score_files
from tagspeech.segments import Segment

RATES = ("wer", "cpwer", "tcpwer", "orcwer")


def put(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def overall(ref: Path, hyp: Path, **options: Any) -> dict[str, Any]:
    scores: dict[str, Any] = score_files(ref, hyp, **options)["overall"]
    return scores


def errors(ref: Path, hyp: Path, **options: Any) -> set[tuple[int, int]]:
    """Errors and words of all word error rates, which are one pair where they agree."""
    scores = overall(ref, hyp, **options)
    return {(scores[rate]["errors"], scores[rate]["length"]) for rate in RATES}


def spoken(path: Path, **options: str) -> list[tuple[str, str]]:
    """Speakers and words."""
    return [(one.speaker, one.words) for one in read(path, **options)]


def refusal(folder: Path, name: str, text: str | bytes) -> str:
    path = put(folder, name, text)
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def srt(*texts: str) -> str:
    return "".join(
        f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{text}\n\n" for n, text in enumerate(texts, 1)
    )


def vtt(*texts: str) -> str:
    cues = (f"00:0{n}.000 --> 00:0{n}.900\n{text}\n" for n, text in enumerate(texts, 1))
    return "\n".join(["WEBVTT\n", *cues])


# STM


def test_labels_of_an_stm_are_no_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ref = put(
        tmp_path,
        "ref.stm",
        ';; LABEL "R2" "Room 2" ""\n'
        "talk 1 anna 0.0 3.0 <o,f0,female> we start with the plan\n"
        "talk 1 inter_segment_gap 3.0 3.2 <o,,unknown> ignore_time_segment_in_scoring\n"
        "talk 1 bert 3.2 6.0 <O,en,M,en-M> the plan is short\n"
        "talk 1 excluded_region 6.0 7.0 IGNORE_TIME_SEGMENT_IN_SCORING\n"
        "talk 1 carl 7.0 8.0 <r2> <laughs> <o,f0,male> no\n"
        "talk 1 dora 8.0 9.0 <F0_F> well\n",
    )
    assert [(one.speaker, one.gender, one.words) for one in read(ref)] == [
        ("anna", "f", "we start with the plan"),
        ("bert", "m", "the plan is short"),
        ("carl", "u", "<laughs> <o,f0,male> no"),
        ("dora", "f", "well"),
    ]
    assert (
        f"{ref}, line 3: dropped 2 segments (1.20 s) marked ignore_time_segment_in_scoring"
        in caplog.text
    )
    hyp = put(
        tmp_path,
        "hyp.stm",
        "talk 1 a 0.1 2.9 we start with the plan\ntalk 1 b 3.2 5.9 the plan is short\n"
        "talk 1 c 7 8 laughs o f0 male no\ntalk 1 d 8 9 well\n",
    )
    assert errors(ref, hyp) == {(0, 15)}
    assert render(read(ref), "stm").count("<") == 2


def test_words_that_look_like_a_label_are_written_behind_one(tmp_path: Path) -> None:
    row = Segment("s", "A", 0, 1, "<o,f0,female> is a label")
    path = put(tmp_path, "s.stm", render([row], "stm"))
    assert read(path) == [row]


# Speakers in subtitles


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (  # WhisperX
            ["[SPEAKER_00]: shall we start", "[SPEAKER_01]: yes at 10:30: the budget"],
            [("SPEAKER_00", "shall we start"), ("SPEAKER_01", "yes at 10:30: the budget")],
        ),
        (  # conferencing tools; who does not speak by name is nobody
            ["Anna-Maria de Vries: hi", "Kim: <i>yes</i>", "Kim: note: this", "applause"],
            [
                ("Anna-Maria de Vries", "hi"),
                ("Kim", "yes"),
                ("Kim", "note: this"),
                ("?", "applause"),
            ],
        ),
        (["dana: hi", "dana: so", "kim: yes"], [("dana", "hi"), ("dana", "so"), ("kim", "yes")]),
        (["张三：你好", "李四：开会 10：30"], [("张三", "你好"), ("李四", "开会 10：30")]),
        (["[S01] hi", "[S02] yes [laughs]"], [("S01", "hi"), ("S02", "yes [laughs]")]),
        (["(Speaker 1) hi", "(Speaker 2) yes"], [("Speaker 1", "hi"), ("Speaker 2", "yes")]),
        (["- Ann: hi\n- Kim: yes", "Kim: so"], [("Ann", "hi"), ("Kim", "yes"), ("Kim", "so")]),
        (  # prose with colons
            ["the train leaves at 10:30", "one thing is clear: we are late", "remember: now"],
            [
                ("?", "the train leaves at 10:30"),
                ("?", "one thing is clear: we are late"),
                ("?", "remember: now"),
            ],
        ),
        (["one thing is clear: we are late"], [("?", "one thing is clear: we are late")]),
        (
            ["[Music]", "hello", "[Applause]"],
            [("?", "[Music]"), ("?", "hello"), ("?", "[Applause]")],
        ),
        (["{\\an8}up <b>there</b><br>a < b"], [("?", "up there a < b")]),
        (["R&amp;D <font color='#fff'>now</font>"], [("?", "R&D now")]),
    ],
)
def test_a_prefix_is_a_speaker_where_the_file_uses_it_so(
    texts: list[str], expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    assert spoken(put(tmp_path, "a.srt", srt(*texts))) == expected
    assert spoken(put(tmp_path, "a.vtt", vtt(*texts))) == expected


def test_voices_decide_where_a_file_has_them(tmp_path: Path) -> None:
    texts = ("<v Ann>now: go</v>", "kim: yes", "<v.loud Kim Lee>so</v><v Ann>no")
    expected = [("Ann", "now: go"), ("?", "kim: yes"), ("Kim Lee", "so"), ("Ann", "no")]
    assert spoken(put(tmp_path, "a.vtt", vtt(*texts))) == expected
    assert spoken(put(tmp_path, "a.srt", srt(*texts))) == expected
    expected[1] = ("kim", "yes")
    assert spoken(tmp_path / "a.vtt", subtitle_speakers="prefix") == expected


def test_an_option_of_all_verbs_forces_either(tmp_path: Path, caplog: Any) -> None:
    path = put(tmp_path, "a.srt", srt("hello there", "ready everyone", "note: go"))
    ref = put(tmp_path, "ref.stm", "a 1 x 1 1.9 hello there\na 1 x 2 2.9 ready everyone\n")
    assert spoken(path)[2] == ("?", "note: go")
    assert "1 of 3 texts begin with a prefix such as 'note'" in caplog.text
    assert "--subtitle-speakers" in caplog.text
    assert spoken(path, subtitle_speakers="prefix")[2] == ("note", "go")
    assert overall(ref, path)["wer"]["insertions"] == 2
    assert overall(ref, path, subtitle_speakers="prefix")["wer"]["insertions"] == 1
    page = tmp_path / "page.html"
    write_page_of(page, path, None, [], subtitle_speakers="prefix")
    assert '["note",3.0,3.9,"go"]' in page.read_text(encoding="utf-8")
    call = ("convert", "--format", "stm", "--subtitle-speakers", "prefix", path)
    done = subprocess.run(
        [sys.executable, "-m", "tagspeech", *map(str, call)], capture_output=True, text=True
    )
    assert "a 1 note 3.000 3.900 go\n" in done.stdout
    named = put(tmp_path, "b.vtt", vtt("Ann: hi", "Kim: yes"))
    assert spoken(named, subtitle_speakers="none") == [("?", "Ann: hi"), ("?", "Kim: yes")]
    with pytest.raises(InputError, match=r"subtitle speakers: must be one of auto.*got 'all'"):
        read(named, subtitle_speakers="all")


def test_text_behind_an_empty_line_belongs_to_its_cue(tmp_path: Path) -> None:
    text = (
        "{}1\n00:00:01{}000 --> 00:00:02{}000\n\n2\n00:00:03{}000 --> 00:00:04{}000\n\nhello\n"
        "\nsecond paragraph\n3\n00:00:05{}000 --> 00:00:06{}000\nlast\n"
    )
    expected = [("?", ""), ("?", "hello second paragraph"), ("?", "last")]
    assert spoken(put(tmp_path, "a.srt", text.format("", *"," * 6))) == expected
    assert spoken(put(tmp_path, "a.vtt", text.format("WEBVTT\n\n", *"." * 6))) == expected
    stray = "WEBVTT\n\n00:01.000 --> 00:02.000\nhi\n\nNOTE to self\n\nstray\n"
    assert "line 8: 'stray' is in no cue" in refusal(tmp_path, "b.vtt", stray)
    assert "line 1: 'hello' is in no cue" in refusal(tmp_path, "b.srt", "hello\n")


def test_captions_that_roll_are_read_once(tmp_path: Path, caplog: Any) -> None:
    path = put(
        tmp_path,
        "youtube.vtt",
        "WEBVTT\nKind: captions\nLanguage: en\n\n"
        "00:00:00.799 --> 00:00:02.869 align:start position:0%\n \n"
        "hi<00:00:01.040><c> everyone</c>\n\n"
        "00:00:02.869 --> 00:00:02.879 align:start position:0%\nhi everyone\n \n\n"
        "00:00:02.879 --> 00:00:04.070 align:start position:0%\n"
        "hi everyone\nhi<00:00:03.360><c> you</c>\n",
    )
    assert read(path) == [
        Segment("youtube", "?", 0.799, 2.869, "hi everyone"),
        Segment("youtube", "?", 2.879, 4.07, "hi you"),
    ]
    assert "rolling captions; dropped 2 repeated lines" in caplog.text


# Zero duration

REF = """\
A 1 Alice 0 0 i know you're busy
A 1 Bob 1 2 Strategic staircase we need a paradigm shift
A 1 Alice 2 3 Pipeline Bob called an all hands this afternoon
B 1 Alice 3 4 Hop on the bandwagon let's schedule a standup
B 1 Alice 4 4
"""


def test_words_without_time_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stm = put(tmp_path, "ref.stm", REF)
    rows = read(stm)
    assert "ref.stm: 2 of 5 segments or words have zero duration (the first: A at 0.00 s)" in (
        caplog.text
    )
    assert [(row.start, row.end) for row in rows if not row.duration] == [(0, 0), (4, 4)]
    for format in ("stm", "rttm", "seglst", "ctm"):
        again = read(put(tmp_path, f"again.{format}", render(rows, format)), format)
        assert sum(not row.duration for row in again) == (4 if format == "ctm" else 2), format
    scores = overall(stm, stm)
    assert [scores[rate]["errors"] for rate in RATES] == [0] * 4
    assert scores["wer"]["length"] == 27
    assert scores["der"]["scored"] == pytest.approx(3)
    assert scores["self_overlaps"] == {"ref": 0, "hyp": 0}
    silent = score(rows[:1], rows[:1])["overall"]
    assert (silent["cpwer"]["length"], silent["der"]["scored"]) == (4, 0)
    write_page_of(tmp_path / "page.html", stm, stm, [])
    for extension in ("srt", "vtt", "TextGrid", "txt"):  # these hold no zero duration
        (path,) = convert([put(tmp_path, "s.stm", REF[:30])], [_format(extension)], tmp_path)
        assert [0 < row.duration < 0.02 for row in read(path)] == [True]


def _format(extension: str) -> str:
    return split_name(f"a.{extension}")[1] or ""


def test_a_ctm_with_words_of_zero_duration(tmp_path: Path) -> None:
    hyp = put(
        tmp_path,
        "hyp.ctm",
        "u1 1 27.40 0.00 you 0.9\nu1 1 27.40 0.14 have 0.9\nu1 1 27.54 0.12 your 1\n"
        "u1 1 27.66 0.36 robotics 1\n",
    )
    ref = put(tmp_path, "ref.stm", "u1 1 a 27.40 28.10 you have your robotics\n")
    assert errors(ref, hyp) == {(0, 4)}


def test_an_end_before_the_start_is_still_refused(tmp_path: Path) -> None:
    assert "line 2: segment 2.0-1.0" in refusal(tmp_path, "a.stm", "a 1 b 1 1\na 1 b 2.0 1.0 w\n")


def test_the_file_decides_between_segments_that_start_together(tmp_path: Path) -> None:
    ref = put(tmp_path, "ref.stm", "m 1 A 1.0 3.0 one two\nm 1 A 1.0 2.0 three four\n")
    hyp = put(tmp_path, "hyp.stm", "m 1 x 1.0 3.0 one two three four\n")
    assert errors(ref, hyp) == {(0, 4)}
    for format in ("stm", "seglst", "srt", "vtt"):
        (again,) = convert([ref], [format], tmp_path / format)
        assert [row.words for row in read(again)] == ["one two", "three four"], format


def test_words_as_they_stand(tmp_path: Path) -> None:
    ref = put(tmp_path, "ref.stm", "a 1 x 0 1 Bob called an all-hands,\n")
    hyp = put(tmp_path, "hyp.stm", "a 1 x 0 1 bob called an all hands\n")
    assert errors(ref, hyp) == {(0, 5)}
    assert errors(ref, hyp, language="none") == {(3, 4)}


# RTTM and CTM


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("my talk 1 0.0 2.0 <NA> <NA> A <NA>", "line 1: field 6 must be <NA>, got '2.0'"),
        (
            "my talk 1 0.0 2.0 <NA> <NA> A <NA> <NA>",
            "line 1: RTTM must have 9 or 10 fields, with %20 for a space in a name, got 11",
        ),
        (
            "s 1 0.0 2.0 <NA> <NA> John Smith <NA>",
            "line 1: field 9 must be <NA> or a number, got 'Smith'",
        ),
        (
            "s 1 0.0 2.0 <NA> <NA> Speaker 2 <NA>",
            "line 1: field 9 must be <NA> or a confidence from 0 to 1, got '2'",
        ),
        (
            "s 1 0 2 <NA> <NA> Speaker 0 <NA>\nSPEAKER s 1 2 2 <NA> <NA> Speaker 1 <NA>",
            "line 2: field 9 must be <NA> or a confidence from 0 to 1, got '1'; is it part of",
        ),
    ],
)
def test_a_space_in_a_name_of_an_rttm_is_an_error(lines: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, "a.rttm", f"SPEAKER {lines}\n")


def test_other_lines_of_an_rttm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = put(
        tmp_path,
        "a.rttm",
        "SPKR-INFO s 1 <NA> <NA> <NA> unknown A <NA>\nLEXEME s 1 0 1 hi lex A 0.5 <NA>\n"
        "SPEAKER s 1 0 1 <NA> <NA> A 1 0\nSPEAKER s 1 2 1 <NA> <NA> A 0.5\n",
    )
    assert [row.start for row in read(path)] == [0, 2]
    assert "skipped lines of types other than SPEAKER: 1 LEXEME" in caplog.text
    assert "line 1: 'speaker' must be a type" in refusal(
        tmp_path, "b.rttm", "speaker s 1 0 1 a b c d"
    )


def test_speakers_and_sides_of_a_ctm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nemo = "s speaker_0 0.0 0.3 yes 0\ns speaker_1 0.4 0.3 no 0\n"
    assert spoken(put(tmp_path, "a.ctm", nemo)) == [("speaker_0", "yes"), ("speaker_1", "no")]
    assert "the second field names speakers or sides (speaker_0, speaker_1)" in caplog.text
    caplog.clear()
    call = "call A 0.0 0.3 yes\ncall B 0.4 0.3 no\n"
    assert spoken(put(tmp_path, "b.ctm", call)) == [("A", "yes"), ("B", "no")]
    one = put(tmp_path, "c.ctm", "a 1 0.0 0.3 yes\nb 2 0.4 0.3 no\n")
    caplog.clear()
    assert spoken(one) == [("?", "yes"), ("?", "no")]
    assert not caplog.records


# Encodings and line ends


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(encoding: str, end: str, tmp_path: Path) -> None:
    rows = [
        Segment("s", "Zoë", 0.0, 2.0, "今天 hello"),
        Segment("s", "B", 2.0, 4.0, "there"),
    ]
    for format in ("seglst", "rttm", "stm", "ctm", "srt", "vtt", "textgrid", "tagged"):
        text = render(rows, format).replace("\n", end)
        path = put(tmp_path, "s.x", text.encode(encoding))
        plain = put(tmp_path, "s.y", render(rows, format))
        assert read(path, format) == read(plain, format), format


def test_another_encoding_is_named(tmp_path: Path) -> None:
    line = "s 1 a 0 2 café crème\n"
    message = refusal(tmp_path, "a.stm", ("s 1 a 0 1 ok\r" + line).encode("latin-1"))
    assert "a.stm: byte 0xe9 in line 2 is not UTF-8 text" in message
    assert "Latin-1" in message
    assert "iconv -f ISO-8859-1 -t UTF-8" in message
    assert "GB18030" in refusal(tmp_path, "b.stm", "s 1 a 0 2 今天开会\n".encode("gb18030"))
    cut = "s 1 a 0 2 café\n".encode("utf-16")[:-1]
    assert "is not UTF-16, as its mark says" in refusal(tmp_path, "c.stm", cut)


def test_a_textgrid_as_praat_writes_it(tmp_path: Path) -> None:
    grid = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 6.5\n'
        'tiers? <exists>\nsize = 1\nitem []:\n    item [1]:\n        class = "IntervalTier"\n'
        '        name = "A B"\n        xmin = 0\n        xmax = 6.5\n        intervals: size = 2\n'
        "        intervals [1]:\n            xmin = 0\n            xmax = 1\n"
        '            text = ""\n'
        "        intervals [2]:\n            xmin = 1\n            xmax = 6.5\n"
        '            text = "今天 ""好"" ok"\n'
    )
    for encoding in ("utf-16", "utf-16-be", "utf-8"):
        mark = "\ufeff" if encoding == "utf-16-be" else ""
        path = put(tmp_path, "g.TextGrid", (mark + grid).encode(encoding))
        assert read(path) == [Segment("g", "A B", 1, 6.5, '今天 "好" ok')]


# Sessions and names


def test_the_session_of_a_hypothesis_that_names_none(tmp_path: Path) -> None:
    ref = put(tmp_path, "all.stm", "t1 1 a 1 1.9 hello\nt2 1 a 1 1.9 bye\n")
    hyp = put(tmp_path, "t1.srt", srt("hello"))
    scores = score_files(ref, hyp)
    assert scores["sessions"]["t1"]["wer"]["errors"] == 0
    assert scores["sessions"]["t2"]["wer"]["deletions"] == 1
    rows = put(tmp_path, "t2.json", '[{"start": 1, "end": 2, "speaker": "x", "text": "bye"}]')
    assert score_files(ref, rows)["sessions"]["t2"]["wer"]["errors"] == 0
    stranger = put(tmp_path, "output.vtt", vtt("hello"))
    with pytest.raises(InputError, match=r"output\.vtt: names no session, so that it is 'output'"):
        read_sides(ref, stranger)
    grid = put(tmp_path, "meeting.TextGrid", render([Segment("m", "a", 1, 1.9, "hi")], "textgrid"))
    assert errors(grid, put(tmp_path, "output.srt", srt("hi"))) == {(0, 1)}


def test_both_spellings_of_a_name_are_one(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "jürgen")
    apart = unicodedata.normalize("NFD", composed)
    assert composed != apart
    ref = put(tmp_path, "ref.stm", f"{composed} 1 {apart} 0 1 a\n{apart} 1 {composed} 1 2 b\n")
    (hyp := tmp_path / "hyp").mkdir()
    put(hyp, f"{apart}.srt", "1\n00:00:00,000 --> 00:00:02,000\na b\n")
    scores = score_files(ref, hyp)
    assert list(scores["sessions"]) == [composed]
    assert scores["overall"]["cpwer"]["errors"] == 0
    assert score([Segment(apart, "a", 0, 1, "x")], [], sessions=[apart])["overall"]["sessions"] == 1


def test_hidden_files_in_a_folder_are_left_out(tmp_path: Path, caplog: Any) -> None:
    ref = put(tmp_path, "ref.stm", "x 1 a 0 1 hi\n")
    (hyp := tmp_path / "hyp").mkdir()
    put(hyp, "x.stm", "x 1 a 0 1 hi\n")
    put(hyp, "._x.stm", b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X \xff")
    put(hyp, "x.journal.jsonl", '{"windows": []}\n')
    assert errors(ref, hyp) == {(0, 1)}
    assert (
        "hyp: 1 hidden files are left out, as macOS writes them (the first: ._x.stm)" in caplog.text
    )


# JSON

START = {"speaker": "a", "start": 0.0, "end": 3.0, "text": "shall we start"}
BUDGET = {"speaker": "b", "start": 3.5, "end": 6.0, "text": "yes the budget first"}


def _renamed(names: dict[str, str], **more: Any) -> list[dict[str, Any]]:
    return [{names[key]: value for key, value in row.items()} | more for row in (START, BUDGET)]


VIBEVOICE = {"speaker": "Speaker", "start": "Start", "end": "End", "text": "Content"}
VIBEVOICE_RAW = dict(
    zip(VIBEVOICE, ("Speaker ID", "Start time", "End time", "Content"), strict=True)
)
MOSS = {"speaker": "speaker", "start": "start_s", "end": "end_s", "text": "text"}
PLAIN = {key: key for key in START}
WORDS = [{"word": "shall", "start": 0.0, "end": 0.5, "score": 0.9, "speaker": "a"}]
SILENCE = {"Start": 6.0, "End": 7.0, "Content": "[Silence]"}


@pytest.mark.parametrize(
    "content",
    [
        [START, BUDGET],
        [*_renamed(VIBEVOICE), SILENCE],
        _renamed(VIBEVOICE_RAW),
        {"segments": _renamed(PLAIN, words=WORDS), "word_segments": WORDS, "language": "en"},
        {"asr_transcription_result": {"full_text": "", "segments": _renamed(MOSS)}, "usage": {}},
        {"segments": [{**row, "text": f"[{row['speaker']}] {row['text']}", "speaker": None} for row
                      in (START, BUDGET)]},
        [{"session_id": "t", "start_time": "0", "end_time": "3.0", "speaker": "a",
          "words": ["shall", "we", "start"]},
         {"session_id": "t", "start_time": 3.5, "end_time": 6, "speaker": "b",
          "words": ["yes", "the budget", "first"]}],
    ],
)  # fmt: skip
def test_transcripts_in_json(content: Any, tmp_path: Path) -> None:
    ref = put(tmp_path, "ref.stm", "t 1 x 0 3 shall we start\nt 1 y 3.5 6 yes the budget first\n")
    hyp = put(tmp_path, "t.json", json.dumps(content))
    assert spoken(hyp) == [("a", "shall we start"), ("b", "yes the budget first")]
    assert errors(ref, hyp) == {(0, 7)}
    if isinstance(content, list):
        lines = put(tmp_path, "t.jsonl", "".join(json.dumps(row) + "\n" for row in content))
        assert spoken(lines) == spoken(hyp)


def test_only_texts_without_any_speaker_may_begin_with_one(tmp_path: Path) -> None:
    rows = [Segment("s", "?", 0, 1, "Ann: hi"), Segment("s", "?", 1, 2, "Ann: yes")]
    assert read(put(tmp_path, "s.seglst.json", render(rows, "seglst"))) == rows


def test_entries_that_hold_no_speech_are_counted(tmp_path: Path, caplog: Any) -> None:
    rows = [*_renamed(VIBEVOICE), SILENCE, {**SILENCE, "Content": "[Music]"}]
    path = put(tmp_path, "t.json", json.dumps(rows))
    assert len(read(path)) == 2
    assert (
        f"{path}, entry 3: dropped 2 entries without a speaker whose text is a tag" in caplog.text
    )


def test_json_that_holds_no_segments(tmp_path: Path) -> None:
    assert "a JSON list of segments" in refusal(tmp_path, "a.json", '{"results": {"words": []}}')
    assert "line 2: is not JSON" in refusal(
        tmp_path, "a.jsonl", '{"start_time": 0, "end_time": 1}\n{'
    )
    row = '[{"start": 0, "end": 1, "speaker": "a"}]'
    assert "entry 1: must be an object with speaker, start, end, text" in refusal(
        tmp_path, "b.json", row
    )


# The real inputs beside the repository


def test_the_shared_cases(shared: Path, tmp_path: Path, caplog: Any) -> None:
    cases = shared / "cases"
    if not cases.is_dir():
        pytest.skip(f"{cases} is absent")
    caplog.set_level(logging.ERROR)
    right = [
        ("stm_label", "ref.stm", "hyp.stm", {(0, 9)}),
        ("ctm_zero", "ref.stm", "hyp.ctm", {(0, 4)}),
        ("tie", "ref.stm", "hyp.stm", {(0, 4)}),
        ("whisperx_sub", "wx.stm", "wx.vtt", {(0, 7)}),
        ("whisperx_sub", "wx.stm", "wx.srt", {(0, 7)}),
        ("srt_colon", "hyp.stm", "hyp.srt", {(0, 16)}),
        ("peers_json", "ref_vibevoice.stm", "vibevoice.json", {(0, 7)}),
    ]
    for case, ref, hyp, expected in right:
        assert errors(cases / case / ref, cases / case / hyp) == expected, case
    for name in ("u16", "u16be", "ok"):
        rows = read(cases / f"textgrid/{name}.TextGrid")
        assert [(r.speaker, r.start, r.end) for r in rows] == [
            ("N_SPK8001", 1.25, 3.5),
            ("Zoë", 3.0, 6.5),
        ]
    assert [len(read(cases / f"latin1/mac.{one}")) for one in ("stm", "vtt")] == [2, 2]
    with pytest.raises(InputError, match=r"l\.stm: byte 0xe9 in line 1 is not UTF-8 text"):
        read(cases / "latin1/l.stm")
    assert [row.words for row in read(cases / "vtt_blank/blank.vtt")] == [
        "congratulations to all",
        "thank you",
    ]
    assert read(cases / "vtt_blank/para.srt")[1].words == "hello second paragraph"
    assert len(read(cases / "vtt_blank/youtube.vtt")) == 2
    examples = cases / "meeteval_examples"
    for extension in ("stm", "seglst.json", "rttm"):
        scores = overall(examples / f"ref.{extension}", examples / f"hyp.{extension}")
        if extension != "stm":  # whose first segment is at another time
            assert scores["der"]["error_rate"] == pytest.approx(0.54)  # md-eval-22
        if extension != "rttm":
            assert [scores[rate]["errors"] for rate in RATES] == [9, 25, 25, 9]
            assert scores["cpwer"]["length"] == 93  # "all-hands" is two words to our normaliser
            files = (examples / f"{side}.{extension}" for side in ("ref", "hyp"))
            as_is = overall(*files, language="none")  # meeteval's own figures
            for rate, wrong in (("cpwer", 25), ("tcpwer", 25), ("orcwer", 9)):
                assert (as_is[rate]["errors"], as_is[rate]["length"]) == (wrong, 92)

"""ASS (Advanced SubStation Alpha): subtitles of one session with a colour for each speaker.

Cues are those of `tagspeech.formats.readable`. Where the speaker changes, the name stands before
the words. Gender and confidence are lost, and the format is only written, not read.
"""

from __future__ import annotations

from tagspeech.formats.common import encode_name, one_session
from tagspeech.formats.readable import columns, readable_cues
from tagspeech.segments import Segment, by_start

# The BBC's four colours of speakers (white, yellow, cyan, green), then paler ones: &HAABBGGRR.
COLOURS = (
    *("&H00FFFFFF", "&H0000FFFF", "&H00FFFF00", "&H0000FF00"),
    *("&H00D7B3FF", "&H0080C0FF", "&H00FFC8B4", "&H00B4FFD2"),
)
_HEAD = """[Script Info]
ScriptType: v4.00+
PlayResX: 1280
PlayResY: 720
WrapStyle: 2
ScaledBorderAndShadow: yes

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, \
Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, \
Alignment, MarginL, MarginR, MarginV, Encoding
"""
_STYLE = "Style: {},Arial,40,{},{},&H00000000,&H80000000,0,0,0,0,100,100,0,0,1,2,1,2,40,40,30,1\n"
_EVENTS = """
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
_UNSAFE = r"[,\r\n\t]"


def render_ass(segments: list[Segment]) -> str:
    """A style for each speaker, and the cues. Raises `InputError` for several sessions."""
    one_session(segments, "ass")
    speakers = list(dict.fromkeys(item.speaker for item in by_start(segments)))
    numbers = {speaker: number for number, speaker in enumerate(speakers)}
    styles = [
        _STYLE.format(f"Speaker{number + 1}", *[COLOURS[number % len(COLOURS)]] * 2)
        for number in range(len(speakers))
    ]
    events, previous = [], None
    for cue in readable_cues(segments, {name: columns(name) + 2 for name in speakers}):
        item = cue.segment
        if not item.words:
            continue  # nothing to show
        text = r"\N".join(map(_escape, cue.lines))
        if item.speaker != previous:
            text = rf"{{\b1}}{_escape(item.speaker)}:{{\b0}} {text}"
        previous = item.speaker
        name = encode_name(item.speaker, _UNSAFE)
        style = f"Speaker{numbers[item.speaker] + 1}"
        events.append(
            f"Dialogue: 0,{_clock(item.start)},{_clock(item.end)},{style},{name},0,0,0,,{text}\n"
        )
    return "".join([_HEAD, *styles, _EVENTS, *events])


def _escape(text: str) -> str:
    """Keeps players from reading braces as markup and a backslash as a command."""
    return text.replace("\\", "\\\u2060").replace("{", "\\{").replace("}", "\\}")


def _clock(seconds: float) -> str:
    hundredths = round(100 * seconds)
    whole, rest = divmod(hundredths, 100)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}.{rest:02}"

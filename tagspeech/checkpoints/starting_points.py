"""What was trained before, as the configuration names it: found, tried, and written down.

The record, a JSON file, holds for each part its name and revision, the commit on the Hub that this
was, the SHA-256 of each of its files and, for an encoder, its shape. Another run with this record
takes the same commit, so that it needs no network, and tries again only what has changed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tagspeech.config import Config, PartConfig, SemanticConfig, VoiceConfig, WhisperEncoderConfig
from tagspeech.config_file import from_tree, to_tree
from tagspeech.errors import InputError
from tagspeech.files import read_json, sha256_of, write_json

# Files of a model, the first that is there: as Auden, transformers and icefall name them.
WEIGHTS = (
    *("pretrained.safetensors", "model.safetensors", "pretrained.pt", "model.pt"),
    "exp/pretrained.pt",
)
UNITS = ("bpe.model", "data/lang_bpe_500/bpe.model")
_LLM_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")
# Where the config.json of a model of Auden says what its encoder is; an encoder's own says it all.
_ENCODER_CONFIGS = ("encoder_config", "speech_encoder_config", "audio_encoder_config")

Entry = dict[str, Any]  # of the record


def find_parts(config: Config, record: Path, *, offline: bool = False) -> dict[str, str]:
    """Finds the parts that `config` names, downloads those that are not here, tries new ones.

    Gives the path of each file by its name in `parts`, and what the configuration must say by key:
    `llm.name` and `llm.revision`; `semantic.encoder`, `semantic.whisper` and `voice.encoder`, as
    JSON, where a config.json beside the weights tells them.

    offline  only the Hub's cache on this machine is looked at

    Raises `InputError` that names the part for a wrong name, for want of a network or a file, for
    weights that do not fit, and for want of k2 where stage 3 will need it: before any long work.
    """
    before: dict[str, Entry] = read_json(record) if record.exists() else {}
    found: dict[str, Entry] = {}
    settings: dict[str, str] = {}
    for stream in ("semantic", "voice"):
        # A trained encoder takes the place of training: what that would start from is not needed.
        trained = f"{stream}_encoder"
        is_trained = bool(getattr(config.parts, trained).name)
        for name in (trained,) if is_trained else (f"{stream}_units", f"{stream}_init"):
            part: PartConfig = getattr(config.parts, name, PartConfig())
            if part.name:
                old = before.get(name, {})
                path, found[name] = _find_file(name, part, old, offline)
                settings[name] = str(path)
        name = trained if is_trained else f"{stream}_init"
        if name in found:
            units = settings.get(f"{stream}_units")
            own: SemanticConfig | VoiceConfig = getattr(config, stream)
            told = _try_encoder(found[name], before.get(name, {}), settings[name], units, own)
            settings.update({f"{stream}.{key}": json.dumps(tree) for key, tree in told.items()})
        elif f"{stream}_units" in found:
            raise InputError(
                "parts.semantic_units: are those of parts.semantic_init, which is none"
            )
    if config.semantic.sot.loss != "ctc" and not config.parts.semantic_encoder.name:
        from tagspeech.encoders.transducer import check_loss  # takes seconds

        check_loss(config.semantic.sot)
    if config.llm.name:
        found["llm"] = _find_llm(config, before.get("llm", {}), offline)
        settings["llm.name"] = config.llm.name
        settings["llm.revision"] = found["llm"]["commit"] or "null"
    if found != before:
        write_json(record, found)
    return settings


def _find_file(what: str, part: PartConfig, before: Entry, offline: bool) -> tuple[Path, Entry]:
    """The file of a part, and its entry of the record."""
    names = (part.file,) if part.file else UNITS if what == "semantic_units" else WEIGHTS
    where = f"parts.{what}"
    wanted = [*names, *(str(PurePosixPath(name).with_name("config.json")) for name in names)]
    place, commit = _fetch(where, part.name, part.revision, before, offline, wanted)
    path = place
    if place.is_dir():
        there = [place / name for name in names if (place / name).is_file()]
        if not there:
            raise InputError(
                f"{where}: {part.name}: has no {' nor '.join(names)}; {where}.file names another"
            )
        path = there[0]
    elif part.file:
        raise InputError(f"{where}: {part.name}: is a file itself; leave {where}.file empty")
    files = {path.name: path}
    if what != "semantic_units" and (path.parent / "config.json").is_file():
        files["config.json"] = path.parent / "config.json"
    return path, _entry(part.name, part.revision, commit, files, before)


def _find_llm(config: Config, before: Entry, offline: bool) -> Entry:
    """The entry of the LLM, whose folder is looked through where it is new."""
    name, revision = config.llm.name, config.llm.revision
    folder, commit = _fetch("llm.name", name, revision, before, offline, None)
    if not folder.is_dir():
        raise InputError(f"llm.name: {name}: is a file; wants the folder of an LLM")
    files = {path.name: path for path in folder.iterdir() if path.suffix in _LLM_SUFFIXES}
    entry = _entry(name, revision, commit, files, before)
    if entry != before:
        from tagspeech.llm.load import check_llm  # takes seconds

        check_llm(folder)
    return entry


def _fetch(
    where: str,
    name: str,
    revision: str | None,
    before: Entry,
    offline: bool,
    files: Sequence[str] | None,
) -> tuple[Path, str | None]:
    """The file or folder of a part, and its commit if it comes from the Hub."""
    place = Path(name)
    if place.exists() and revision is None:
        return place, None
    if (before.get("name"), before.get("revision")) == (name, revision):
        revision = before["commit"]  # a branch may have moved since this experiment began
    from tagspeech.checkpoints.download import MODEL_FILES, find_model  # takes a second

    try:
        folder = find_model(name, revision, offline, files or MODEL_FILES)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if not folder.exists():
        raise InputError(f"{where}: {name}: no such file or folder")
    return folder, folder.name


def _entry(
    name: str, revision: str | None, commit: str | None, files: dict[str, Path], before: Entry
) -> Entry:
    """The entry of a part; a file of the same size and time as before is not read again."""
    old: dict[str, Entry] = before.get("files", {})
    rows = {}
    for key, path in sorted(files.items()):
        stat = path.stat()
        row = {"bytes": stat.st_size, "modified": stat.st_mtime_ns}
        known = old.get(key, {})
        same = row.items() <= known.items()
        rows[key] = {**row, "sha256": known["sha256"] if same else sha256_of(path)}
    return {"name": name, "revision": revision, "commit": commit, "files": rows}


def _try_encoder(
    entry: Entry,
    before: Entry,
    path: str,
    units: str | None,
    own: SemanticConfig | VoiceConfig,
) -> Entry:
    """What config.json beside an encoder tells of its shape, added to its entry.

    Where something is new, the encoder is loaded.

    units  sentencepiece model of its CTC output, or None
    own    the shape in the configuration, for weights without a config.json
    """
    known = {
        "encoder": to_tree(own.encoder),
        "whisper": to_tree(own.whisper)
        if isinstance(own, SemanticConfig) and own.whisper
        else None,
        "units": units and sha256_of(Path(units)),
    }
    entry["tried_with"] = known
    if entry != {key: value for key, value in before.items() if key != "shape"}:
        beside = Path(path).parent / "config.json"
        tree = read_json(beside) if "config.json" in entry["files"] else {}
        entry["shape"] = _load(Path(path), tree, str(beside), units, own)
    else:
        entry["shape"] = before["shape"]
    shape: Entry = entry["shape"]
    return shape


def _load(
    path: Path, tree: Entry, where: str, units: str | None, own: SemanticConfig | VoiceConfig
) -> Entry:
    """Loads an encoder; gives the sections of the configuration that its config.json replaces."""
    from tagspeech.data.units import given_units
    from tagspeech.encoders.sot import SotModel
    from tagspeech.encoders.whisper import WhisperStream, load_encoder_weights
    from tagspeech.encoders.zipformer import zipformer_config_from_released

    whisper = own.whisper if isinstance(own, SemanticConfig) else None
    if tree.get("model_type") == "whisper":
        if not isinstance(own, SemanticConfig):
            raise InputError(f"{where}: is a Whisper, which only the semantic stream can have")
        fields = [field.name for field in dataclasses.fields(WhisperEncoderConfig)]
        values = {name: tree[name] for name in fields if name in tree}
        whisper = from_tree(WhisperEncoderConfig, values, where)
        load_encoder_weights(WhisperStream(whisper), path)
        return {"whisper": to_tree(whisper)}
    if whisper:
        load_encoder_weights(WhisperStream(whisper), path)
        return {}
    shape = own.encoder
    if tree:
        for key in _ENCODER_CONFIGS:
            tree = tree.get(key, tree)
        found = zipformer_config_from_released(tree, where)
        shape = dataclasses.replace(found, dropout=shape.dropout)
    count = len(given_units(Path(units))) if units else 1
    model = SotModel(shape, count)
    load_encoder_weights(model, path)
    if units:
        model.load_ctc_output(path, count)
    return {"encoder": to_tree(shape)} if tree else {}

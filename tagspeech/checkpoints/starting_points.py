"""Pretrained parts, as the configuration names them: found, loaded once, and recorded.

The record, a JSON file, has for each part its name and revision, its commit on the Hub, the SHA-256
of each file and, for an encoder, its shape; for a part from a package also the SHA-256 of the file
there. Another run with this record takes the same commit, so that it needs no network, and loads
again only what has changed.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tagspeech.config import Config, LLMConfig, PartConfig, StreamConfig, ZipformerConfig
from tagspeech.config_file import to_tree
from tagspeech.errors import InputError
from tagspeech.files import read_json, sha256_of, write_json
from tagspeech.packages.fetch import is_package, package_folder, source_sha256

log = logging.getLogger(__name__)

# Names of a model's weights, in order of preference: those of Auden, transformers and icefall.
WEIGHTS = (
    *("pretrained.safetensors", "model.safetensors", "pretrained.pt", "model.pt"),
    "exp/pretrained.pt",
)
UNITS = ("bpe.model", "data/lang_bpe_500/bpe.model")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LLM_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")

Entry = dict[str, Any]  # of the record


def find_parts(config: Config, record: Path, *, offline: bool = False) -> dict[str, str]:
    """Finds the parts that `config` names, downloads missing ones, and loads new encoders once.

    Args:
        config: Its sections `parts` and `llm` name the parts.
        record: The record, read and written.
        offline: Whether to use only what this machine has.

    Returns:
        The path of each file by its name in `parts`, and settings of the configuration by key:
        `llm.name` and `llm.revision`, and the section of an encoder, as JSON, if the config.json
        next to its weights describes it.

    Raises:
        InputError: A part does not exist, cannot be downloaded or does not fit, or stage 3 will
            need k2, which is missing. All of this comes up before any long work.
    """
    before: dict[str, Entry] = read_json(record) if record.exists() else {}
    found: dict[str, Entry] = {}
    settings: dict[str, str] = {}
    for stream in ("semantic", "voice"):
        # With a trained encoder there is no training, and no need for what it would start from.
        trained = f"{stream}_encoder"
        is_trained = bool(getattr(config.parts, trained).name)
        for name in (trained,) if is_trained else (f"{stream}_units", f"{stream}_init"):
            part: PartConfig = getattr(config.parts, name, PartConfig())
            if part.name:
                old = before.get(name, {})
                path, found[name] = find_file(name, part, old, offline)
                settings[name] = str(path)
        name = trained if is_trained else f"{stream}_init"
        if name in found:
            units = settings.get(f"{stream}_units")
            shape = _try_encoder(
                *(found[name], before.get(name, {}), settings[name], units),
                *(stream, getattr(config, stream)),
            )
            settings.update({f"{stream}.{key}": json.dumps(tree) for key, tree in shape.items()})
        elif f"{stream}_units" in found:
            raise InputError(
                "parts.semantic_units: belong to parts.semantic_init, which is not set"
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


def find_trained(model: str, record: Path, *, offline: bool = False) -> tuple[Path, str]:
    """The folder of a trained TagSpeech, and its commit ("" for a folder here); both are recorded.

    Args:
        model: A folder, ORG/NAME on the Hub, or ORG/NAME@REVISION.
        record: As in `find_parts`.
        offline: Whether to use only what this machine has.

    Raises:
        InputError: The model does not exist or cannot be downloaded.
    """
    name, _, revision = (model, "", "") if Path(model).exists() else model.partition("@")
    before: dict[str, Entry] = read_json(record) if record.exists() else {}
    part = PartConfig(name=name, revision=revision or None)
    folder, commit = _fetch("model", part, before.get("model", {}), offline, None)
    if not (folder / "config.json").is_file():
        raise InputError(f"model: {name}: is no folder of a TagSpeech (no config.json)")
    entry = {"name": name, "revision": part.revision, "commit": commit}
    if entry != before.get("model"):
        write_json(record, {**before, "model": entry})
    return folder, commit or ""


def find_file(what: str, part: PartConfig, before: Entry, offline: bool) -> tuple[Path, Entry]:
    """The file of a part, and its entry of the record.

    Args:
        what: The name of the part, such as "voice_encoder".
        part: What the configuration says of it.
        before: Its entry in the record before, or {}.
        offline: Whether to use only what this machine has.

    Raises:
        InputError: The file does not exist, cannot be downloaded, or has another SHA-256.
    """
    is_units = what == "semantic_units"
    names = (part.file,) if part.file else UNITS if is_units else WEIGHTS
    where = f"parts.{what}"
    wanted = [*names, *(str(PurePosixPath(name).with_name("config.json")) for name in names)]
    place, commit = _fetch(where, part, before, offline, wanted)
    path = place
    if place.is_dir():
        present = [place / name for name in names if (place / name).is_file()]
        if not present:
            raise InputError(
                f"{where}: {part.name}: has no {' nor '.join(names)}; {where}.file can name another"
            )
        path = present[0]
    elif part.file:
        raise InputError(f"{where}: {part.name}: is a file itself; leave {where}.file empty")
    files = {path.name: path}
    if not is_units and (path.parent / "config.json").is_file():
        files["config.json"] = path.parent / "config.json"
    entry = _entry(part, commit, files, before)
    found = entry["files"][path.name]["sha256"]
    if part.sha256 is not None and not is_package(part.name) and found != part.sha256.lower():
        raise InputError(f"{where}: {path}: must have SHA-256 {part.sha256}, got {found}")
    return path, entry


def _find_llm(config: Config, before: Entry, offline: bool) -> Entry:
    """The entry of the LLM, whose folder is checked if it is new."""
    name = config.llm.name
    folder, commit = _fetch("llm", config.llm, before, offline, None)
    if not folder.is_dir():
        raise InputError(f"llm.name: {name}: is a file; must be the folder of an LLM")
    files = {path.name: path for path in folder.iterdir() if path.suffix in _LLM_SUFFIXES}
    entry = _entry(config.llm, commit, files, before)
    if entry != before:
        from tagspeech.llm.load import check_llm  # takes seconds

        check_llm(folder)
    return entry


def _fetch(
    section: str,
    part: PartConfig | LLMConfig,
    before: Entry,
    offline: bool,
    files: Sequence[str] | None,
) -> tuple[Path, str | None]:
    """The file or folder of a part, and its commit if it is on the Hub."""
    if folder := package_folder(section, part, offline):
        return folder, None
    where = "llm.name" if section == "llm" else section
    name, revision = part.name, part.revision
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
    if folder != place and not _COMMIT.fullmatch(revision or ""):
        log.warning(
            "%s: %s: revision %s can move; it is commit %s now, which this experiment keeps; pin "
            "it with %s",
            *(where, name, revision or "main", folder.name),
            f"--model {name}@COMMIT" if section == "model" else f"{section}.revision",
        )
    return folder, folder.name


def _entry(
    part: PartConfig | LLMConfig, commit: str | None, files: dict[str, Path], before: Entry
) -> Entry:
    """The entry of a part; a file with the same size and time as before is not read again."""
    old: dict[str, Entry] = before.get("files", {})
    rows = {}
    for key, path in sorted(files.items()):
        stat = path.stat()
        row = {"bytes": stat.st_size, "modified": stat.st_mtime_ns}
        known = old.get(key, {})
        same = row.items() <= known.items()
        rows[key] = {**row, "sha256": known["sha256"] if same else sha256_of(path)}
    entry = {"name": part.name, "revision": part.revision, "commit": commit, "files": rows}
    if is_package(part.name):
        entry["source_sha256"] = source_sha256(next(iter(files.values())).parent)
    return entry


def _try_encoder(
    entry: Entry, before: Entry, path: str, units: str | None, name: str, stream: StreamConfig
) -> Entry:
    """The shape of an encoder by the config.json next to it, which is added to its entry.

    If anything is new, the encoder is loaded.

    Args:
        entry: The entry of the encoder.
        before: Its entry in the record, if any.
        path: The weights.
        units: The sentencepiece model of its CTC output, if any.
        name: "semantic" or "voice".
        stream: The stream's section, for weights without a config.json.
    """
    entry["tried_with"] = {
        stream.encoder_section: to_tree(stream.encoder_config),
        "units": units and sha256_of(Path(units)),
    }
    if entry != {key: value for key, value in before.items() if key != "shape"}:
        beside = Path(path).parent / "config.json"
        from tagspeech.checkpoints.icefall import shape_of_training

        tree, where = shape_of_training(Path(path)), path
        if "config.json" in entry["files"]:
            tree, where = read_json(beside), str(beside)
        entry["shape"] = _load(Path(path), tree, where, units, name, stream)
    else:
        entry["shape"] = before["shape"]
    shape: Entry = entry["shape"]
    return shape


def _load(
    path: Path, tree: Entry, where: str, units: str | None, name: str, stream: StreamConfig
) -> Entry:
    """Loads an encoder; returns the section of the configuration that its config.json replaces."""
    from tagspeech.data.units import given_units
    from tagspeech.encoders.build import ENCODERS
    from tagspeech.encoders.sot import SotModel

    kinds = {
        table: {kind.model_type: kind for kind in encoders.values()}
        for table, encoders in ENCODERS.items()
    }
    model_type = str(tree.get("model_type"))
    for table, known in kinds.items():
        if model_type in known and model_type not in kinds[name]:
            raise InputError(
                f"{where}: is a {model_type} encoder, which only the {table} stream can have"
            )
    current = stream.encoder_config
    encoder_class = kinds[name].get(model_type, ENCODERS[name][type(current)])
    shape = encoder_class.config_from(tree, where, current) if tree else current
    section = stream.section_of(type(shape))
    if section != stream.encoder_section != "encoder":
        raise InputError(
            f"{where}: is a {model_type} encoder, but {name}.{stream.encoder_section} is set"
        )
    encoder_class(shape).load_weights(path)
    if units:
        if not isinstance(shape, ZipformerConfig):
            raise InputError("parts.semantic_units: are only for a Zipformer, which is trained")
        count = len(given_units(Path(units)))
        SotModel(shape, count).load_ctc_output(path, count)
    return {section: to_tree(shape)} if tree else {}

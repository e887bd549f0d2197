"""What lies beside the weights of a checkpoint: tokenizer, feature extractor and knowledge base."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import ASTFeatureExtractor, AutoTokenizer, PreTrainedTokenizerBase

from .configuration_audiobert import COMPANIONS, AudioBertConfig
from .hub_audiobert import has_file
from .knowledge_audiobert import AudioBertKnowledgeBase
from .knowledge_files_audiobert import (
    AUDIO_ENCODER_FOLDER,
    CONFIG_FILE,
    EMBEDDINGS_FILE,
    INDEX_FILE,
    LABEL_VECTORS_FILE,
    METADATA_FILE,
    TEXT_ENCODER_FOLDER,
)

KNOWLEDGE_BASE_FOLDER = "knowledge_base"
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
FEATURE_EXTRACTOR_FILE = "preprocessor_config.json"

AGAIN = "download it, or save the model, again."


@dataclass(frozen=True)
class Companions:
    """What a checkpoint has beside its weights; None for what it has not."""

    tokenizer: PreTrainedTokenizerBase | None
    feature_extractor: ASTFeatureExtractor | None
    knowledge_base: AudioBertKnowledgeBase | None


def load_companions(
    path: str | os.PathLike, config: AudioBertConfig, hub: dict[str, Any], code: dict[str, Any]
) -> Companions:
    """
    Loads what belongs to a checkpoint by `config.companions`; by a config that says nothing, all that is there.

    Args:
        path: folder or Hub id of the checkpoint.
        config: its configuration.
        hub: where to look, as for `from_pretrained`: `revision`, `subfolder`, `token`, `cache_dir`, ...
        code: `trust_remote_code` and `code_revision`, if they were given.

    Raises:
        OSError: if what belongs to it is missing, there is a knowledge base that does not belong to it, or the Hub
            gives no answer.
    """
    wanted = COMPANIONS if config.companions is None else config.companions
    tokenizer = load_tokenizer(path, **hub, **code) if "tokenizer" in wanted else None
    feature_extractor = load_feature_extractor(path, **hub) if "feature_extractor" in wanted else None
    if config.companions is not None:
        _refuse_if_missing(path, "tokenizer", tokenizer, wanted)
        _refuse_if_missing(path, "feature_extractor", feature_extractor, wanted)

    place = {**hub, "subfolder": f"{hub.get('subfolder', '')}/{KNOWLEDGE_BASE_FOLDER}".lstrip("/")}
    if config.companions is None:
        has_sounds = has_knowledge_base(path, **place)
    else:
        has_sounds = "knowledge_base" in wanted
        if not has_sounds and has_knowledge_base(path, **place):
            raise OSError(
                f"{path} has a {KNOWLEDGE_BASE_FOLDER}/ folder, but its config.json says that no knowledge base "
                'belongs to it: take the folder away, or name "knowledge_base" among `companions` in config.json.'
            )
    if has_sounds and tokenizer is None:
        raise OSError(f"{path} has a knowledge base but no tokenizer, and sounds are looked up by text: {AGAIN}")
    return Companions(
        tokenizer, feature_extractor, AudioBertKnowledgeBase.from_pretrained(path, **place) if has_sounds else None
    )


def _refuse_if_missing(path: str | os.PathLike, name: str, found: object, wanted: tuple[str, ...] | list[str]) -> None:
    if name in wanted and found is None:
        raise OSError(f"{path} is no complete AudioBERT, as its config.json names a {name} that it lacks: {AGAIN}")


def load_tokenizer(path: str | os.PathLike, **hub: Any) -> PreTrainedTokenizerBase | None:
    """
    The tokenizer of a checkpoint, or None if it has none; `hub` as for `from_pretrained`.

    Raises:
        OSError: if the Hub could not be asked, or the tokenizer's own files are incomplete.
    """
    # Where there are no tokenizer files AutoTokenizer makes one without words rather than fail.
    if not any(has_file(path, name, **without_code(hub)) for name in TOKENIZER_FILES):
        return None
    tokenizer = AutoTokenizer.from_pretrained(path, **hub)
    if tokenizer.mask_token is None:
        raise OSError(f"{path} has a tokenizer without a mask token: is its tokenizer_config.json missing or damaged?")
    return tokenizer


def load_feature_extractor(path: str | os.PathLike, **hub: Any) -> ASTFeatureExtractor | None:
    """
    The audio encoder's feature extractor of a checkpoint, or None if it has none; `hub` as for `from_pretrained`.

    Raises:
        OSError: if the Hub could not be asked.
    """
    hub = without_code(hub)
    if not has_file(path, FEATURE_EXTRACTOR_FILE, **hub):
        return None
    return ASTFeatureExtractor.from_pretrained(path, **hub)


def without_code(hub: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `from_pretrained` that say where files lie, without those about code among them."""
    return {name: value for name, value in hub.items() if name not in ("trust_remote_code", "code_revision")}


def has_knowledge_base(path: str | os.PathLike, subfolder: str, **hub: Any) -> bool:
    """Whether a knowledge base lies there, or what is left of one."""
    if os.path.isdir(path):
        return os.path.isdir(os.path.join(path, subfolder))
    return any(has_file(path, name, subfolder, **hub) for name in (CONFIG_FILE, INDEX_FILE))


def remove_knowledge_base(folder: Path) -> None:
    """Takes away the files of a knowledge base, and the folder if nothing else is in it."""
    for name in (CONFIG_FILE, INDEX_FILE, EMBEDDINGS_FILE, METADATA_FILE, LABEL_VECTORS_FILE):
        (folder / name).unlink(missing_ok=True)
    for name in (TEXT_ENCODER_FOLDER, AUDIO_ENCODER_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()

"""
Checkpoints of the `laion-clap` package, without the package: a `.pt` becomes a `ClapModel` in memory.

They hold CLAP as its authors trained it (github.com/LAION-AI/CLAP): HTS-AT hears, RoBERTa reads. Only weights are read
from them; widths, depths and whether long recordings are fused are read off the weights.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    RobertaConfig,
)

from ..modeling.knowledge_files_audiobert import CONFIG_FILE, TOKENIZER_FILES

SUFFIXES = (".pt", ".pth")
# laion-clap's own name for the tokenizer of its text branch, and what it cuts texts to.
TOKENIZER = "roberta-base"
TEXT_LENGTH = 77
DOWNLOAD = "Download it again, for instance from https://huggingface.co/lukewys/laion_clap."

# What laion-clap gives every HTS-AT and does not show in the weights.
SPECTROGRAM_SIZE = 256
PATCH_STRIDE = 4
SAMPLING_RATE = 48_000
HOP_SAMPLES = 480
SECONDS = 10
HERTZ = (50, 14_000)
# RoBERTa's, where `ClapTextConfig` has another by default.
TEXT_NORM_EPSILON = 1e-5
TEXT_HEAD_WIDTH = 64

WORDS = "text_branch.embeddings.word_embeddings.weight"
POSITIONS = "text_branch.embeddings.position_embeddings.weight"
MEL_FILTERS = "audio_branch.logmel_extractor.melW"
FUSION = "audio_branch.patch_embed.mel_conv2d.weight"
# Heads that CLAP's embeddings do not pass through, the front end, and what follows from the configuration.
_UNUSED = re.compile(
    r"(audio|text)_transform\.|audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\."
    r"|audio_branch\.layers\.\d+\.blocks\.\d+\.attn_mask$|text_branch\.embeddings\.(position|token_type)_ids$"
)
_RENAMED = (
    (r"^text_branch\.", "text_model."),
    (r"^audio_branch\.", "audio_model.audio_encoder."),
    (r"(\.blocks\.\d+)\.attn\.proj\.", r"\1.attention.output.dense."),
    (r"(\.blocks\.\d+)\.attn\.", r"\1.attention.self."),
    (r"(\.blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"(\.blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    (r"(\.blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"(\.blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"^(audio_model\.audio_encoder)\.bn0\.", r"\1.batch_norm."),
    (r"^((?:audio|text)_projection)\.0\.", r"\1.linear1."),
    (r"^((?:audio|text)_projection)\.2\.", r"\1.linear2."),
)


class _Unread:
    """Takes the place of NumPy's numbers, which optimizers leave in checkpoints: nothing of NumPy is called."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


# A stand-in is found by its module and its name. NumPy 1 and 2 write different ones.
_STAND_INS: list[Any] = [
    type(name, (_Unread,), {"__module__": module})
    for module, name in (("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"), ("numpy", "dtype"))
]


def find_checkpoint(name_or_path: str | os.PathLike) -> Path | None:
    """The laion-clap checkpoint that this names: a file, or the one in a folder that holds no `config.json`.

    Returns:
        None for a folder of transformers and for a Hub id.

    Raises:
        FileNotFoundError: it is named as a file is, and there is none.
        ValueError: the folder holds several.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    if not path.is_dir():
        if path.suffix in SUFFIXES:
            raise FileNotFoundError(f"{path} is not there.")
        return None
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not found or (path / CONFIG_FILE).exists():
        return None
    if len(found) > 1:
        raise ValueError(f"{path} holds {len(found)} checkpoints, {[file.name for file in found]}: name one of them.")
    return found[0]


def load_laion_clap(checkpoint: str | os.PathLike, **hub: Any) -> tuple[ClapModel, ClapFeatureExtractor, Any]:
    """Reads a checkpoint of laion-clap as transformers would have it.

    Args:
        checkpoint: a file, or a folder that holds one, see `find_checkpoint`.
        hub: `token` and `local_files_only`, for the tokenizer, see `load_tokenizer`.

    Returns:
        The model in eval mode, its feature extractor and its tokenizer.

    Raises:
        OSError: it is not there, or no tokenizer is.
        ValueError: it is damaged, holds anything but weights, which is not run, or those of another model.
    """
    path = find_checkpoint(checkpoint)
    if path is None:
        raise FileNotFoundError(f"{checkpoint} holds no checkpoint of laion-clap, a file named *.pt.")
    weights = read_weights(path)
    try:
        config = config_of(weights)
        extractor = extractor_of(weights)
        model = model_of(weights, config)
    except (KeyError, ValueError) as error:
        reason = f"it lacks {error}." if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is of another model than laion-clap's HTS-AT and RoBERTa: {reason}") from error
    return model, extractor, load_tokenizer(path, len(weights[WORDS]), **hub)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Reads the weights of a checkpoint by the names they have in laion-clap, and nothing else of it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or holds something that would have to be run.
    """
    known = torch.serialization.get_safe_globals()
    try:
        with torch.serialization.safe_globals([stand_in for stand_in in _STAND_INS if stand_in not in known]):
            # Mapped, so that the optimizer's state, twice the size of the weights, is not read.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file or a hostile one leads to
        raise ValueError(
            f"{path} cannot be read as weights: it is damaged, or holds something that would have to be run, which was "
            f"not done ({_reason(error)}). {DOWNLOAD}"
        ) from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError(f"{path} holds no weights by their names, as a checkpoint of laion-clap does. {DOWNLOAD}")
    # Trained on several GPUs.
    return {str(name).removeprefix("module."): value for name, value in weights.items()}


def _reason(error: Exception) -> str:
    """The line of torch's long message that says what was wrong."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    told = next((line for line in lines if "WeightsUnpickler error" in line), lines[0])
    return told.strip().removesuffix(".")


def config_of(weights: dict[str, torch.Tensor]) -> ClapConfig:
    """The configuration that the shapes of laion-clap's weights tell; a KeyError names a weight that is missing."""

    def shape(name: str) -> torch.Size:
        return weights[name].shape

    def count(pattern: str) -> int:
        return len({match[0] for name in weights if (match := re.match(pattern, name))})

    words, hidden = shape(WORDS)
    text = ClapTextConfig(
        vocab_size=words,
        hidden_size=hidden,
        num_hidden_layers=count(r"text_branch\.encoder\.layer\.\d+\."),
        num_attention_heads=max(1, hidden // TEXT_HEAD_WIDTH),
        intermediate_size=shape("text_branch.encoder.layer.0.intermediate.dense.weight")[0],
        max_position_embeddings=shape(POSITIONS)[0],
        type_vocab_size=shape("text_branch.embeddings.token_type_embeddings.weight")[0],
        layer_norm_eps=TEXT_NORM_EPSILON,
    )
    stages = range(count(r"audio_branch\.layers\.\d+\."))
    width, _, _, patch = shape("audio_branch.patch_embed.proj.weight")
    block = "audio_branch.layers.{}.blocks.0"
    # One bias for each offset of two places in a window, and for each head.
    offsets, _ = shape(f"{block.format(0)}.attn.relative_position_bias_table")
    fused = FUSION in weights
    narrow = shape("audio_branch.patch_embed.fusion_model.local_att.0.weight")[0] if fused else width // 4
    audio = ClapAudioConfig(
        spec_size=SPECTROGRAM_SIZE,
        num_mel_bins=shape("audio_branch.bn0.weight")[0],
        patch_size=patch,
        patch_stride=[PATCH_STRIDE, PATCH_STRIDE],
        patch_embeds_hidden_size=width,
        hidden_size=width * 2 ** (len(stages) - 1),
        depths=[count(rf"audio_branch\.layers\.{stage}\.blocks\.\d+\.") for stage in stages],
        num_attention_heads=[shape(f"{block.format(n)}.attn.relative_position_bias_table")[1] for n in stages],
        num_hidden_layers=len(stages),
        window_size=(round(offsets**0.5) + 1) // 2,
        mlp_ratio=shape(f"{block.format(0)}.mlp.fc1.weight")[0] / width,
        enable_fusion=fused,
        fusion_type="aff_2d" if fused else None,
        aff_block_r=width // narrow,
    )
    return ClapConfig(text_config=text, audio_config=audio, projection_dim=shape("audio_projection.2.weight")[0])


def extractor_of(weights: dict[str, torch.Tensor]) -> ClapFeatureExtractor:
    """What laion-clap hears: fused, all of a recording in mel bands of HTK's, else ten seconds of it in Slaney's."""
    filters = weights[MEL_FILTERS]
    extractor = ClapFeatureExtractor(
        feature_size=filters.shape[1],
        sampling_rate=SAMPLING_RATE,
        hop_length=HOP_SAMPLES,
        max_length_s=SECONDS,
        fft_window_size=2 * (filters.shape[0] - 1),
        frequency_min=HERTZ[0],
        frequency_max=HERTZ[1],
        truncation="fusion" if FUSION in weights else "rand_trunc",
        padding="repeatpad",
    )
    expected = extractor.mel_filters_slaney
    # A checkpoint that was trained on other frequencies would load and hear nothing as it should.
    if filters.shape != expected.shape or not np.allclose(filters.numpy(), expected, atol=1e-3 * expected.max()):
        low, high = HERTZ
        raise ValueError(f"it hears other frequencies than {low} to {high} Hz of {SAMPLING_RATE} Hz.")
    return extractor


def model_of(weights: dict[str, torch.Tensor], config: ClapConfig) -> ClapModel:
    """A `ClapModel` of this configuration with laion-clap's weights; raises ValueError unless they are all it needs."""
    renamed: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        if _UNUSED.match(name):
            continue
        new = name
        for pattern, replacement in _RENAMED:
            new = re.sub(pattern, replacement, new)
        if ".attention.self.qkv." in new:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[new.replace("qkv", part)] = third
        else:
            renamed[new] = value
    positions = torch.arange(len(weights[POSITIONS]))[None]
    renamed["text_model.embeddings.position_ids"] = positions
    renamed["text_model.embeddings.token_type_ids"] = torch.zeros_like(positions)
    # Without weights of its own: they would be drawn from the caller's random numbers.
    with torch.device("meta"):
        model = ClapModel(config)
    try:
        # Copied out of the mapped file, as `move_into_memory` says why.
        model.load_state_dict({name: value.clone() for name, value in renamed.items()}, assign=True)
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())[:500]) from error
    return model.eval()


def load_tokenizer(checkpoint: Path, words: int, **hub: Any) -> Any:
    """The tokenizer of a checkpoint's text branch: what lies beside it, else RoBERTa's from the Hub.

    Args:
        checkpoint: the file.
        words: how many entries the text branch has a vector for.
        hub: `token` and `local_files_only`, as for `from_pretrained`.

    Raises:
        OSError: there is none in either place.
        ValueError: it is another model's.
    """
    beside = any((checkpoint.parent / name).exists() for name in TOKENIZER_FILES)
    place = str(checkpoint.parent) if beside else TOKENIZER
    # What is beside it may be the vocabulary alone, without a word on what kind of tokenizer it is for.
    kind = {"config": RobertaConfig()} if beside else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **kind, **hub)
    except OSError as error:
        raise OSError(
            f"{checkpoint} reads with the tokenizer of {TOKENIZER}, which could not be loaded from the Hub: put its "
            f"tokenizer.json beside the checkpoint ({' '.join(str(error).split())[:200]})."
        ) from error
    if len(tokenizer) != words:
        raise ValueError(
            f"The tokenizer in {place} has {len(tokenizer)} entries where the text branch of {checkpoint} has {words}: "
            f"it is another model's. Put that of {TOKENIZER} beside the checkpoint."
        )
    tokenizer.model_max_length = TEXT_LENGTH
    # Transformers notes how it found the files and would save that along, so that a saved copy differs.
    for name in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    return tokenizer

"""Model inputs of one recording: the features of CLAP's audio tower and of AST."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from transformers import ASTFeatureExtractor, ClapFeatureExtractor

from .decoding import AudioFile, load_audio

# AST's filter bank looks at windows of 25 ms every 10 ms (400 and 160 samples, whatever the sampling rate).
AST_WINDOW_SAMPLES = 400
AST_HOP_SAMPLES = 160


def clap_features(
    extractor: ClapFeatureExtractor, file: AudioFile, recording_id: str, max_seconds: float | None = None
) -> dict[str, np.ndarray]:
    """Decodes a recording for CLAP's audio tower.

    The extractor crops recordings that are longer than the model's input at random; here the crops are a function of
    `recording_id`, so a recording has the same features every time. It also marks one recording of every call as
    longer than the input where none is, and a fused CLAP would take a path that is not for it; here only those are
    marked that are.

    Returns:
        `input_features`, fp32 of shape (channels, frames, mel bins), and `is_longer`, bool of shape (1,).
    """
    waveform = load_audio(file, extractor.sampling_rate, max_seconds)
    with numpy_seed_of(recording_id):
        features = extractor(waveform, sampling_rate=extractor.sampling_rate)
    return {
        "input_features": np.asarray(features["input_features"][0], dtype=np.float32),
        "is_longer": np.array([len(waveform) > extractor.nb_max_samples]),
    }


def ast_features(extractor: ASTFeatureExtractor, file: AudioFile) -> np.ndarray:
    """Decodes a recording for AST: fp32 of shape (frames, mel bins), the beginning of a recording that is longer."""
    return ast_values(extractor, ast_waveform(extractor, file))


def ast_waveform(extractor: ASTFeatureExtractor, file: AudioFile) -> np.ndarray:
    """Decodes as much of a recording as AST hears: fp32 of shape (samples,)."""
    samples = AST_WINDOW_SAMPLES + AST_HOP_SAMPLES * extractor.max_length
    return load_audio(file, extractor.sampling_rate, samples / extractor.sampling_rate)


def ast_values(extractor: ASTFeatureExtractor, waveform: np.ndarray) -> np.ndarray:
    """What AST makes of a waveform: fp32 of shape (frames, mel bins), zeros where the waveform is over."""
    # A recording shorter than one window has no frame: silence fills the window up.
    waveform = np.pad(waveform, (0, max(0, AST_WINDOW_SAMPLES - len(waveform))))
    features = extractor(waveform, sampling_rate=extractor.sampling_rate)
    return np.asarray(features["input_values"][0], dtype=np.float32)


def sounding_frames(extractor: ASTFeatureExtractor, waveform: np.ndarray) -> int:
    """How many frames of `ast_values` hold the waveform, and not the padding behind it; at least one."""
    frames = 1 + max(0, len(waveform) - AST_WINDOW_SAMPLES) // AST_HOP_SAMPLES
    return min(frames, int(extractor.max_length))


@contextmanager
def numpy_seed_of(text: str) -> Iterator[None]:
    """Seeds numpy's global generator from `text` and gives it its old state back afterwards."""
    state = np.random.get_state()
    np.random.seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big"))
    try:
        yield
    finally:
        np.random.set_state(state)

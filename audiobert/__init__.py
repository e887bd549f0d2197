"""AudioBERT: a BERT that hears."""

from __future__ import annotations

from pathlib import Path

_here = Path(__file__).parent
if not (_here / "modeling").is_dir():
    # In a clone `modeling/` and `hub_cards/` stand beside this folder; an install puts them into it.
    __path__.append(str(_here.parent))

from transformers import AutoConfig, AutoModelForMaskedLM  # noqa: E402

from .modeling import (  # noqa: E402
    AudioBertConfig,
    AudioBertForMaskedLM,
    AudioBertKnowledgeBase,
    AudioBertMaskedLMOutput,
    AuditorySpan,
    Recording,
    Retrieval,
)

__version__ = "0.1.0"

AutoConfig.register(AudioBertConfig.model_type, AudioBertConfig)
AutoModelForMaskedLM.register(AudioBertConfig, AudioBertForMaskedLM)


def bundled(name: str = "audiobert-tiny") -> Path:
    """
    The folder of a checkpoint that is installed with this package.

    Raises:
        ValueError: if there is none of that name.
    """
    cards = next(Path(folder) / "hub_cards" for folder in __path__ if (Path(folder) / "hub_cards").is_dir())
    names = sorted(path.parent.name for path in cards.glob("*/config.json"))
    if name not in names:
        raise ValueError(f"No bundled checkpoint is called {name!r}; there is {', '.join(names) or 'none'}.")
    return cards / name


__all__ = [
    "AudioBertConfig",
    "AudioBertForMaskedLM",
    "AudioBertKnowledgeBase",
    "AudioBertMaskedLMOutput",
    "AuditorySpan",
    "Recording",
    "Retrieval",
    "bundled",
]

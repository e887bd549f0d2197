"""
What travels with a checkpoint: the configuration, the model and the knowledge base.

Importing it registers the Auto classes.
"""

from transformers import AutoConfig, AutoModelForMaskedLM

from .configuration_audiobert import AudioBertConfig
from .knowledge_audiobert import AudioBertKnowledgeBase, Recording, Retrieval
from .modeling_audiobert import AudioBertForMaskedLM, AudioBertMaskedLMOutput, AuditorySpan

__all__ = [
    "AudioBertConfig",
    "AudioBertForMaskedLM",
    "AudioBertKnowledgeBase",
    "AudioBertMaskedLMOutput",
    "AuditorySpan",
    "Recording",
    "Retrieval",
]

AutoConfig.register(AudioBertConfig.model_type, AudioBertConfig)
AutoModelForMaskedLM.register(AudioBertConfig, AudioBertForMaskedLM)

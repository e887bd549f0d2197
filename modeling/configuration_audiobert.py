"""Configuration of AudioBERT."""

from __future__ import annotations

import copy
import math
from typing import Any, TypeGuard, TypeVar

from transformers import PreTrainedConfig
from transformers.models.audio_spectrogram_transformer.configuration_audio_spectrogram_transformer import ASTConfig
from transformers.models.bert.configuration_bert import BertConfig

INJECTIONS = ("add", "replace", "none")
# What can lie beside the weights, by the name of the model's attribute.
COMPANIONS = ("tokenizer", "feature_extractor", "knowledge_base")
# Fields of earlier versions that nothing read: the knowledge base's own config says them.
RETIRED = ("query_template", "clap", "clap_revision")

ConfigT = TypeVar("ConfigT", bound=PreTrainedConfig)


class AudioBertConfig(PreTrainedConfig):
    """
    Configuration of an [`AudioBertForMaskedLM`].

    Args:
        text_config (`BertConfig` or `dict`, *optional*): The BERT that AudioBERT starts from; BERT-base if omitted.
        audio_config (`ASTConfig` or `dict`, *optional*): The audio encoder; AST-base if omitted.
        lora_rank (`int`, defaults to 64): Rank of the adapter (paper, section III-D).
        lora_alpha (`int`, defaults to 128): Scale of the adapter; its output is multiplied by `lora_alpha / lora_rank`.
        lora_dropout (`float`, defaults to 0.01): Dropout before the adapter.
        lora_target_modules (`list[str]`, defaults to query, key and value): BERT's linear layers that are adapted.
        detector_hidden_states (`list[int]`, *optional*):
            Which of BERT's hidden states the span detector reads, mixed with learned weights: 0 is the output of the
            embeddings, `i` that of layer `i`, -1 the last. All of them if omitted.
        detector_hidden_size (`int`, defaults to 256): Width of the span detector.
        detector_num_layers (`int`, defaults to 1): Transformer layers of the span detector; 0 leaves a linear head.
        detector_num_heads (`int`, defaults to 4): Attention heads of the span detector.
        detector_dropout (`float`, defaults to 0.1): Dropout in the span detector.
        detector_threshold (`float`, defaults to 0.5): A token belongs to a span above this probability.
        injection (`str`, defaults to `"add"`):
            `"add"` adds the audio embedding to the word embedding of the span's first token, `"replace"` puts it in
            its place (as the paper's code does), `"none"` injects nothing: the text-only control.
        retrieval_top_k (`int`, defaults to 1): Recordings per span; what is injected is a mean of their embeddings.
        retrieval_temperature (`float`, *optional*):
            Above 0. The recordings of a span weigh `softmax(similarity / retrieval_temperature)` in that mean: the
            lower it is, the more the best decides. All weigh the same if omitted.
        retrieval_min_similarity (`float`, *optional*):
            From -1 to 1. Where the best recording's similarity to the span is below it, the span is marked and nothing
            is injected. If omitted, something always is.
        standardize_audio (`bool`, defaults to `False`):
            Whether what is injected is first brought to mean 0 and deviation 1 in each of its dimensions, by the
            `audio_mean` and `audio_deviation` of the knowledge base.
        companions (`list[str]`, *optional*):
            Which of `"tokenizer"`, `"feature_extractor"` and `"knowledge_base"` belong to the checkpoint, written when
            it is saved: those are loaded with it, and it is refused where one of them is missing. None, as in
            checkpoints of earlier versions: what lies there is loaded.
        trained_on (`list[dict]`, *optional*):
            The plain texts that BERT or the detector were trained on, each `{"name": ..., "sha256": ...}`, where the
            digest is that of the file's bytes in hexadecimal. None: not known.

    Raises:
        ValueError: naming the field, if a value is out of range, or the field is one that the knowledge base's own
            config holds (the query template and CLAP).
    """

    model_type = "audiobert"
    sub_configs = {"text_config": BertConfig, "audio_config": ASTConfig}
    # What `Trainer` must not gather: these are no tensors, or large ones.
    keys_to_ignore_at_inference = ["spans", "hidden_states", "attentions"]

    def __init__(
        self,
        text_config: BertConfig | dict | None = None,
        audio_config: ASTConfig | dict | None = None,
        lora_rank: int = 64,
        lora_alpha: int = 128,
        lora_dropout: float = 0.01,
        lora_target_modules: list[str] | tuple[str, ...] = ("query", "key", "value"),
        detector_hidden_states: list[int] | None = None,
        detector_hidden_size: int = 256,
        detector_num_layers: int = 1,
        detector_num_heads: int = 4,
        detector_dropout: float = 0.1,
        detector_threshold: float = 0.5,
        injection: str = "add",
        retrieval_top_k: int = 1,
        retrieval_temperature: float | None = None,
        retrieval_min_similarity: float | None = None,
        standardize_audio: bool = False,
        companions: list[str] | None = None,
        trained_on: list[dict[str, str]] | None = None,
        **kwargs: Any,
    ) -> None:
        if retired := [name for name in RETIRED if name in kwargs]:
            raise ValueError(
                f"`{retired[0]}` is no field of an AudioBERT's config: the knowledge base's own config holds it. Build "
                "the knowledge base with it."
            )
        self.text_config = _sub_config("text_config", text_config, BertConfig)
        self.audio_config = _sub_config("audio_config", audio_config, ASTConfig)
        self.lora_rank = lora_rank
        self.lora_alpha = lora_alpha
        self.lora_dropout = lora_dropout
        self.lora_target_modules = list(lora_target_modules)
        self.detector_hidden_states = detector_hidden_states
        self.detector_hidden_size = detector_hidden_size
        self.detector_num_layers = detector_num_layers
        self.detector_num_heads = detector_num_heads
        self.detector_dropout = detector_dropout
        self.detector_threshold = detector_threshold
        self.injection = injection
        self.retrieval_top_k = retrieval_top_k
        self.retrieval_temperature = retrieval_temperature
        self.retrieval_min_similarity = retrieval_min_similarity
        self.standardize_audio = standardize_audio
        self.companions = companions
        self.trained_on = trained_on
        super().__init__(**kwargs)
        # Whether the output embeddings are BERT's word embeddings is BERT's affair.
        self.tie_word_embeddings = self.text_config.tie_word_embeddings
        self._check()

    def _check(self) -> None:
        for name in ("lora_rank", "lora_alpha", "detector_hidden_size", "detector_num_heads", "retrieval_top_k"):
            _require(
                name,
                getattr(self, name),
                _is_int(getattr(self, name)) and getattr(self, name) >= 1,
                "an integer from 1 up",
            )
        _require(
            "detector_num_layers",
            self.detector_num_layers,
            _is_int(self.detector_num_layers) and self.detector_num_layers >= 0,
            "an integer from 0 up",
        )
        for name in ("lora_dropout", "detector_dropout", "detector_threshold"):
            value = getattr(self, name)
            _require(name, value, isinstance(value, int | float) and 0 <= value < 1, "a number from 0 to below 1")
        _require(
            "detector_num_heads",
            self.detector_num_heads,
            self.detector_hidden_size % self.detector_num_heads == 0,
            f"a divisor of detector_hidden_size ({self.detector_hidden_size})",
        )
        _require(
            "lora_target_modules",
            self.lora_target_modules,
            bool(self.lora_target_modules) and all(isinstance(name, str) for name in self.lora_target_modules),
            "a list of at least one module name",
        )
        states = self.text_config.num_hidden_layers + 1
        if self.detector_hidden_states is not None:
            _require(
                "detector_hidden_states",
                self.detector_hidden_states,
                bool(self.detector_hidden_states)
                and all(_is_int(i) and -states <= i < states for i in self.detector_hidden_states),
                f"None or a list of integers from {-states} to {states - 1}",
            )
        temperature, least = self.retrieval_temperature, self.retrieval_min_similarity
        _require(
            "retrieval_temperature",
            temperature,
            temperature is None or (_is_number(temperature) and 0 < temperature < math.inf),
            "None or a number above 0",
        )
        _require(
            "retrieval_min_similarity",
            least,
            least is None or (_is_number(least) and -1 <= least <= 1),
            "None or a number from -1 to 1",
        )
        _require("standardize_audio", self.standardize_audio, isinstance(self.standardize_audio, bool), "true or false")
        _require("injection", self.injection, self.injection in INJECTIONS, f"one of {', '.join(INJECTIONS)}")
        _require(
            "companions",
            self.companions,
            self.companions is None or (isinstance(self.companions, list) and set(self.companions) <= set(COMPANIONS)),
            f"None or a list of {', '.join(COMPANIONS)}",
        )
        _require(
            "trained_on",
            self.trained_on,
            self.trained_on is None or (isinstance(self.trained_on, list) and all(map(_is_text, self.trained_on))),
            "None or a list of objects with `name` and `sha256`, both strings",
        )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> AudioBertConfig:
        """As for any configuration; what earlier versions wrote and nothing read is passed over."""
        return super().from_dict({name: value for name, value in config_dict.items() if name not in RETIRED}, **kwargs)


def _sub_config(name: str, value: object, config_class: type[ConfigT]) -> ConfigT:
    # A copy: a configuration that the caller passed in stays as it is.
    if value is None:
        return config_class()
    if isinstance(value, config_class):
        return copy.deepcopy(value)
    if isinstance(value, dict):
        return config_class.from_dict(value)
    raise ValueError(f"`{name}` must be a {config_class.__name__}, a dict or None, got {type(value).__name__}.")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return (
        isinstance(value, dict) and set(value) == {"name", "sha256"} and all(isinstance(v, str) for v in value.values())
    )


def _require(name: str, value: object, holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"`{name}` must be {rule}, got {value!r}.")


# Saved checkpoints carry this file, so `trust_remote_code` finds it.
AudioBertConfig.register_for_auto_class()

__all__ = ["AudioBertConfig"]

"""AudioBERT: a masked language model that looks up the sounds a sentence speaks of (Ok, Yoo, Lee, ICASSP 2025)."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo
from torch import nn
from transformers import ASTFeatureExtractor, PreTrainedModel, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer import ASTModel
from transformers.models.bert.modeling_bert import BertForMaskedLM
from transformers.utils import can_return_tuple, logging

from .companions_audiobert import (
    KNOWLEDGE_BASE_FOLDER,
    load_companions,
    load_feature_extractor,
    load_tokenizer,
    remove_knowledge_base,
)
from .configuration_audiobert import COMPANIONS, AudioBertConfig
from .detector_audiobert import AudioBertSpanDetector, DetectorAttention, spans_of
from .hub_audiobert import upload
from .injection_audiobert import (
    AudioBertMaskedLMOutput,
    AuditorySpan,
    check_audio,
    embeddings_at,
    heard_positions,
    inject,
    look_up,
    merged,
    positions_of,
    rows_of,
    standardized,
    zero_linear,
)
from .knowledge_audiobert import AudioBertKnowledgeBase
from .memory_audiobert import align_weights, picklable_state

logger = logging.get_logger(__name__)

# What the losses leave out.
IGNORED = -100


class AudioBertForMaskedLM(PreTrainedModel):
    """
    A frozen `BertForMaskedLM` with a span detector, a knowledge base of recordings and a LoRA adapter that is on only
    in the rows that speak of a sound. In every other row it gives that BERT's logits, bit for bit.
    """

    config: AudioBertConfig
    config_class = AudioBertConfig
    base_model_prefix = "audiobert"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # The loss is a mean over the batch; `Trainer` has to divide it when it accumulates gradients.
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["BertEmbeddings", "BertLayer", "ASTEmbeddings", "ASTLayer", "AudioBertSpanDetector"]

    def __init__(self, config: AudioBertConfig) -> None:
        super().__init__(config)
        # peft is imported here, not with this module: it takes as long as all of the rest.
        from .lora_audiobert import add_lora

        self.text_model = BertForMaskedLM(config.text_config)
        add_lora(self.text_model, config.lora_rank, config.lora_alpha, config.lora_dropout, config.lora_target_modules)
        self.audio_model = ASTModel(config.audio_config)
        widths = config.audio_config.hidden_size, config.text_config.hidden_size
        self.audio_projection: nn.Module = nn.Identity() if widths[0] == widths[1] else zero_linear(*widths)
        self.detector = AudioBertSpanDetector(config)
        self.knowledge_base: AudioBertKnowledgeBase | None = None
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.feature_extractor: ASTFeatureExtractor | None = None
        self.post_init()

    # --- making, loading, saving -------------------------------------------------------------------------------------

    @classmethod
    def from_backbones(
        cls,
        text_model: str | os.PathLike,
        audio_model: str | os.PathLike,
        knowledge_base: str | os.PathLike | AudioBertKnowledgeBase | None = None,
        *,
        text_revision: str = "main",
        audio_revision: str = "main",
        knowledge_base_revision: str = "main",
        dtype: str | torch.dtype = "auto",
        cache_dir: str | os.PathLike | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        **config_kwargs: Any,
    ) -> AudioBertForMaskedLM:
        """
        An untrained AudioBERT out of standard checkpoints, each a folder or a Hub id.

        Args:
            text_model: a checkpoint that `BertForMaskedLM` loads, such as `"google-bert/bert-base-uncased"`.
            audio_model: one that `ASTModel` loads, such as `"MIT/ast-finetuned-audioset-10-10-0.4593"`.
            knowledge_base: a knowledge base or where it lies; one can also be set later.
            text_revision, audio_revision, knowledge_base_revision: branch, tag or commit on the Hub.
            dtype, cache_dir, token, local_files_only: as for `from_pretrained`.
            config_kwargs: fields of [`AudioBertConfig`].

        Raises:
            OSError: if a checkpoint is not there, or the Hub gives no answer.
            TypeError: if a keyword is no field of the configuration.
            ValueError: if the knowledge base has embeddings of another width than the audio model.
        """
        if unknown := sorted(set(config_kwargs) - set(inspect.signature(cls.config_class).parameters)):
            raise TypeError(f"{unknown} are no fields of AudioBertConfig; see its documentation for those there are.")
        hub: dict[str, Any] = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
        text = BertForMaskedLM.from_pretrained(text_model, revision=text_revision, dtype=dtype, **hub)
        audio = ASTModel.from_pretrained(audio_model, revision=audio_revision, dtype=dtype, **hub)
        config = cls.config_class(text_config=text.config, audio_config=audio.config, **config_kwargs)
        for part in (config.text_config, config.audio_config):
            if os.path.isdir(part._name_or_path):
                part._name_or_path = ""  # where a checkpoint lay on this machine means nothing on another
        model = cls(config).eval()
        model.to(dtype=text.dtype)
        model.audio_model.load_state_dict(audio.state_dict())
        # An adapted layer keeps its original under `base_layer`.
        own = {name.replace(".base_layer.", "."): value for name, value in model.text_model.state_dict().items()}
        for name, value in text.state_dict().items():
            own[name].copy_(value)
        model.tokenizer = load_tokenizer(text_model, revision=text_revision, **hub)
        model.feature_extractor = load_feature_extractor(audio_model, revision=audio_revision, **hub)
        if knowledge_base is not None:
            if not isinstance(knowledge_base, AudioBertKnowledgeBase):
                knowledge_base = AudioBertKnowledgeBase.from_pretrained(
                    knowledge_base, revision=knowledge_base_revision, **hub
                )
            model.set_knowledge_base(knowledge_base)
        return model

    def set_knowledge_base(
        self, knowledge_base: AudioBertKnowledgeBase | None, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        """
        Gives the model the recordings that it looks sounds up in, or takes them away (None).

        Args:
            knowledge_base: recordings embedded by an audio encoder as wide as this model's.
            tokenizer: BERT's tokenizer, which turns detected tokens into text; the model's own if omitted.

        Raises:
            ValueError: if the widths differ, or the model has no tokenizer.
        """
        if knowledge_base is not None:
            width, expected = knowledge_base.config.audio_hidden_size, self.config.audio_config.hidden_size
            if width != expected:
                raise ValueError(
                    f"The knowledge base holds audio embeddings of width {width}, the audio model gives {expected}. "
                    "Build the knowledge base with this model's audio encoder."
                )
            if tokenizer is None and self.tokenizer is None:
                raise ValueError("A knowledge base is looked up by text: pass BERT's tokenizer as `tokenizer`.")
        self.knowledge_base = knowledge_base
        self.tokenizer = tokenizer or self.tokenizer

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *model_args: Any, **kwargs: Any
    ) -> AudioBertForMaskedLM:
        """
        As for any Transformers model; what its config names as companions (tokenizer, feature extractor, knowledge
        base) comes along.

        Raises:
            OSError: if a weight or a companion is missing, the Hub gives no answer, or a file of the knowledge base is
                missing, truncated or changed.
        """
        from .lora_audiobert import names_in_checkpoints

        wants_info = kwargs.pop("output_loading_info", False)
        kwargs["key_mapping"] = {**names_in_checkpoints(), **(kwargs.get("key_mapping") or {})}
        loaded: Any = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        model, info = loaded
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise OSError(
                f"{pretrained_model_name_or_path} is no complete AudioBERT: it lacks {missing[:5]} ({len(missing)} "
                "weights in all). Make one out of a BERT and an AST with `from_backbones`."
            )
        align_weights(model)
        model._freeze_bert()
        if pretrained_model_name_or_path is not None:
            names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
            hub = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
            code: dict[str, Any] = {
                name: kwargs[name] for name in ("trust_remote_code", "code_revision") if name in kwargs
            }
            found = load_companions(pretrained_model_name_or_path, config=model.config, hub=hub, code=code)
            model.tokenizer, model.feature_extractor = found.tokenizer, found.feature_extractor
            model.set_knowledge_base(found.knowledge_base)
        return loaded if wants_info else model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: dict | None = None,
        push_to_hub: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """
        As for any Transformers model; tokenizer, feature extractor and knowledge base are saved along. A knowledge
        base of an earlier model in the same folder is removed where this one has none.

        Raises:
            NotADirectoryError: if `save_directory` is a file.
        """
        if os.path.isfile(save_directory):
            raise NotADirectoryError(f"{save_directory} is a file: an AudioBERT is saved into a folder.")
        hub_names = ("repo_id", "commit_message", "private", "create_pr")
        hub = {name: kwargs.pop(name) for name in hub_names if name in kwargs}
        from .lora_audiobert import conversions_for_saving

        # Always the names of the format, whatever they were where this model was loaded from.
        self._weight_conversions = conversions_for_saving(self)
        companions = {name: getattr(self, name) for name in COMPANIONS if getattr(self, name) is not None}
        self.config.companions = list(companions)
        super().save_pretrained(save_directory, is_main_process, state_dict, False, *args, **kwargs)
        if not is_main_process:
            return
        sounds = Path(save_directory, KNOWLEDGE_BASE_FOLDER)
        if "knowledge_base" not in companions:
            remove_knowledge_base(sounds)
        for name, companion in companions.items():
            companion.save_pretrained(sounds if name == "knowledge_base" else save_directory)
        if push_to_hub:
            repo_id = hub.pop("repo_id", os.path.basename(os.path.normpath(save_directory)))
            hub = {"commit_message": "Upload model", "token": kwargs.get("token"), **hub}
            self._upload(save_directory, repo_id, **hub)

    def _upload(self, folder: str | os.PathLike, repo_id: str, **hub: Any) -> CommitInfo:
        # What the repository has of an earlier model would be heard again.
        stale = None if self.knowledge_base is not None else f"{KNOWLEDGE_BASE_FOLDER}/*"
        return upload(folder, repo_id, model_card=True, delete_patterns=stale, **hub)

    def push_to_hub(  # type: ignore[override]  # transformers' stub of it is no function
        self,
        repo_id: str,
        *,
        commit_message: str | None = "Upload model",
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = "50GB",
        tags: list[str] | None = None,
    ) -> CommitInfo:
        """As for any Transformers model. The tokenizer, the feature extractor and the knowledge base go along."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            return self._upload(
                folder,
                repo_id,
                tags=tags,
                commit_message=commit_message,
                commit_description=commit_description,
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
            )

    def _freeze_bert(self) -> None:
        for name, parameter in self.text_model.named_parameters():
            parameter.requires_grad_("lora_" in name)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AudioBertSpanDetector):
            init.zeros_(module.mix)
        if isinstance(module, DetectorAttention):
            init.xavier_uniform_(module.in_proj_weight)
            init.zeros_(module.in_proj_bias)

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable = torch.utils.checkpoint.checkpoint,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        from .lora_audiobert import checkpoint_contexts

        function = partial(gradient_checkpointing_func, context_fn=checkpoint_contexts)
        super()._set_gradient_checkpointing(enable, function, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return picklable_state(self)

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.text_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_output_embeddings(value)

    # --- hearing -----------------------------------------------------------------------------------------------------

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        span_labels: torch.Tensor | None = None,
        audio_embeds: torch.Tensor | None = None,
        audio_values: torch.Tensor | None = None,
        audio_positions: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> AudioBertMaskedLMOutput:
        """
        Args:
            input_ids, attention_mask, token_type_ids: `(batch, sequence)`, as for BERT.
            position_ids, inputs_embeds: as for BERT. Without `input_ids` nothing is looked up.
            labels: int64 `(batch, sequence)`, -100 off the masks; gives the masked-language-model loss, which is 0 if
                no token has a label.
            span_labels: int64 `(batch, sequence)`, 1 on tokens of an auditory span, 0 on others, -100 on ignored
                ones; gives the detector's loss, 0 where all are ignored. With `span_labels` and no `labels` nothing is
                looked up.
            audio_positions: int64 `(batch, spans)`, index of the first token of each span, -1 on padding. A row with
                none is plain BERT's. If omitted, the model detects spans and looks them up by itself.
            audio_embeds: float `(batch, spans, audio_hidden_size)`, an embedding of a recording for each span.
            audio_values: float `(batch, spans, frames, mel_bins)`, what AST's feature extractor makes of a recording
                for each span, in place of `audio_embeds`: the audio encoder then runs, and is trained.
            audio_mask: bool `(batch, spans)`, False where nothing is injected: the span is marked, so that the row is
                no plain one, but its words stay as they are. If omitted, every span is heard.
            output_hidden_states, output_attentions: as for BERT; the configuration's values if omitted.

        Raises:
            ValueError: if audio is given without positions, or positions without audio (unless
                `config.injection` is "none" or the mask leaves no span), a shape or a position does not fit, the audio
                of a row is not finite, or `config.standardize_audio` lacks the knowledge base that it needs.
        """
        text = input_ids if input_ids is not None else inputs_embeds
        check_audio(self.config, text, audio_embeds, audio_values, audio_positions, audio_mask)
        wants_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        wants_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids, "position_ids": position_ids}
        bert = {name: value for name, value in given.items() if value is not None}
        kwargs = {**kwargs, "output_attentions": wants_attentions}

        plain, span_logits, spans = None, None, None
        if audio_positions is None or span_labels is not None or not (audio_positions >= 0).any(1).all():
            plain = self.text_model(input_ids, inputs_embeds=inputs_embeds, output_hidden_states=True, **bert, **kwargs)
            span_logits = self.detector(plain.hidden_states, attention_mask)
            detects_only = span_labels is not None and labels is None
            if audio_positions is None and input_ids is not None and not detects_only and self._can_hear():
                spans = self.detect_spans(input_ids, span_logits, attention_mask)
                positions = positions_of(spans, input_ids.device)
                if self.config.injection != "none" and self.knowledge_base is not None:
                    spans, audio_embeds, audio_mask = look_up(spans, positions, self.knowledge_base, self.config)
                audio_positions = positions

        outputs: Any = plain
        if audio_positions is not None and (rows := (audio_positions >= 0).any(1).nonzero().squeeze(1)).numel():
            if inputs_embeds is None:
                inputs_embeds = self.get_input_embeddings()(input_ids)
            chosen = partial(rows_of, rows=rows, batch=len(inputs_embeds))
            words = chosen(inputs_embeds)
            if self.config.injection != "none":
                positions = heard_positions(audio_positions, audio_mask)
                audio = embeddings_at(positions >= 0, audio_embeds, audio_values, self.audio_model)
                if self.config.standardize_audio:
                    audio = standardized(audio, self.knowledge_base)
                add = self.config.injection == "add"
                words = inject(words, chosen(positions), audio, self.audio_projection, add)
            from .lora_audiobert import lora_switched

            with lora_switched(True):
                heard = self.text_model(
                    inputs_embeds=words,
                    output_hidden_states=wants_states,
                    **{name: chosen(value) for name, value in bert.items()},
                    **kwargs,
                )
            outputs = heard if plain is None else merged(plain, heard, rows)

        return AudioBertMaskedLMOutput(
            loss=self._loss(outputs.logits, labels, span_logits, span_labels),
            logits=outputs.logits,
            span_logits=span_logits,
            spans=spans,
            hidden_states=outputs.hidden_states if wants_states else None,
            attentions=outputs.attentions if wants_attentions else None,
        )

    def _can_hear(self) -> bool:
        if self.tokenizer is not None and (self.config.injection == "none" or self.knowledge_base is not None):
            return True
        logger.warning_once(
            "This AudioBERT has no knowledge base, so it hears nothing and answers as plain BERT: give it one with "
            "`model.set_knowledge_base(knowledge_base, tokenizer)`."
        )
        return False

    @torch.no_grad()
    def detect_spans(
        self, input_ids: torch.Tensor, span_logits: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> list[list[AuditorySpan]]:
        """
        The auditory spans of each row: the runs of tokens that the detector gives more than
        `config.detector_threshold`. Special tokens belong to none.

        Args:
            input_ids: int64 `(batch, sequence)`.
            span_logits: float `(batch, sequence, 2)`.
            attention_mask: `(batch, sequence)`, 0 on padding.

        Raises:
            ValueError: if the model has no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError("Spans are text: set `model.tokenizer` to BERT's tokenizer first.")
        # An unknown word is a word like others.
        special_ids = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        probabilities = span_logits.float().softmax(-1)[..., 1]
        is_auditory = probabilities > self.config.detector_threshold
        is_auditory &= ~torch.isin(input_ids, torch.tensor(sorted(special_ids), device=input_ids.device))
        if attention_mask is not None:
            is_auditory &= attention_mask.bool()
        injected = self.config.injection != "none"
        found: list[list[AuditorySpan]] = []
        for row, runs in enumerate(spans_of(is_auditory)):
            found.append([])
            for start, end in runs:
                if text := str(self.tokenizer.decode(input_ids[row, start:end])).strip():
                    score = probabilities[row, start:end].mean().item()
                    found[row].append(AuditorySpan(start, end, text, score, injected=injected))
        return found

    def _loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor | None,
        span_logits: torch.Tensor | None,
        span_labels: torch.Tensor | None,
    ) -> torch.Tensor | None:
        pairs = [(logits, labels), (span_logits, span_labels)]
        given = [(scores, target) for scores, target in pairs if scores is not None and target is not None]
        losses = [_cross_entropy(scores, target) for scores, target in given]
        if not losses:
            return None
        loss = torch.stack(losses).sum()
        if self.training and torch.is_grad_enabled() and not loss.requires_grad:
            # A batch in which nothing is to be heard trains nothing, but `Trainer` still calls backward on its loss.
            for parameter in self.parameters():
                if parameter.requires_grad:
                    loss = loss + 0.0 * parameter.sum()
        return loss


def _cross_entropy(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that have a label; 0 where none has, in place of a mean over nothing, which is NaN."""
    target = target.flatten().to(scores.device)
    scores = scores.flatten(0, 1).float()
    if not (target != IGNORED).any():
        return 0.0 * scores.sum()
    return nn.functional.cross_entropy(scores, target, ignore_index=IGNORED)


# Saved checkpoints carry this file, so `trust_remote_code` finds it.
AudioBertForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")

__all__ = ["AudioBertForMaskedLM", "AudioBertMaskedLMOutput", "AuditorySpan"]

"""AudioBERT: a masked language model that looks up the sounds a sentence speaks of (Ok, Yoo, Lee, ICASSP 2025)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from huggingface_hub import CommitInfo
from torch import nn
from transformers import ASTFeatureExtractor, PreTrainedModel, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.modeling_outputs import MaskedLMOutput
from transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer import ASTModel
from transformers.models.bert.modeling_bert import BertForMaskedLM
from transformers.utils import ModelOutput, can_return_tuple, logging

from .configuration_audiobert import AudioBertConfig
from .detector_audiobert import AudioBertSpanDetector, spans_of
from .hub_audiobert import has_file, load_feature_extractor, load_tokenizer, upload
from .knowledge_audiobert import AudioBertKnowledgeBase, Recording

logger = logging.get_logger(__name__)

KNOWLEDGE_BASE_FOLDER = "knowledge_base"


@dataclass(frozen=True)
class AuditorySpan:
    """
    A span of a prompt that speaks of a sound.

    Attributes:
        start (`int`): index of its first token in the row of `input_ids`.
        end (`int`): index after its last token.
        text (`str`): its text, as the tokenizer decodes it.
        score (`float`): mean probability that the detector gives its tokens.
        recordings (`tuple[Recording, ...]`): what was retrieved for it, best first; empty where nothing was.
    """

    start: int
    end: int
    text: str
    score: float
    recordings: tuple[Recording, ...] = ()


@dataclass
class AudioBertMaskedLMOutput(ModelOutput):
    """
    Output of [`AudioBertForMaskedLM`].

    Attributes:
        loss (`torch.FloatTensor` of shape `(1,)`, given with `labels` or `span_labels`):
            Masked-language-model loss, span detection loss, or their sum.
        logits (`torch.FloatTensor` of shape `(batch, sequence, vocab_size)`):
            Scores of the vocabulary: plain BERT's in rows without an auditory span, AudioBERT's in the others.
        span_logits (`torch.FloatTensor` of shape `(batch, sequence, 2)`):
            The detector's scores of "the rest" and "auditory span"; None if `audio_positions` were given for every row
            and no `span_labels`, as BERT's plain pass is not needed then.
        spans (`list[list[AuditorySpan]]` of length `batch`):
            What the model detected and retrieved by itself, row by row; None if it did not look.
        hidden_states (`tuple[torch.FloatTensor]`, with `output_hidden_states=True`):
            BERT's, of shape `(batch, sequence, hidden_size)` each, from the pass that gave the row's logits.
        attentions (`tuple[torch.FloatTensor]`, with `output_attentions=True`):
            BERT's, of shape `(batch, heads, sequence, sequence)` each, from the pass that gave the row's logits.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    span_logits: torch.FloatTensor | None = None
    spans: list[list[AuditorySpan]] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class AudioBertForMaskedLM(PreTrainedModel):
    """
    A frozen `BertForMaskedLM` with a span detector, a knowledge base of recordings and a LoRA adapter that is on only
    in the rows that speak of a sound. In every other row it gives that BERT's logits, bit for bit.
    """

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
        self.audio_projection = nn.Identity() if widths[0] == widths[1] else _zero_linear(*widths)
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
        **config_kwargs,
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
            OSError: if a checkpoint is not there.
            ValueError: if the knowledge base has embeddings of another width than the audio model.
        """
        hub = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
        text = BertForMaskedLM.from_pretrained(text_model, revision=text_revision, dtype=dtype, **hub)
        audio = ASTModel.from_pretrained(audio_model, revision=audio_revision, dtype=dtype, **hub)
        config = cls.config_class(text_config=text.config, audio_config=audio.config, **config_kwargs)
        for part in (config.text_config, config.audio_config):
            if os.path.isdir(part._name_or_path):
                part._name_or_path = ""  # where a checkpoint lay on this machine means nothing on another
        model = cls(config).to(text.dtype).eval()
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
            self.config.clap = knowledge_base.config.clap.name
            self.config.clap_revision = knowledge_base.config.clap.revision
            self.config.query_template = knowledge_base.config.query_template
        self.knowledge_base = knowledge_base
        self.tokenizer = tokenizer or self.tokenizer

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *model_args, **kwargs
    ) -> AudioBertForMaskedLM:
        """
        As for any Transformers model; tokenizer, feature extractor and knowledge base that lie with the checkpoint
        come along.

        Raises:
            OSError: if a weight is missing, or a file of the knowledge base is missing, truncated or changed.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise OSError(
                f"{pretrained_model_name_or_path} is no complete AudioBERT: it lacks {missing[:5]} ({len(missing)} "
                "weights in all). Make one out of a BERT and an AST with `from_backbones`."
            )
        model._freeze_bert()
        if pretrained_model_name_or_path is not None:
            names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
            hub = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
            model._load_companions(pretrained_model_name_or_path, hub)
        return (model, info) if wants_info else model

    def _load_companions(self, path: str | os.PathLike, hub: dict) -> None:
        self.tokenizer = load_tokenizer(path, **hub)
        self.feature_extractor = load_feature_extractor(path, **hub)
        subfolder = os.path.join(hub.pop("subfolder", ""), KNOWLEDGE_BASE_FOLDER)
        if has_file(path, "config.json", subfolder=subfolder, **hub):
            self.set_knowledge_base(AudioBertKnowledgeBase.from_pretrained(path, subfolder=subfolder, **hub))

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, push_to_hub: bool = False, **kwargs
    ) -> None:
        """As for any Transformers model; tokenizer, feature extractor and knowledge base are saved along."""
        hub_names = ("repo_id", "commit_message", "private", "create_pr")
        hub = {name: kwargs.pop(name) for name in hub_names if name in kwargs}
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if not is_main_process:
            return
        for companion in (self.tokenizer, self.feature_extractor):
            if companion is not None:
                companion.save_pretrained(save_directory)
        if self.knowledge_base is not None:
            self.knowledge_base.save_pretrained(os.path.join(save_directory, KNOWLEDGE_BASE_FOLDER))
        if push_to_hub:
            repo_id = hub.pop("repo_id", os.path.basename(os.path.normpath(save_directory)))
            hub = {"commit_message": "Upload model", **hub}
            upload(save_directory, repo_id, token=kwargs.get("token"), model_card=True, **hub)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload model",
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str = "50GB",
        tags: list[str] | None = None,
    ) -> CommitInfo:
        """As for any Transformers model. The tokenizer, the feature extractor and the knowledge base go along."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            return upload(
                folder,
                repo_id,
                model_card=True,
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

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable = torch.utils.checkpoint.checkpoint, **kwargs
    ) -> None:
        from .lora_audiobert import checkpoint_contexts

        function = partial(gradient_checkpointing_func, context_fn=checkpoint_contexts)
        super()._set_gradient_checkpointing(enable, function, **kwargs)

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
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        span_labels: torch.LongTensor | None = None,
        audio_embeds: torch.FloatTensor | None = None,
        audio_values: torch.FloatTensor | None = None,
        audio_positions: torch.LongTensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> AudioBertMaskedLMOutput:
        """
        Args:
            input_ids, attention_mask, token_type_ids: `(batch, sequence)`, as for BERT.
            position_ids, inputs_embeds: as for BERT. Without `input_ids` nothing is looked up.
            labels: int64 `(batch, sequence)`, -100 off the masks; gives the masked-language-model loss.
            span_labels: int64 `(batch, sequence)`, 1 on tokens of an auditory span, 0 on others, -100 on ignored
                ones; gives the detector's loss. With `span_labels` and no `labels` nothing is looked up.
            audio_positions: int64 `(batch, spans)`, index of the first token of each span, -1 on padding. A row with
                none is plain BERT's. If omitted, the model detects spans and looks them up by itself.
            audio_embeds: float `(batch, spans, audio_hidden_size)`, an embedding of a recording for each span.
            audio_values: float `(batch, spans, frames, mel_bins)`, what AST's feature extractor makes of a recording
                for each span, in place of `audio_embeds`: the audio encoder then runs, and is trained.

        Raises:
            ValueError: if audio is given without positions, or positions without audio (unless
                `config.injection` is "none"), or a shape or a position does not fit.
        """
        self._check_audio(input_ids, inputs_embeds, audio_embeds, audio_values, audio_positions)
        bert = {"attention_mask": attention_mask, "token_type_ids": token_type_ids, "position_ids": position_ids}
        bert = {name: value for name, value in bert.items() if value is not None}
        kwargs = {**kwargs, "output_attentions": output_attentions}

        plain, span_logits, spans = None, None, None
        if audio_positions is None or span_labels is not None or not (audio_positions >= 0).any(1).all():
            plain = self.text_model(input_ids, inputs_embeds=inputs_embeds, output_hidden_states=True, **bert, **kwargs)
            span_logits = self.detector(plain.hidden_states, attention_mask)
        detects_only = span_labels is not None and labels is None
        if audio_positions is None and input_ids is not None and not detects_only and self._can_hear():
            spans = self.detect_spans(input_ids, span_logits, attention_mask)
            spans, audio_positions, audio_embeds = self._look_up(spans)

        outputs = plain
        if audio_positions is not None and (rows := (audio_positions >= 0).any(1).nonzero().squeeze(1)).numel():
            if inputs_embeds is None:
                inputs_embeds = self.get_input_embeddings()(input_ids)
            chosen = partial(_rows_of, rows=rows, batch=len(inputs_embeds))
            words = self._inject(*map(chosen, (inputs_embeds, audio_positions, audio_embeds, audio_values)))
            from .lora_audiobert import lora_switched

            with lora_switched(True):
                heard = self.text_model(
                    inputs_embeds=words,
                    output_hidden_states=output_hidden_states,
                    **{name: chosen(value) for name, value in bert.items()},
                    **kwargs,
                )
            outputs = heard if plain is None else _merge(plain, heard, rows)

        return AudioBertMaskedLMOutput(
            loss=self._loss(outputs.logits, labels, span_logits, span_labels),
            logits=outputs.logits,
            span_logits=span_logits,
            spans=spans,
            hidden_states=outputs.hidden_states if output_hidden_states else None,
            attentions=outputs.attentions if output_attentions else None,
        )

    def _check_audio(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        audio_embeds: torch.Tensor | None,
        audio_values: torch.Tensor | None,
        audio_positions: torch.Tensor | None,
    ) -> None:
        given = [
            name
            for name, value in (("audio_embeds", audio_embeds), ("audio_values", audio_values))
            if value is not None
        ]
        if len(given) == 2:
            raise ValueError("Pass `audio_embeds` or `audio_values`, not both.")
        if audio_positions is None:
            if given:
                raise ValueError(f"`{given[0]}` needs `audio_positions`: the index of each span's first token.")
            return
        text = input_ids if input_ids is not None else inputs_embeds
        if text is None:
            raise ValueError("Pass `input_ids` or `inputs_embeds`.")
        if audio_positions.ndim != 2 or len(audio_positions) != len(text):
            raise ValueError(f"`audio_positions` must be ({len(text)}, spans), got {tuple(audio_positions.shape)}.")
        if audio_positions.numel() and audio_positions.max() >= text.shape[1]:
            raise ValueError(
                f"`audio_positions` holds {int(audio_positions.max())}, but the sequence has {text.shape[1]} tokens."
            )
        audio = audio_embeds if audio_embeds is not None else audio_values
        if audio is None:
            if self.config.injection != "none" and bool((audio_positions >= 0).any()):
                raise ValueError("`audio_positions` needs `audio_embeds` or `audio_values`: what is heard there.")
            return
        if audio.shape[:2] != audio_positions.shape:
            raise ValueError(
                f"`{given[0]}` is {tuple(audio.shape)}: its first two sizes must be those of `audio_positions`, "
                f"{tuple(audio_positions.shape)}."
            )
        if audio_embeds is not None and audio_embeds.shape[-1] != self.config.audio_config.hidden_size:
            raise ValueError(
                f"`audio_embeds` has width {audio_embeds.shape[-1]}, the audio model gives "
                f"{self.config.audio_config.hidden_size}."
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
        self, input_ids: torch.LongTensor, span_logits: torch.FloatTensor, attention_mask: torch.Tensor | None = None
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
        probabilities = span_logits.float().softmax(-1)[..., 1]
        # An unknown word is a word like others.
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        special = torch.tensor(sorted(special), device=input_ids.device)
        is_auditory = (probabilities > self.config.detector_threshold) & ~torch.isin(input_ids, special)
        if attention_mask is not None:
            is_auditory &= attention_mask.bool()
        found: list[list[AuditorySpan]] = []
        for row, runs in enumerate(spans_of(is_auditory)):
            spans = [
                AuditorySpan(
                    start,
                    end,
                    text=self.tokenizer.decode(input_ids[row, start:end]).strip(),
                    score=probabilities[row, start:end].mean().item(),
                )
                for start, end in runs
            ]
            found.append([span for span in spans if span.text])
        return found

    def _look_up(
        self, spans: list[list[AuditorySpan]]
    ) -> tuple[list[list[AuditorySpan]], torch.LongTensor, torch.FloatTensor | None]:
        """The spans with their recordings, and `audio_positions` and `audio_embeds` for [`forward`]."""
        positions = torch.full((len(spans), max([1, *map(len, spans)])), -1)
        for row, found in enumerate(spans):
            positions[row, : len(found)] = torch.tensor([span.start for span in found], dtype=torch.long)
        positions = positions.to(self.device)
        if self.config.injection == "none" or not any(spans):
            return spans, positions, self._no_audio(positions)

        retrievals = self.knowledge_base.search(
            [span.text for row in spans for span in row], top_k=self.config.retrieval_top_k
        )
        remaining = iter(retrievals)
        heard = [[replace(span, recordings=next(remaining).recordings) for span in row] for row in spans]
        embeds = [self.knowledge_base.audio_embeds(retrieval.indices).mean(0) for retrieval in retrievals]
        audio_embeds = self._no_audio(positions)
        audio_embeds[positions >= 0] = torch.stack(embeds).to(audio_embeds)
        return heard, positions, audio_embeds

    def _no_audio(self, positions: torch.LongTensor) -> torch.FloatTensor:
        width = self.config.audio_config.hidden_size
        return torch.zeros(*positions.shape, width, device=positions.device, dtype=self.dtype)

    def _inject(
        self,
        words: torch.FloatTensor,
        positions: torch.LongTensor,
        audio_embeds: torch.FloatTensor | None,
        audio_values: torch.FloatTensor | None,
    ) -> torch.FloatTensor:
        """
        Word embeddings, float `(rows, sequence, hidden_size)`, with each span's audio at its first token (paper,
        section III-C). BERT adds positions and applies its LayerNorm to the result, once.
        """
        if self.config.injection == "none":
            return words
        row, span = (positions >= 0).nonzero(as_tuple=True)
        if audio_values is not None:
            audio = self.audio_model(audio_values[row, span].to(self.audio_model.dtype)).last_hidden_state.mean(1)
        else:
            audio = audio_embeds[row, span]
        where = row, positions[row, span]
        audio = self.audio_projection(audio.to(words.dtype))
        return words.index_put(where, audio, accumulate=self.config.injection == "add")

    def _loss(
        self,
        logits: torch.FloatTensor,
        labels: torch.LongTensor | None,
        span_logits: torch.FloatTensor | None,
        span_labels: torch.LongTensor | None,
    ) -> torch.FloatTensor | None:
        pairs = [(logits, labels), (span_logits, span_labels)]
        losses = [
            nn.functional.cross_entropy(scores.flatten(0, 1).float(), target.flatten().to(scores.device))
            for scores, target in pairs
            if target is not None
        ]
        if not losses:
            return None
        loss = sum(losses)
        if self.training and torch.is_grad_enabled() and not loss.requires_grad:
            # A batch in which nothing is to be heard trains nothing, but `Trainer` still calls backward on its loss.
            loss = loss + 0.0 * sum(parameter.sum() for parameter in self.parameters() if parameter.requires_grad)
        return loss


def _zero_linear(in_features: int, out_features: int) -> nn.Linear:
    # Like the adapter, the map starts as no change at all: what it lets through it has to learn.
    linear = nn.Linear(in_features, out_features)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    linear._is_hf_initialized = True
    return linear


def _rows_of(value: torch.Tensor | None, rows: torch.LongTensor, batch: int) -> torch.Tensor | None:
    # Position ids may be (1, sequence) for the whole batch.
    if value is None or len(value) != batch or len(rows) == batch:
        return value
    return value[rows.to(value.device)]


def _merge(plain: MaskedLMOutput, heard: MaskedLMOutput, rows: torch.LongTensor) -> MaskedLMOutput:
    """The plain pass's outputs with those of the heard rows in their places."""

    def put(below: torch.Tensor, above: torch.Tensor) -> torch.Tensor:
        return below.index_copy(0, rows.to(below.device), above)

    def put_all(below: Sequence[torch.Tensor] | None, above: Sequence[torch.Tensor] | None) -> tuple | None:
        return None if above is None or below is None else tuple(map(put, below, above))

    return MaskedLMOutput(
        logits=put(plain.logits, heard.logits),
        hidden_states=put_all(plain.hidden_states, heard.hidden_states),
        attentions=put_all(plain.attentions, heard.attentions),
    )


# Saved checkpoints carry this file, so `trust_remote_code` finds it.
AudioBertForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")

__all__ = ["AudioBertForMaskedLM", "AudioBertMaskedLMOutput", "AuditorySpan"]

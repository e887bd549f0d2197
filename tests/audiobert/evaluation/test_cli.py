"""Which kind of model the commands take a checkpoint for."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import (
    BertConfig,
    FlaubertConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedConfig,
    RobertaConfig,
    XLMConfig,
)

from audiobert.evaluation.cli import _kind_of

from model_fixtures import tiny_config


@pytest.mark.parametrize(
    ("config", "saved_as", "kind"),
    [
        (FlaubertConfig(), "FlaubertWithLMHeadModel", "masked"),
        (XLMConfig(), "XLMWithLMHeadModel", "masked"),
        (BertConfig(), "BertForMaskedLM", "masked"),
        (BertConfig(), "BertLMHeadModel", "causal"),
        (RobertaConfig(), "RobertaForCausalLM", "causal"),
        (ModernBertConfig(), "ModernBertForMaskedLM", "masked"),
        (GPT2Config(), "GPT2LMHeadModel", "causal"),
        (LlamaConfig(), "LlamaForCausalLM", "causal"),
        # What was saved without its head, and what transformers does not list, goes by its family.
        (RobertaConfig(), "RobertaModel", "masked"),
        (GPT2Config(), None, "causal"),
        (tiny_config(), "AudioBertForMaskedLM", "masked"),
    ],
)
def test_a_checkpoint_is_of_the_kind_that_it_was_saved_as(
    config: PreTrainedConfig, saved_as: str | None, kind: str, tmp_path: Path
) -> None:
    config.architectures = [saved_as] if saved_as else None
    config.save_pretrained(tmp_path)
    assert _kind_of(str(tmp_path)).value == kind

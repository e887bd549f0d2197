"""Likelihoods of sentences that differ in one place: the same however they are batched, padded and shared."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel, PreTrainedModel, PreTrainedTokenizerBase

from audiobert.language_models.causal import load_causal, text_ids
from audiobert.language_models.likelihood import Blank, Likelihood, likelihoods

from causal_fixtures import FAMILIES, cache_in, make_causal
from text_fixtures import tiny_bert, tiny_tokenizer

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
NAMES = ("cache", "past_key_values")
ANSWERS = ["cat", "dog", "duckling", "barn owl", "duck"]
BLANKS = [
    Blank("Meow is the sound a [MASK] makes.", ANSWERS),
    Blank("[MASK] make a sound.", ANSWERS),
    Blank("The rain has a [MASK] pitch than the hum.", ["higher", "lower"]),
    Blank("The sound of rain and hum and bark and meow is that of a [MASK].", ANSWERS, head="Fact: ", tail=" Yes."),
]


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_causal(make_causal(tmp_path_factory.mktemp(request.param), request.param))


@torch.no_grad()
def one_by_one(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> float:
    """The log-probability of a whole text after the token it begins with, without batch, padding or cache."""
    ids = torch.tensor(text_ids(tokenizer, [text]))
    logits = model(input_ids=ids, use_cache=False).logits.log_softmax(-1)
    return logits[0, :-1].gather(1, ids[0, 1:, None]).sum().item()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_differences_are_those_of_whole_texts_one_by_one(loaded: Loaded, batch_size: int) -> None:
    found = likelihoods(*loaded, BLANKS, batch_size=batch_size)

    for blank, scores in zip(BLANKS, found, strict=True):
        alone = [one_by_one(*loaded, text) for text in blank.texts]
        shared = alone[0] - scores[0].total
        assert [score.total + shared for score in scores] == pytest.approx(alone, abs=1e-3)
        assert len(set(alone)) == len(alone)


def test_texts_are_whole_and_begin_sentences_with_a_capital() -> None:
    assert BLANKS[1].texts[:2] == ["Cat make a sound.", "Dog make a sound."]
    assert BLANKS[3].texts[3] == "Fact: The sound of rain and hum and bark and meow is that of a barn owl. Yes."
    assert Blank("A [MASK] is a [MASK].", ["cat"]).texts == ["A cat is a cat."]


def test_what_counts_is_the_answer_and_what_follows(loaded: Loaded) -> None:
    _, tokenizer = loaded
    (scores,) = likelihoods(*loaded, BLANKS[:1])

    before = len(tokenizer("Meow is the sound a", add_special_tokens=False)["input_ids"])
    for text, score in zip(BLANKS[0].texts, scores, strict=True):
        assert score.tokens == len(tokenizer(text, add_special_tokens=False)["input_ids"]) - before
        assert score.mean == pytest.approx(score.total / score.tokens)


def test_the_first_word_of_a_text_has_a_probability(loaded: Loaded) -> None:
    (scores,) = likelihoods(*loaded, BLANKS[1:2])

    for text, score in zip(BLANKS[1].texts, scores, strict=True):
        assert score.total == pytest.approx(one_by_one(*loaded, text), abs=1e-3)


def test_an_end_that_the_tokenizer_adds_is_left_out(tmp_path: Path) -> None:
    model, tokenizer = load_causal(make_causal(tmp_path, "gemma2"))
    expected = likelihoods(model, tokenizer, BLANKS)
    tokenizer.add_eos_token = True

    assert tokenizer("cat")["input_ids"][-1] == tokenizer.eos_token_id
    assert likelihoods(model, tokenizer, BLANKS) == expected


def test_the_model_goes_back_to_training(loaded: Loaded) -> None:
    model, _ = loaded
    model.train()
    model.get_submodule(model.base_model_prefix).eval()

    likelihoods(*loaded, BLANKS[2:3])

    assert model.training and not model.base_model.training
    model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_what_answers_share_is_read_once_whatever_the_argument_is_called(tmp_path: Path, name: str) -> None:
    """`cache` from transformers 5.24 on, `past_key_values` before."""
    model, tokenizer = load_causal(make_causal(tmp_path, "llama"))
    expected = likelihoods(model, tokenizer, BLANKS, batch_size=64)
    read = as_named(model, name)

    found = likelihoods(model, tokenizer, BLANKS[:1], batch_size=2)

    (shared, *rests), beginning = read, text_ids(tokenizer, [BLANKS[0].beginning])[0]
    assert shared == (1, len(beginning) - 1)
    longest = max(len(ids) for ids in text_ids(tokenizer, BLANKS[0].texts))
    assert [rows for rows, _ in rests] == [2, 2, 1]
    assert max(tokens for _, tokens in rests) == longest - len(beginning) + 1
    assert [score.total for score in found[0]] == pytest.approx([score.total for score in expected[0]], abs=1e-3)


def as_named(model: PreTrainedModel, name: str) -> list[tuple[int, int]]:
    """Has the model take and give its cache by this name alone. Returns the shapes of what it will have read."""
    original, read = model.forward, []

    def answer(input_ids: torch.Tensor, given: Any, **kwargs: Any) -> SimpleNamespace:
        read.append(tuple(input_ids.shape))
        theirs = {} if given is None else {next(n for n in NAMES if n in signature(original).parameters): given}
        output = original(input_ids=input_ids, **theirs, **kwargs)
        return SimpleNamespace(logits=output.logits, **{name: cache_in(output.get)})

    def new(input_ids: torch.Tensor, cache: Any = None, attention_mask: Any = None, use_cache: Any = None) -> Any:
        return answer(input_ids, cache, attention_mask=attention_mask, use_cache=use_cache)

    def old(
        input_ids: torch.Tensor, past_key_values: Any = None, attention_mask: Any = None, use_cache: Any = None
    ) -> Any:
        return answer(input_ids, past_key_values, attention_mask=attention_mask, use_cache=use_cache)

    model.forward = {"cache": new, "past_key_values": old}[name]
    return read


def test_a_text_beyond_the_context_is_refused(loaded: Loaded) -> None:
    with pytest.raises(ValueError, match="the model reads 1024"):
        likelihoods(*loaded, [Blank("A " + "rain " * 1100 + "[MASK].", ANSWERS)])


def test_likelihoods_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    model, tokenizer = load_causal(make_causal(tmp_path, "llama"))
    with torch.no_grad():
        model.lm_head.weight[0] = torch.nan

    with pytest.raises(ValueError, match="not a number.*dtype"):
        likelihoods(model, tokenizer, BLANKS[:1])


def test_models_that_see_what_follows_are_refused() -> None:
    tokenizer = tiny_tokenizer()
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2)

    for model in (tiny_bert(len(tokenizer)), BertLMHeadModel(config)):
        with pytest.raises(ValueError, match="no causal language model.*evaluate_model"):
            likelihoods(model, tokenizer, BLANKS)


def test_an_answer_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    model, tokenizer = load_causal(make_causal(tmp_path, "llama"))

    with pytest.raises(ValueError, match="cannot write the answer ''"):
        likelihoods(model, tokenizer, [Blank("A [MASK].", ["cat", ""])])


def test_a_tokenizer_without_beginning_and_end_is_refused(tmp_path: Path) -> None:
    model, tokenizer = load_causal(make_causal(tmp_path, "gpt2"))
    tokenizer.eos_token = None

    with pytest.raises(ValueError, match="set `bos_token`"):
        likelihoods(model, tokenizer, BLANKS)


def test_the_mean_is_per_token() -> None:
    assert Likelihood(-6.0, 3).mean == -2.0

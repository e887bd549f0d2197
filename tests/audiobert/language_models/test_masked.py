"""Masked language models of several families through the code that real checkpoints go through."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AlbertTokenizerFast,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizerFast,
)

from audiobert import AudioBertForMaskedLM, bundled
from audiobert.data.auditorybench import FEATURES, MASK, PITCH_ANSWERS
from audiobert.data.batches import tokenize_auditorybench
from audiobert.data.masking import mask_answers
from audiobert.evaluation.masked import evaluate_model
from audiobert.language_models.masked import context_length, load_masked
from audiobert.language_models.modes import logits_of_columns

from text_fixtures import tiny_bert, tiny_bert_config, tiny_tokenizer

ANIMALS = [
    ("Meow is the sound a [MASK] makes.", "cat", "Meow"),
    ("[MASK] is what barks, not the duck.", "dog", "barks"),
    ('A [MASK] makes a "hum" sound.', "duckling", "hum"),
    ("The sound of rain is not of a [MASK].", "old goose", "rain"),
    ("The [MASK]'s sound is a hum", "duckling", "hum"),
]
PITCH = [
    ("The rain has a [MASK] pitch than the hum.", "higher", "rain", "hum"),
    ("The bark has a [MASK] pitch than the meow of a cat.", "lower", "bark", "meow"),
]
WORDS = "a the of is what not has than sound pitch makes rain hum cat dog bark meow duck higher lower".split()
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def rows_of(animals: Sequence[tuple] = ANIMALS, pitch: Sequence[tuple] = PITCH) -> Dataset:
    rows = [
        {"sentence": sentence, "answer": answer, "spans": spans, "task": task}
        for task, given in (("animal", animals), ("pitch", pitch))
        for sentence, answer, *spans in given
    ]
    return Dataset.from_list(rows, features=FEATURES)


# --- a tiny checkpoint of each family --------------------------------------------------------------------------------


def byte_level_bpe(specials: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]], Tokenizer]:
    """Merges up to the words above, with a space before them and without, and to nothing else."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        min_frequency=50,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for word in WORDS for text in (f" {word}", word)] * 50, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    return tokenizer.get_vocab(), merges, tokenizer


def roberta() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    vocabulary, merges, _ = byte_level_bpe(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    # As Hugging Face's checkpoints have it: the mask takes the space before it.
    tokenizer = RobertaTokenizerFast(vocabulary, merges, mask_token=AddedToken("<mask>", lstrip=True, special=True))
    config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=40, type_vocab_size=1, **SIZES)
    return RobertaForMaskedLM(config), tokenizer


def roberta_with_a_plain_mask() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    vocabulary, merges, _ = byte_level_bpe(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    model, tokenizer = roberta()
    return model, RobertaTokenizerFast(vocabulary, merges)


def albert() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    characters = sorted(set("abcdefghijklmnopqrstuvwxyz.,'\""))
    vocabulary = [("<pad>", 0.0), ("<unk>", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[MASK]", 0.0), ("▁", -3.0)]
    vocabulary += [(f"▁{word}", -2.0) for word in WORDS] + [("ling", -4.0)]
    tokenizer = AlbertTokenizerFast(vocab=[*vocabulary, *((character, -6.0) for character in characters)])
    config = AlbertConfig(vocab_size=len(tokenizer), embedding_size=8, max_position_embeddings=40, **SIZES)
    return AlbertForMaskedLM(config), tokenizer


def modernbert() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    specials = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    _, _, backend = byte_level_bpe([*specials.values(), "[MASK]"])
    # No trimming: a token's characters include the space before it.
    ends = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        mask_token=AddedToken("[MASK]", lstrip=True, special=True),
        model_input_names=["input_ids", "attention_mask"],
        **specials,
    )
    ids = {name: tokenizer.convert_tokens_to_ids(specials[f"{name}_token"]) for name in ("cls", "sep", "pad")}
    ids = {f"{name}_token_id": value for name, value in ids.items()}
    config = ModernBertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=40, **ids, bos_token_id=0, eos_token_id=1, **SIZES
    )
    return ModernBertForMaskedLM(config), tokenizer


def distilbert() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    # BERT's own tokenizer, which gives token types, though this model knows of none.
    tokenizer = tiny_tokenizer()
    sizes = {"dim": 16, "hidden_dim": 16, "n_layers": 1, "n_heads": 2}
    config = DistilBertConfig(vocab_size=len(tokenizer), max_position_embeddings=40, **sizes)
    return DistilBertForMaskedLM(config), tokenizer


def electra() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = tiny_tokenizer()
    config = ElectraConfig(vocab_size=len(tokenizer), embedding_size=8, max_position_embeddings=40, **SIZES)
    return ElectraForMaskedLM(config), tokenizer


def bert() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = tiny_tokenizer()
    return tiny_bert(len(tokenizer)), tokenizer


FAMILIES = [bert, roberta, roberta_with_a_plain_mask, albert, modernbert, distilbert, electra]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda make: make.__name__)
def saved(request, tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param.__name__)
    for part in request.param():
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def loaded(saved) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return load_masked(str(saved))


Guess = Callable[[list[int], int], list[int]]


def rig(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], guess: Guess) -> None:
    """
    Makes the model remember whole texts, as its tokenizer reads them: where what it sees is one of them but for the
    masks, its logits there are best for `guess(missing tokens, vocabulary size)`. Otherwise all are 0. Its own forward
    pass runs all the same.
    """
    remembered = tokenizer(list(texts))["input_ids"]
    forward = model.forward

    @functools.wraps(forward)
    def rigged(input_ids, attention_mask, **inputs):
        output = forward(input_ids=input_ids, attention_mask=attention_mask, **inputs)
        output.logits = torch.zeros(*input_ids.shape, len(tokenizer))
        for row, (ids, length) in enumerate(zip(input_ids.tolist(), attention_mask.sum(1).tolist(), strict=True)):
            masks = [index for index in range(length) if ids[index] == tokenizer.mask_token_id]
            for text in remembered:
                if len(text) == length and all(ids[i] == text[i] for i in range(length) if i not in masks):
                    missing = guess([text[index] for index in masks], len(tokenizer))
                    output.logits[row, masks, missing] = 100.0
        return output

    model.forward = rigged


def right(missing: list[int], _size: int) -> list[int]:
    return missing


def wrong(missing: list[int], size: int) -> list[int]:
    return [(token + 1) % size for token in missing]


def right_from_the_second(missing: list[int], size: int) -> list[int]:
    return [*wrong(missing[:1], size), *missing[1:]]


def right_but_the_last(missing: list[int], size: int) -> list[int]:
    return [*missing[:-1], *wrong(missing[-1:], size)]


def filled(data: Dataset, answers: Sequence[str] | None = None) -> list[str]:
    answers = data["answer"][:] if answers is None else answers
    return [sentence.replace(MASK, answer) for sentence, answer in zip(data["sentence"], answers, strict=True)]


def other_pitch(data: Dataset) -> list[str]:
    return [{"higher": "lower", "lower": "higher"}.get(answer, answer) for answer in data["answer"]]


def test_a_model_that_knows_the_answers(loaded):
    model, tokenizer = loaded
    data = rows_of()
    rig(model, tokenizer, filled(data), right)
    result = evaluate_model(model, tokenizer, data, batch_size=3, progress=False)
    assert {task: scores.accuracy for task, scores in result.scores["data"].items()} == dict.fromkeys(
        ("animal", "pitch", "combined"), 1.0
    )
    assert [row.predicted.replace(" ", "") for row in result.rows] == [
        answer.replace(" ", "") for answer in data["answer"]
    ]
    assert [row.row for row in result.rows] == list(range(len(data))) and {row.split for row in result.rows} == {"data"}
    assert [row.sentence for row in result.rows] == data["sentence"][:]
    assert [list(row.spans) for row in result.rows] == data["spans"][:]


def test_a_model_that_knows_wrong_answers(loaded):
    model, tokenizer = loaded
    data = rows_of()
    rig(model, tokenizer, filled(data.select(range(5))), wrong)
    rig(model, tokenizer, filled(data, other_pitch(data))[5:], right)
    result = evaluate_model(model, tokenizer, data, progress=False)
    assert {task: scores.correct for task, scores in result.scores["data"].items()} == dict.fromkeys(
        ("animal", "pitch", "combined"), 0
    )
    assert [row.predicted for row in result.rows[5:]] == ["lower", "higher"]


@pytest.mark.parametrize("guess", [right_from_the_second, right_but_the_last])
def test_one_wrong_piece_is_a_wrong_answer(loaded, guess):
    model, tokenizer = loaded
    data = rows_of(ANIMALS[2:], [])
    rig(model, tokenizer, filled(data), guess)
    for row in tokenize_auditorybench(data, tokenizer):
        assert sum(label >= 0 for label in row["labels"]) > 1
    assert evaluate_model(model, tokenizer, data, progress=False).scores["data"]["animal"].correct == 0


def test_the_batch_size_changes_nothing(loaded):
    model, tokenizer = loaded
    once, together = (
        evaluate_model(model, tokenizer, rows_of(), batch_size=size, progress=False).rows for size in (1, 7)
    )
    assert once == together


def test_against_one_sentence_at_a_time(loaded):
    """What the model answers to the finished sentence with the answer's tokens masked is what is counted."""
    model, tokenizer = loaded
    data = rows_of()
    with torch.no_grad():
        for parameter in model.parameters():  # so that answers differ from mask to mask
            parameter.normal_()
    result = evaluate_model(model, tokenizer, data, batch_size=3, progress=False)
    for row, tokenized in zip(result.rows, tokenize_auditorybench(data, tokenizer), strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokenized["input_ids"]])).logits[0]
        masks = [index for index, label in enumerate(tokenized["labels"]) if label != -100]
        if row.task == "pitch":
            candidates = [mask_answers([row.sentence], [answer], tokenizer)[0].pieces for answer in PITCH_ANSWERS]
            higher, lower = (sum(logits[place, token] for place, token in pieces.items()) for pieces in candidates)
            assert row.predicted == ("higher" if higher > lower else "lower")
        else:
            at_masks = logits[masks]
            at_masks[:, tokenizer.unk_token_id] = -torch.inf
            assert row.predicted == tokenizer.decode(at_masks.argmax(-1)).strip()


def test_logits_of_some_places(loaded):
    model, tokenizer = loaded
    inputs = torch.tensor([tokenizer("the cat has a duck")["input_ids"]])
    with torch.no_grad():
        whole = model(input_ids=inputs).logits
        with logits_of_columns(model, torch.tensor([1, 3])):
            some = model(input_ids=inputs).logits
        again = model(input_ids=inputs).logits
    assert some.shape[1] == 2 and torch.allclose(some, whole[:, [1, 3]], atol=1e-5) and torch.equal(again, whole)


def test_spans_are_found_whatever_the_tokens_are(loaded):
    _, tokenizer = loaded
    for row in tokenize_auditorybench(rows_of(), tokenizer):
        assert [text.lower() for text in row["span_texts"]] == [text.lower() for text in row["spans"]] or (
            row["spans"] == ["barks"]  # which no vocabulary here has as one token
        )
        for place in row["audio_positions"]:
            assert row["span_labels"][place] == 1 and row["labels"][place] == -100


def test_as_long_as_the_model_reads(loaded):
    """Each position of the model is used, and none beyond it; an answer cut off in part is wrong."""
    model, tokenizer = loaded
    limit = context_length(model)
    assert 32 <= limit <= 64
    sentence, answer = "the " * 200 + "[MASK]", "duckling"
    pieces = len(mask_answers([sentence], [answer], tokenizer)[0].pieces)
    assert pieces > 1
    fits, half = ("the " * (limit - 2 - count) + "[MASK]" for count in (pieces, pieces - 1))
    data = rows_of([(fits, answer, "the"), (half, answer, "the"), (sentence, answer, "the")], [])
    rig(model, tokenizer, filled(data.select([0])), right)
    result = evaluate_model(model, tokenizer, data, progress=False)
    assert [row.correct for row in result.rows] == [True, False, False]
    tokenized = tokenize_auditorybench(data, tokenizer, limit)
    assert [len(ids) for ids in tokenized["input_ids"]] == [limit] * 3
    assert [any(label >= 0 for label in labels) for labels in tokenized["labels"]] == [True, False, False]


# --- what stands at the masks ----------------------------------------------------------------------------------------


def tokens_of(tokenizer: PreTrainedTokenizerBase, sentence: str, answer: str) -> tuple[list[str], list[str]]:
    masked = mask_answers([sentence], [answer], tokenizer)[0]
    ids = masked.inputs["input_ids"]
    assert [index for index, token in enumerate(ids) if token == tokenizer.mask_token_id] == sorted(masked.pieces)
    return tokenizer.convert_ids_to_tokens(ids), tokenizer.convert_ids_to_tokens(list(masked.pieces.values()))


@pytest.mark.parametrize("make", [roberta, roberta_with_a_plain_mask])
def test_byte_level_pieces_have_their_leading_space(make):
    tokenizer = make()[1]
    assert tokens_of(tokenizer, "a [MASK] has", "cat") == (["<s>", "a", "<mask>", "Ġhas", "</s>"], ["Ġcat"])
    assert tokens_of(tokenizer, "[MASK] has", "cat") == (["<s>", "<mask>", "Ġhas", "</s>"], ["cat"])
    # A space that is a token of its own belongs to the word; two answers can be read in two ways.
    assert tokens_of(tokenizer, "[MASK] has [MASK]", "ox")[1] == ["o", "x", "Ġ", "o", "x"]


def test_sentencepiece_pieces():
    tokenizer = albert()[1]
    expected = ["[CLS]", "▁a", "[MASK]", "[MASK]", ".", "[SEP]"], ["▁duck", "ling"]
    assert tokens_of(tokenizer, "a [MASK].", "duckling") == expected  # "." and not "▁.", as after any word
    assert tokens_of(tokenizer, "[MASK] has", "ox") == (["[CLS]", *["[MASK]"] * 3, "▁has", "[SEP]"], ["▁", "o", "x"])


@pytest.mark.parametrize(
    ("make", "pieces"), [(bert, ["duck"]), (roberta, ["Ġduck"]), (albert, ["▁duck"]), (modernbert, ["Ġduck"])]
)
def test_an_answer_that_is_a_part_of_a_word(make, pieces):
    """A vocabulary with "ducks" in it: its token is neither the answer's nor what is left of the word."""
    tokenizer = make()[1]
    tokens, labels = tokens_of(tokenizer, "the [MASK]s hum", "duck")
    assert labels == pieces and tokens.count(tokenizer.mask_token) == 1
    assert tokens[-3].endswith("s") and tokens[-2].endswith("hum")


def test_one_token_for_the_answer_and_more():
    """Without splitting at punctuation "cat." may be one token."""
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "[MASK]": 2, "a": 3, "cat.": 4, "cat": 5, ".": 6}))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]"
    )
    assert tokens_of(tokenizer, "a [MASK].", "cat") == (["a", "[MASK]", "."], ["cat"])


# --- pitch -----------------------------------------------------------------------------------------------------------


def splitting_tokenizer() -> PreTrainedTokenizerBase:
    """Makes "low" and "##er" of "lower"."""
    tokenizer = tiny_tokenizer(["low", "##er"])
    words = [token for token in tokenizer.get_vocab() if token != "lower"]
    return type(tokenizer)(vocab={token: index for index, token in enumerate(words)})


@pytest.mark.parametrize(("believed", "correct"), [(right, [True, True]), (other_pitch, [False, False])])
def test_a_tokenizer_that_splits_lower(believed, correct):
    tokenizer, data = splitting_tokenizer(), rows_of([])
    model = tiny_bert(len(tokenizer))
    texts = filled(data) if believed is right else filled(data, other_pitch(data))
    rig(model, tokenizer, texts, right)
    result = evaluate_model(model, tokenizer, data, progress=False)
    assert [row.correct for row in result.rows] == correct
    expected = data["answer"][:] if believed is right else other_pitch(data)
    assert [row.predicted for row in result.rows] == expected


def test_pieces_of_pitch_are_summed_as_log_probabilities():
    tokenizer, data = splitting_tokenizer(), rows_of([])
    model = tiny_bert(len(tokenizer))
    result = evaluate_model(model, tokenizer, data, progress=False)
    for row in result.rows:
        scores = []
        for pieces in (["higher"], ["low", "##er"]):
            ids = tokenizer(row.sentence.replace(MASK, " ".join(["[MASK]"] * len(pieces))), return_tensors="pt")
            with torch.no_grad():
                log_probabilities = model(**ids).logits.log_softmax(-1)[ids["input_ids"] == tokenizer.mask_token_id]
            tokens = tokenizer.convert_tokens_to_ids(pieces)
            scores.append(sum(log_probabilities[place, token].item() for place, token in enumerate(tokens)))
        assert row.predicted == PITCH_ANSWERS[scores.index(max(scores))]
        assert row.correct == (row.predicted == row.answer)


def test_equal_logits_are_no_answer():
    tokenizer = tiny_tokenizer()
    model = tiny_bert(len(tokenizer))
    for parameter in model.cls.parameters():
        parameter.data.zero_()
    result = evaluate_model(model, tokenizer, rows_of([]), progress=False)
    assert [(row.predicted, row.correct) for row in result.rows] == [("", False)] * 2


def test_an_unknown_higher_is_refused():
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "[MASK]": 2, "lower": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]"
    )
    with pytest.raises(ValueError, match="does not know 'higher'"):
        evaluate_model(tiny_bert(len(tokenizer)), tokenizer, rows_of([]), progress=False)


# --- what cannot be evaluated ----------------------------------------------------------------------------------------


def test_a_split_without_rows_has_no_scores():
    tokenizer = tiny_tokenizer()
    result = evaluate_model(tiny_bert(len(tokenizer)), tokenizer, rows_of().select([]), progress=False)
    assert result.scores == {"data": {}} and result.rows == []
    assert result.to_markdown(titled=True).count("\n") == 3


def test_a_causal_model_is_refused(tmp_path):
    tokenizer = tiny_tokenizer()
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel is a causal .* scored by `audiobert.evaluation.causal"):
        evaluate_model(model, tokenizer, rows_of(), progress=False)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"of type gpt2. A causal language model is scored by `audiobert.evaluation.causal"
    ):
        load_masked(str(tmp_path))


def test_a_tokenizer_without_a_mask_is_refused(tmp_path):
    tokenizer = tiny_tokenizer(mask_token=None)
    model = tiny_bert(len(tokenizer))
    with pytest.raises(
        ValueError, match=r"BertTokenizer has no mask token.* `audiobert.evaluation.causal.predict_causal`"
    ):
        evaluate_model(model, tokenizer, rows_of(), progress=False)


def test_an_encoder_without_its_head_is_refused(tmp_path):
    tokenizer = tiny_tokenizer()
    encoder = BertModel(tiny_bert_config(len(tokenizer)))
    with pytest.raises(ValueError, match="BertModel has no head for masks"):
        evaluate_model(encoder, tokenizer, rows_of(), progress=False)
    encoder.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no weights for cls.predictions.* would be random"):
        load_masked(str(tmp_path))


def test_the_tokenizer_of_another_model_is_refused():
    tokenizer = tiny_tokenizer()
    with pytest.raises(ValueError, match="but the model knows 50 tokens: use the tokenizer that belongs to the model"):
        evaluate_model(tiny_bert(50), tokenizer, rows_of(), progress=False)


def test_the_type_of_the_weights_is_chosen(saved):
    assert load_masked(str(saved), dtype="bfloat16")[0].dtype == torch.bfloat16
    assert load_masked(str(saved))[0].dtype == torch.float32


def test_the_bundled_checkpoint_loads_as_one_of_them():
    model, _ = load_masked(str(bundled()))
    assert isinstance(model, AudioBertForMaskedLM) and model.knowledge_base is not None and not model.training

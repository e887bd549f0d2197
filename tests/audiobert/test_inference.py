"""Any prompt at all: an answer or one clear error, and what the stock pipeline does with plain BERT."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import FillMaskPipeline

from audiobert.inference import answer_prompts

from model_fixtures import AUDITORY, AUDITORY_WORDS, PLAIN, hearing_audiobert, original_bert

WORDS = st.sampled_from(["[MASK]", "[SEP]", "the", "cat", "🐈", "\x00", "\t", "ſ", "İ", *AUDITORY_WORDS])
PROMPTS = st.one_of(st.text(max_size=80), st.lists(WORDS, max_size=40).map(" ".join))
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def model():
    return hearing_audiobert()


@pytest.fixture(scope="module")
def stock(model):
    """The stock pipeline over the BERT that the model started from."""
    return FillMaskPipeline(model=original_bert(model), tokenizer=model.tokenizer)


@QUICK
@given(prompt=PROMPTS)
@example(prompt="")
@example(prompt="[MASK]")
@example(prompt="[MASK] [MASK]")
@example(prompt="meow " * 10_000)
@example(prompt="meow " * 10_000 + "[MASK]")
@example(prompt="🐈 says meow 🐈 [MASK]")
@example(prompt="\x00\x07 meow \u200b[MASK]")
@example(prompt=AUDITORY)
def test_every_prompt_has_answers_or_one_error(model, prompt):
    (answer,) = answer_prompts(model, model.tokenizer, [prompt], top_k=2)
    if answer.error is not None:
        assert "[MASK]" in answer.error or "shorten" in answer.error
        return
    masks = model.tokenizer(prompt)["input_ids"].count(model.tokenizer.mask_token_id)
    assert len(answer.answers) == len(answer.answers_without_audio) == masks >= 1
    for heard in answer.spans:
        assert 0 <= heard.start < heard.end <= len(prompt)
    if not answer.spans:
        assert answer.answers == answer.answers_without_audio


@QUICK
@given(prompts=st.lists(PROMPTS, min_size=1, max_size=4))
def test_a_bad_prompt_does_not_hold_up_its_neighbours(model, prompts):
    answers = answer_prompts(model, model.tokenizer, [AUDITORY, *prompts, PLAIN], top_k=1)
    assert [answer.prompt for answer in answers] == [AUDITORY, *prompts, PLAIN]
    assert answers[0].error is None
    assert [heard.span.text for heard in answers[0].spans] == ["meow"]
    assert answers[-1].spans == []


@QUICK
@given(prompt=PROMPTS)
@example(prompt="")
@example(prompt="no mask")
@example(prompt="[MASK] [MASK]")
@example(prompt="cat " * 200 + "[MASK]")
def test_the_pipeline_fails_where_plain_berts_does(model, stock, prompt):
    ours = FillMaskPipeline(model=model, tokenizer=model.tokenizer)
    assert type(outcome(ours, prompt)) is type(outcome(stock, prompt))


def outcome(fill: FillMaskPipeline, prompt: str) -> object:
    try:
        return fill(prompt)
    except Exception as error:
        return error


@pytest.mark.parametrize(("prompts", "passes"), [([PLAIN], 1), ([PLAIN, AUDITORY], 3)])
def test_bert_is_asked_for_its_own_answer_only_where_something_was_heard(model, prompts, passes):
    seen = []
    handle = model.text_model.register_forward_hook(lambda *_: seen.append(1))
    try:
        answers = answer_prompts(model, model.tokenizer, prompts)
    finally:
        handle.remove()
    assert len(seen) == passes
    assert answers[0].answers == answers[0].answers_without_audio
    assert all(answer.answers != answer.answers_without_audio for answer in answers[1:])

"""Explanations of one prompt: they are the model's own answers, their parts add up, and the page holds them."""

import json
import math
import os
import re

import pytest
import torch

from audiobert import AudioBertForMaskedLM, bundled
from audiobert.explain import explain, write_explanation
from audiobert.inference import answer_prompts
from audiobert.modeling.lora_audiobert import lora_switched

from audio_fixtures import write_recordings
from model_fixtures import (
    AUDITORY,
    PLAIN,
    TWO_SPANS,
    discerning_audiobert,
    hearing_audiobert,
    original_bert,
    untrained_audiobert,
)


@pytest.fixture(scope="module")
def model():
    return hearing_audiobert()


def page_data(path) -> dict:
    page = path.read_text(encoding="utf-8")
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


@pytest.mark.parametrize("prompt", [AUDITORY, TWO_SPANS, PLAIN, "the [MASK] of meow [MASK]"])
def test_it_explains_the_answers_that_the_model_gives(model, prompt):
    explanation = explain(model, prompt, top_k=3)
    (answer,) = answer_prompts(model, model.tokenizer, [prompt], top_k=3)
    for ours, theirs in (
        (explanation.answers, answer.answers),
        (explanation.answers_without_audio, answer.answers_without_audio),
    ):
        assert [[a.token for a in mask] for mask in ours] == [[a.token for a in mask] for mask in theirs]
        probabilities = [[a.probability for a in mask] for mask in ours]
        for mask, expected in zip(probabilities, theirs, strict=True):
            assert mask == pytest.approx([a.probability for a in expected], rel=1e-4)
    assert [(s.start, s.end) for s in explanation.spans] == [(s.start, s.end) for s in answer.spans]
    assert [[h.recording for h in s.recordings] for s in explanation.spans] == [
        list(s.span.recordings) for s in answer.spans
    ]


def test_the_parts_of_a_change_are_what_they_say_and_add_up(model):
    explanation = explain(model, TWO_SPANS, top_k=4)
    batch = model.tokenizer(TWO_SPANS, return_tensors="pt")
    mask = batch["input_ids"][0] == model.tokenizer.mask_token_id
    with torch.no_grad():
        plain = original_bert(model)(**batch).logits[0, mask].log_softmax(-1)[0]
        with lora_switched(True):
            adapted = model.text_model(**batch).logits[0, mask].log_softmax(-1)[0]
        heard = model(**batch)
        second = model.knowledge_base.search([heard.spans[0][1].text])[0]
        embeds = model.knowledge_base.audio_embeds(second.indices)[None]
        position = torch.tensor([[heard.spans[0][1].start]])
        alone = model(**batch, audio_positions=position, audio_embeds=embeds).logits[0, mask].log_softmax(-1)[0]
    (attributions,) = explanation.attributions
    assert len(attributions) >= 4
    for part in attributions:
        token = model.tokenizer.convert_tokens_to_ids(part.token)
        assert part.audio_off == pytest.approx(plain[token].item(), abs=1e-4)
        assert part.adapter == pytest.approx((adapted - plain)[token].item(), abs=1e-4)
        assert part.spans[1] == pytest.approx((alone - adapted)[token].item(), abs=1e-4)
        assert part.audio_on - part.audio_off == pytest.approx(part.adapter + sum(part.spans) + part.together, abs=1e-4)
    # The tiny model is random enough for each of these to show.
    assert max(abs(part.together) for part in attributions) > 1e-3
    assert max(abs(part.spans[0]) for part in attributions) > 1e-3


def test_with_one_span_nothing_happens_together(model):
    for part in explain(model, AUDITORY).attributions[0]:
        assert len(part.spans) == 1
        assert part.together == pytest.approx(0, abs=1e-5)


def test_an_adapter_that_changes_nothing_is_told_from_audio_that_does():
    (attributions,) = explain(untrained_audiobert(), AUDITORY).attributions
    assert all(part.adapter == pytest.approx(0, abs=1e-5) for part in attributions)
    assert max(abs(part.spans[0]) for part in attributions) > 1e-3


def test_a_control_that_injects_nothing_has_its_adapter_alone():
    explanation = explain(hearing_audiobert(injection="none"), AUDITORY)
    assert [span.recordings for span in explanation.spans] == [()]
    for part in explanation.attributions[0]:
        assert part.spans == ()
        assert part.together == pytest.approx(0, abs=1e-5)
        assert part.audio_on - part.audio_off == pytest.approx(part.adapter, abs=1e-5)


def test_replacing_words_by_audio_is_explained_too():
    for part in explain(hearing_audiobert(injection="replace"), TWO_SPANS).attributions[0]:
        assert part.audio_on - part.audio_off == pytest.approx(part.adapter + sum(part.spans) + part.together, abs=1e-4)


def test_a_span_whose_recordings_are_too_far_is_shown_with_them_and_changes_nothing(tmp_path):
    # The rain is found with a similarity of .600, the hum with .887.
    model = discerning_audiobert(retrieval_min_similarity=0.7, retrieval_top_k=2, retrieval_temperature=0.1)
    explanation = explain(model, TWO_SPANS)
    assert [(span.injected, len(span.recordings)) for span in explanation.spans] == [(False, 2), (True, 2)]
    assert explanation.min_similarity == 0.7
    for part in explanation.attributions[0]:
        assert len(part.spans) == 1 and part.together == pytest.approx(0, abs=1e-4)
        assert part.audio_on - part.audio_off == pytest.approx(part.adapter + part.spans[0], abs=1e-4)
    data = page_data(write_explanation(explanation, tmp_path / "page.html"))
    assert data["min_similarity"] == 0.7
    assert [span["injected"] for span in data["spans"]] == [False, True]
    nearest = data["spans"][0]["recordings"][0]
    assert nearest["similarity"] == pytest.approx(0.6, abs=0.001) and nearest["found_by"] == "audio"

    model.config.retrieval_min_similarity = 1.0
    silent = explain(model, TWO_SPANS)
    assert {part.spans for part in silent.attributions[0]} == {()}
    for part in silent.attributions[0]:
        assert part.audio_on - part.audio_off == pytest.approx(part.adapter, abs=1e-4)


@pytest.mark.parametrize("options", [{"retrieval_top_k": 3, "retrieval_temperature": 0.1}, {"standardize_audio": True}])
def test_the_parts_add_up_whatever_is_injected(options):
    for part in explain(discerning_audiobert(**options), AUDITORY).attributions[0]:
        assert part.together == pytest.approx(0, abs=1e-4)
        assert part.audio_on - part.audio_off == pytest.approx(part.adapter + part.spans[0], abs=1e-4)


def test_where_nothing_is_heard_nothing_is_attributed(model, tmp_path):
    explanation = explain(model, PLAIN)
    assert (explanation.spans, explanation.attributions, explanation.can_hear) == ((), (), True)
    assert explanation.answers == explanation.answers_without_audio
    assert page_data(write_explanation(explanation, tmp_path / "page.html"))["attributions"] == []


def test_a_model_without_a_knowledge_base_says_that_it_cannot_hear():
    deaf = hearing_audiobert()
    deaf.set_knowledge_base(None)
    explanation = explain(deaf, AUDITORY)
    assert (explanation.spans, explanation.can_hear) == ((), False)


def test_tokens_have_the_detectors_probabilities(model):
    explanation = explain(model, AUDITORY)
    words = [AUDITORY[token.start : token.end] for token in explanation.tokens]
    assert words == ["meow", "is", "the", "sound", "a", "[MASK]", "makes"]
    assert [token.is_special for token in explanation.tokens] == [word == "[MASK]" for word in words]
    above = [token.probability > explanation.threshold for token in explanation.tokens if not token.is_special]
    assert above == [True] + [False] * 5
    assert explanation.tokens[0].probability == pytest.approx(explanation.spans[0].score, abs=1e-5)


@pytest.mark.parametrize(
    "prompt", ["🐈 meow 🐈 </script><b onclick=x>&amp; ſ İ [MASK] \u2028 é", '"meow"  [MASK]\t', AUDITORY]
)
def test_the_page_holds_the_prompt_and_nothing_that_could_run(model, tmp_path, prompt):
    path = write_explanation(explain(model, prompt), tmp_path / "new" / "page.html")
    data = page_data(path)
    spans = explain(model, prompt).spans
    assert data["prompt"] == prompt
    assert "".join(piece["text"] for piece in data["pieces"]) == prompt
    marked = [piece["text"] for piece in data["pieces"] if piece.get("span") is not None]
    assert spans and "".join(marked) == "".join(span.text.replace(" ", "") for span in spans)
    page = path.read_text(encoding="utf-8")
    assert page.count("</script>") == 2
    assert not re.search(r"""(src|href)=["']|url\(|https?://(?!www\.w3\.org/2000/svg")""", page)
    assert [child.name for child in path.parent.iterdir()] == ["page.html"]


def test_recordings_at_hand_are_in_the_page_and_others_say_why_not(model, tmp_path):
    rows = [{"file_name": f"sounds/{i}.wav", "label": "dog"} for i in range(12)]
    audio = write_recordings(tmp_path / "audio", rows)
    for path in (audio / "sounds").iterdir():
        path.rename(path.with_suffix(".ogg"))
    spans = explain(model, TWO_SPANS, audio_dir=audio).spans
    views = [heard.view for span in spans for heard in span.recordings]
    assert len(views) == 2 and all(view.player.startswith("data:audio/wav;base64,") for view in views)
    data = page_data(write_explanation(explain(model, TWO_SPANS, audio_dir=audio), tmp_path / "page.html"))
    shown = data["spans"][0]["recordings"][0]["view"]
    assert shown["player"] == views[0].player
    assert shown["mel"]["bins"] * shown["mel"]["frames"] == views[0].mel.size

    first = spans[0].recordings[0].recording.id
    (audio / first).write_bytes(b"no audio")
    (heard,) = explain(model, TWO_SPANS, audio_dir=audio).spans[0].recordings
    assert heard.view is None and "cannot be decoded" in heard.note and str(tmp_path) not in heard.note
    (audio / first).unlink()
    (heard,) = explain(model, TWO_SPANS, audio_dir=audio).spans[0].recordings
    assert heard.view is None and first in heard.note and str(tmp_path) not in heard.note
    (heard,) = explain(model, TWO_SPANS).spans[0].recordings
    assert (heard.view, heard.note) == (None, None)


def test_what_cannot_be_explained_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"has no \[MASK\]"):
        explain(model, "meow")
    with pytest.raises(ValueError, match="shorten"):
        explain(model, "[MASK] " + "meow " * 200)
    with pytest.raises(ValueError, match="top_k"):
        explain(model, AUDITORY, top_k=0)
    with pytest.raises(FileNotFoundError, match="no folder"):
        explain(model, AUDITORY, audio_dir=tmp_path / "nowhere")
    with pytest.raises(TypeError, match="BertForMaskedLM"):
        explain(original_bert(model), AUDITORY)
    try:
        with pytest.raises(ValueError, match="eval"):
            explain(model.train(), AUDITORY)
    finally:
        model.eval()


@pytest.mark.real_data
@pytest.mark.skipif("AUDIO_DIR" not in os.environ, reason="AUDIO_DIR does not name a folder of recordings")
def test_the_bundled_checkpoint_with_real_recordings(tmp_path):
    model = AudioBertForMaskedLM.from_pretrained(bundled())
    explanation = explain(
        model, "A chirping bird has a [MASK] pitch than barking dogs.", audio_dir=os.environ["AUDIO_DIR"]
    )
    views = [heard.view for span in explanation.spans for heard in span.recordings]
    assert len(views) == 2
    assert all(view.player.startswith("data:audio/ogg;base64,") and not view.shortened for view in views)
    path = write_explanation(explanation, tmp_path / "page.html")
    assert path.stat().st_size < 4 << 20
    assert math.isclose(views[0].seconds, 5, abs_tol=0.1)

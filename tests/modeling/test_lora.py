"""AudioBERT's adapter among peft's: not replaced, not merged, not in the way of somebody else's."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from audiobert import AudioBertForMaskedLM
from audiobert.modeling.lora_audiobert import ADAPTER, lora_layers

from model_fixtures import AUDITORY, PLAIN, hearing_audiobert, original_bert
from text_fixtures import tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to modify a model with PEFT", "ignore:Already found")


@pytest.fixture(scope="module")
def trained() -> AudioBertForMaskedLM:
    return hearing_audiobert()


@pytest.fixture
def model(trained) -> AudioBertForMaskedLM:
    return copy.deepcopy(trained)


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny_tokenizer()([AUDITORY, PLAIN], return_tensors="pt", padding=True)).logits


@pytest.mark.parametrize("targets", [["query"], ["value"], "all-linear"])
@pytest.mark.parametrize("name", ["default", ADAPTER])
def test_it_is_not_replaced(model, trained, targets, name):
    with pytest.raises(ValueError, match=r"already carries AudioBERT's own adapter.*target_modules"):
        get_peft_model(model, LoraConfig(target_modules=targets), adapter_name=name)
    with pytest.raises(ValueError, match="already carries AudioBERT's own adapter"):
        get_peft_model(copy.deepcopy(trained).text_model, LoraConfig(target_modules=["query"]), adapter_name=name)


def test_its_layers_are_not_merged_and_not_emptied(model, trained):
    for layer in lora_layers(model):
        with pytest.raises(ValueError, match=r"can't be merged into BERT.*save_pretrained"):
            layer.merge()
        with pytest.raises(ValueError, match="can't be deleted"):
            layer.delete_adapter(ADAPTER)
    assert torch.equal(logits_of(model), logits_of(trained))


def other_adapter(model: AudioBertForMaskedLM) -> PeftModel:
    return get_peft_model(model, LoraConfig(target_modules=["intermediate.dense"], init_lora_weights=False))


def test_another_adapter_stands_beside_it_and_goes_again(model, trained):
    before = logits_of(trained)
    both = other_adapter(model)
    assert not torch.allclose(logits_of(both), before, atol=1e-2)
    with both.disable_adapter():
        assert torch.equal(logits_of(both), before)
    assert torch.equal(logits_of(both.unload()), before)


def test_another_adapter_is_merged_without_ours(model, trained):
    both = other_adapter(model)
    expected = logits_of(both)
    with pytest.raises(ValueError, match="pass its name"):
        both.merge_adapter()
    merged = both.merge_and_unload()
    assert torch.allclose(logits_of(merged), expected, atol=1e-3)
    own = [layer.lora_B[ADAPTER].weight for layer in lora_layers(merged)]
    assert len(own) == len(lora_layers(trained))
    assert all(torch.equal(o, t.lora_B[ADAPTER].weight) for o, t in zip(own, lora_layers(trained), strict=True))
    # A plain row of the merged model is the merged BERT's: ours is in none of its weights.
    with torch.no_grad():
        plain = tiny_tokenizer()([PLAIN], return_tensors="pt")
        assert torch.equal(merged(**plain).logits, original_bert(merged)(**plain).logits)


def test_another_adapter_is_saved_and_loaded(model, trained, tmp_path):
    both = other_adapter(model)
    expected = logits_of(both)
    both.save_pretrained(tmp_path)
    assert any("intermediate.dense.lora_A" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    again = PeftModel.from_pretrained(copy.deepcopy(trained), tmp_path)
    assert torch.equal(logits_of(again), expected)

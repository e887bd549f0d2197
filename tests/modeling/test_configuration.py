"""The configuration: it survives JSON, and refuses what makes no sense."""

import json

import pytest
from transformers import ASTConfig, AutoConfig, BertConfig

from audiobert import AudioBertConfig

from model_fixtures import tiny_config


def test_paper_values_are_the_defaults():
    config = AudioBertConfig()
    assert (config.lora_rank, config.lora_alpha, config.lora_dropout) == (64, 128, 0.01)
    assert config.lora_target_modules == ["query", "key", "value"]
    assert (config.injection, config.retrieval_top_k) == ("add", 1)
    assert (config.retrieval_temperature, config.retrieval_min_similarity) == (None, None)
    assert config.standardize_audio is False
    assert (config.text_config.hidden_size, config.audio_config.hidden_size) == (768, 768)


def test_round_trip_through_json(tmp_path):
    config = tiny_config(
        injection="replace",
        detector_hidden_states=[0, -1],
        retrieval_top_k=3,
        retrieval_temperature=0.05,
        retrieval_min_similarity=-0.25,
        standardize_audio=True,
        companions=["tokenizer"],
    )
    config.save_pretrained(tmp_path)
    assert AudioBertConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert AutoConfig.from_pretrained(tmp_path).to_json_string() == config.to_json_string()
    assert json.loads(config.to_json_string(use_diff=False))["text_config"]["hidden_size"] == 16


def test_the_callers_configurations_stay_as_they_are():
    text, audio = BertConfig(hidden_size=24, num_attention_heads=2), ASTConfig()
    before = text.to_dict(), audio.to_dict()
    config = AudioBertConfig(text_config=text, audio_config=audio)
    config.text_config.hidden_size = 8
    assert (text.to_dict(), audio.to_dict()) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lora_rank", 0),
        ("lora_rank", 1.5),
        ("lora_alpha", -1),
        ("lora_dropout", 1.0),
        ("lora_dropout", "much"),
        ("lora_target_modules", []),
        ("detector_hidden_states", [99]),
        ("detector_hidden_states", []),
        ("detector_hidden_size", 0),
        ("detector_num_layers", -1),
        ("detector_num_heads", 3),
        ("detector_threshold", 1.5),
        ("injection", "subtract"),
        ("query_template", "{span} sound"),
        ("clap_revision", None),
        ("companions", ["ears"]),
        ("companions", "tokenizer"),
        ("trained_on", ["wikitext"]),
        ("trained_on", [{"name": "wikitext"}]),
        ("retrieval_top_k", 0),
        ("retrieval_top_k", True),
        ("retrieval_temperature", 0),
        ("retrieval_temperature", -0.1),
        ("retrieval_temperature", float("inf")),
        ("retrieval_temperature", float("nan")),
        ("retrieval_temperature", True),
        ("retrieval_min_similarity", 1.01),
        ("retrieval_min_similarity", -1.5),
        ("retrieval_min_similarity", float("nan")),
        ("retrieval_min_similarity", "high"),
        ("standardize_audio", 1),
        ("standardize_audio", "yes"),
        ("clap", ""),
        ("text_config", 3),
        ("audio_config", "AST"),
    ],
)
def test_a_bad_value_is_refused_with_the_name_of_its_field(field, value):
    with pytest.raises(ValueError, match=f"`{field}`"):
        AudioBertConfig(**{field: value})


def test_fields_of_earlier_versions_that_nothing_read_are_passed_over(tmp_path):
    values = {**tiny_config().to_dict(), "query_template": "the noise of {span}", "clap": "a/b", "clap_revision": "abc"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = AudioBertConfig.from_pretrained(tmp_path)
    assert config.to_dict() == AudioBertConfig.from_pretrained(tmp_path).to_dict()
    assert not {"query_template", "clap", "clap_revision"} & (set(vars(config)) | set(config.to_dict()))
    assert (config.companions, config.trained_on) == (None, None)


def test_the_texts_a_checkpoint_was_trained_on_survive_json(tmp_path):
    texts = [{"name": "valid.txt", "sha256": "0" * 64}]
    tiny_config(trained_on=texts).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).trained_on == texts

"""Saving, loading, uploading, and the library's own doors: Auto classes, `pipeline`, code from the checkpoint."""

import copy
import io
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file, save_file
from transformers import ASTForAudioClassification, AutoConfig, AutoModelForMaskedLM, BertForMaskedLM, pipeline

from audiobert import AudioBertForMaskedLM, AudioBertKnowledgeBase
from audiobert.modeling import hub_audiobert

from audio_fixtures import save_tiny_ast, tiny_knowledge_base
from model_fixtures import AUDITORY, PLAIN, TWO_SPANS, hearing_audiobert, tiny_audio_config
from text_fixtures import tiny_bert, tiny_bert_config, tiny_tokenizer

PROMPTS = [AUDITORY, PLAIN, TWO_SPANS]
MODELING = Path(__file__).resolve().parents[2] / "modeling"
BUNDLED = MODELING.parent / "hub_cards" / "audiobert-tiny"


@pytest.fixture(scope="module")
def model() -> AudioBertForMaskedLM:
    return hearing_audiobert()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("checkpoint") / "audiobert"
    model.save_pretrained(path)
    return str(path)


def logits_of(model, prompts=PROMPTS) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny_tokenizer()(prompts, return_tensors="pt", padding=True)).logits


# --- round trips -----------------------------------------------------------------------------------------------------


def test_reload_answers_the_same(model, folder):
    loaded = AudioBertForMaskedLM.from_pretrained(folder)
    assert not loaded.training
    assert torch.equal(logits_of(loaded), logits_of(model))
    trainable = [name for name, p in loaded.text_model.named_parameters() if p.requires_grad]
    assert trainable
    assert all("lora_" in name for name in trainable)


def test_a_moved_and_a_second_checkpoint_answer_the_same(model, folder, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    loaded = AudioBertForMaskedLM.from_pretrained(folder)
    loaded.save_pretrained(first)
    AudioBertForMaskedLM.from_pretrained(first).save_pretrained(second)
    first.rename(tmp_path / "elsewhere")
    assert torch.equal(logits_of(AudioBertForMaskedLM.from_pretrained(second)), logits_of(model))


def test_what_a_checkpoint_holds(folder):
    files = {os.path.relpath(os.path.join(d, f), folder) for d, _, names in os.walk(folder) for f in names}
    assert {"config.json", "model.safetensors", "tokenizer.json", "modeling_audiobert.py"} <= files
    assert {"knowledge_base/config.json", "knowledge_base/index.faiss", "knowledge_base/metadata.parquet"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl", ".pickle"))]
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    assert config["auto_map"]["AutoModelForMaskedLM"] == "modeling_audiobert.AudioBertForMaskedLM"
    assert os.path.dirname(folder) not in json.dumps(config)


def test_a_subfolder(model, folder, tmp_path):
    model.save_pretrained(tmp_path / "inner")
    loaded = AudioBertForMaskedLM.from_pretrained(tmp_path, subfolder="inner")
    assert torch.equal(logits_of(loaded), logits_of(model))


def test_dtype_and_device_map(folder):
    half = AudioBertForMaskedLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="cpu")
    assert half.dtype == torch.bfloat16
    assert logits_of(half).dtype == torch.bfloat16


def test_a_checkpoint_that_lacks_weights_is_refused(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    save_file({n: w for n, w in weights.items() if "detector" not in n}, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(OSError, match=r"lacks \['detector"):
        AudioBertForMaskedLM.from_pretrained(broken)


def test_a_truncated_index_is_one_clear_error(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    index = broken / "knowledge_base" / "index.faiss"
    index.write_bytes(index.read_bytes()[:-7])
    with pytest.raises(OSError, match=r"index\.faiss"):
        AudioBertForMaskedLM.from_pretrained(broken)


def test_no_knowledge_base_no_crash(model, tmp_path):
    deaf = copy.copy(model)
    deaf.set_knowledge_base(None)
    deaf.save_pretrained(tmp_path)
    loaded = AudioBertForMaskedLM.from_pretrained(tmp_path)
    assert loaded.knowledge_base is None
    assert logits_of(loaded).shape[0] == 3


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("knowledge_base", "holds no knowledge base"),
        ("knowledge_base/config.json", "holds no knowledge base"),
        ("tokenizer.json", "names a tokenizer that it lacks"),
        ("preprocessor_config.json", "names a feature_extractor that it lacks"),
    ],
)
def test_a_checkpoint_that_lost_what_belongs_to_it_is_refused(folder, tmp_path, lost, message):
    broken = shutil.copytree(folder, tmp_path / "broken")
    if lost == "preprocessor_config.json":
        declare(broken, companions=["tokenizer", "feature_extractor", "knowledge_base"])
    else:
        (shutil.rmtree if (broken / lost).is_dir() else os.remove)(broken / lost)
    with pytest.raises(OSError, match=message):
        AudioBertForMaskedLM.from_pretrained(broken)


def test_a_checkpoint_of_an_earlier_version_loads_what_lies_there(model, folder, tmp_path):
    old = shutil.copytree(folder, tmp_path / "old")
    declare(old, companions=None)
    assert torch.equal(logits_of(AudioBertForMaskedLM.from_pretrained(old)), logits_of(model))
    (old / "knowledge_base" / "config.json").unlink()
    with pytest.raises(OSError, match="holds no knowledge base"):
        AudioBertForMaskedLM.from_pretrained(old)
    shutil.rmtree(old / "knowledge_base")
    assert AudioBertForMaskedLM.from_pretrained(old).knowledge_base is None


def declare(folder, **fields) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def test_a_deaf_model_saved_over_a_hearing_one_stays_deaf(model, folder, tmp_path):
    target = shutil.copytree(folder, tmp_path / "target")
    (target / "knowledge_base" / "NOTES.md").write_text("mine")
    deaf = copy.copy(model)
    deaf.set_knowledge_base(None)
    deaf.tokenizer = None
    deaf.save_pretrained(target)
    # Our own files are gone; what a user put there stays, but the folder is then no part of the checkpoint.
    assert os.listdir(target / "knowledge_base") == ["NOTES.md"]
    with pytest.raises(OSError, match="no knowledge base belongs to it"):
        AudioBertForMaskedLM.from_pretrained(target)
    shutil.rmtree(target / "knowledge_base")
    loaded = AudioBertForMaskedLM.from_pretrained(target)
    assert (loaded.knowledge_base, loaded.tokenizer) == (None, None)
    assert (target / "tokenizer.json").exists()  # which may be the user's, saved beside the model


def test_saving_into_a_file_is_refused(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        model.save_pretrained(tmp_path / "file")


def test_saving_draws_nothing_from_the_global_generators(model, tmp_path):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    model.save_pretrained(tmp_path)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_loaded_weights_lie_aligned_as_computed_ones_do(folder, tmp_path):
    # A header of any length puts the weights of a file at any address.
    shifted = shutil.copytree(folder, tmp_path / "shifted")
    weights = load_file(shifted / "model.safetensors")
    for length in (1, 9, 17, 25):
        save_file(weights, shifted / "model.safetensors", {"format": "pt", "padding": "x" * length})
        model = AudioBertForMaskedLM.from_pretrained(shifted)
        assert not [name for name, p in model.named_parameters() if p.data_ptr() % 64]


def test_a_checkpoint_keeps_the_names_of_its_weights(tmp_path):
    loaded = AudioBertForMaskedLM.from_pretrained(BUNDLED)
    loaded.save_pretrained(tmp_path / "again")
    # Not by way of a file, whose names transformers would remember.
    fresh = AudioBertForMaskedLM(loaded.config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(tmp_path / "fresh")
    names = {"again", "fresh"}
    published = load_file(BUNDLED / "model.safetensors")
    for name in names:
        saved = load_file(tmp_path / name / "model.safetensors")
        assert list(saved) == list(published)
        assert all(torch.equal(saved[key], published[key]) for key in published)
    # Names of the format are taken by `load_state_dict` too, as `Trainer` hands them to it.
    adapter = {key: value for key, value in published.items() if "lora_" in key}
    assert adapter
    assert all(".default." in key for key in adapter)
    assert not fresh.load_state_dict(adapter, strict=False).unexpected_keys


def test_the_bundled_checkpoints_code_is_the_packages(tmp_path):
    code = {path.name for path in MODELING.glob("*_audiobert.py")}
    for name in code:
        assert (BUNDLED / name).is_symlink()
        assert (BUNDLED / name).resolve() == MODELING / name
    # What is saved, copied or uploaded out of it are files with that content.
    AudioBertForMaskedLM.from_pretrained(BUNDLED).save_pretrained(tmp_path / "saved")
    shutil.copytree(BUNDLED, tmp_path / "copied")
    for folder in (tmp_path / "saved", tmp_path / "copied"):
        assert {path.name for path in folder.glob("*_audiobert.py")} == code
        for name in code:
            assert not (folder / name).is_symlink()
            assert (folder / name).read_bytes() == (MODELING / name).read_bytes()


def test_the_bundled_checkpoint_says_what_it_was_trained_on():
    config = AutoConfig.from_pretrained(BUNDLED)
    assert [text["name"] for text in config.trained_on] == ["wikitext-2/valid.txt", "wikitext-2/test.txt"]
    assert config.companions == ["tokenizer", "feature_extractor", "knowledge_base"]


# --- in memory, and in pieces ----------------------------------------------------------------------------------------


def test_a_model_that_has_answered_can_be_pickled_and_copied(model):
    expected = logits_of(model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False), copy.deepcopy(model)):
        assert torch.equal(logits_of(other), expected)
    assert torch.equal(logits_of(model), expected)


@pytest.mark.parametrize("offload", ["cpu", "disk"])
def test_an_offloaded_model_answers_the_same(model, tmp_path, offload):
    from accelerate import cpu_offload, disk_offload

    away = copy.deepcopy(model)
    if offload == "cpu":
        cpu_offload(away, execution_device=torch.device("cpu"))
    else:
        disk_offload(away, tmp_path, execution_device=torch.device("cpu"))
    assert all(p.device.type == "meta" for p in away.parameters())
    assert torch.equal(logits_of(away), logits_of(model))


def test_a_device_map_with_a_part_on_disk(model, folder, tmp_path):
    places = {"text_model": "cpu", "audio_model": "disk", "audio_projection": "cpu", "detector": "disk"}
    split = AudioBertForMaskedLM.from_pretrained(folder, device_map=places, offload_folder=tmp_path / "weights")
    assert split.detector.classifier.weight.device.type == "meta"
    assert torch.equal(logits_of(split), logits_of(model))
    split.save_pretrained(tmp_path / "saved")
    assert torch.equal(logits_of(AudioBertForMaskedLM.from_pretrained(tmp_path / "saved")), logits_of(model))


# --- the Hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the Hub: keeps what is uploaded, by repository."""
    from huggingface_hub import CommitInfo, HfApi, RepoUrl

    uploads = {}

    def create_repo(self, repo_id, **kwargs):
        uploads.setdefault(repo_id, {"create": kwargs, "branches": []})
        return RepoUrl(f"https://huggingface.co/user/{repo_id.split('/')[-1]}")

    def upload_folder(self, *, repo_id, folder_path, **kwargs):
        files = {
            os.path.relpath(os.path.join(d, f), folder_path) for d, _, names in os.walk(folder_path) for f in names
        }
        uploads[repo_id] = {"files": files, "upload": kwargs}
        return CommitInfo(
            commit_url=f"https://huggingface.co/{repo_id}/commit/abc",
            commit_message="",
            commit_description="",
            oid="abc",
        )

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "create_branch", lambda self, repo_id, branch, **kwargs: None)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return uploads


def test_push_to_hub_takes_the_knowledge_base_along(model, hub):
    model.push_to_hub("user/audiobert", commit_message="Better ears", private=True, revision="next", tags=["audio"])
    upload = hub["user/audiobert"]
    assert {"model.safetensors", "README.md", "knowledge_base/text_encoder/model.safetensors"} <= upload["files"]
    assert upload["upload"]["commit_message"] == "Better ears"
    assert upload["upload"]["revision"] == "next"


def test_pushing_a_deaf_model_takes_the_old_knowledge_base_away(model, hub):
    model.push_to_hub("user/hearing")
    deaf = copy.copy(model)
    deaf.set_knowledge_base(None)
    deaf.push_to_hub("user/deaf")
    patterns = [hub[name]["upload"]["delete_patterns"] for name in ("user/hearing", "user/deaf")]
    assert patterns == [None, "knowledge_base/*"]


@pytest.fixture
def cached(folder, tmp_path) -> Path:
    """The checkpoint as a download from the Hub leaves it in the cache."""
    commit = "0123456789abcdef" * 2 + "01234567"
    repository = tmp_path / "cache" / "models--user--audiobert"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return repository / "snapshots" / commit


@pytest.mark.parametrize("arguments", [{}, {"local_files_only": True}])
def test_a_cached_checkpoint_hears_without_a_network(model, cached, arguments):
    where = {"cache_dir": cached.parents[2], **arguments}
    assert torch.equal(logits_of(AudioBertForMaskedLM.from_pretrained("user/audiobert", **where)), logits_of(model))
    shutil.rmtree(cached / "knowledge_base")
    with pytest.raises(OSError, match="knowledge"):
        AudioBertForMaskedLM.from_pretrained("user/audiobert", **where)


@pytest.mark.parametrize("asked", ["tokenizer.json", "preprocessor_config.json", "knowledge_base/config.json"])
def test_a_hub_that_does_not_answer_is_no_deaf_model(cached, monkeypatch, asked):
    declare(cached, companions=None)  # so that the Hub is asked what there is
    real = hub_audiobert.hf_hub_download

    def download(repo_id, filename, **kwargs):
        if filename == asked:
            raise HfHubHTTPError("503 Server Error", response=Mock(headers={}, status_code=503))
        return real(repo_id, filename, **kwargs)

    monkeypatch.setattr(hub_audiobert, "hf_hub_download", download)
    with pytest.raises(OSError, match=f"Whether user/audiobert has {asked} is not known"):
        AudioBertForMaskedLM.from_pretrained("user/audiobert", cache_dir=cached.parents[2])


def test_save_with_push(model, hub, tmp_path):
    model.save_pretrained(tmp_path / "pushed", push_to_hub=True, repo_id="user/pushed")
    assert "knowledge_base/index.faiss" in hub["user/pushed"]["files"]


# --- Auto classes, pipeline, trust_remote_code -----------------------------------------------------------------------


def test_auto_classes(model, folder):
    assert AutoConfig.from_pretrained(folder).model_type == "audiobert"
    auto = AutoModelForMaskedLM.from_pretrained(folder)
    assert type(auto) is AudioBertForMaskedLM
    assert torch.equal(logits_of(auto), logits_of(model))


def test_stock_pipeline(model, folder):
    fill = pipeline("fill-mask", model=folder)
    one = fill(AUDITORY)
    assert [set(answer) for answer in one] == [{"score", "token", "token_str", "sequence"}] * 5
    logits = logits_of(model, [AUDITORY])
    mask = tiny_tokenizer()(AUDITORY)["input_ids"].index(tiny_tokenizer().mask_token_id)
    best = logits[0, mask].softmax(-1).topk(5)
    assert [answer["token"] for answer in one] == best.indices.tolist()
    assert [answer["score"] for answer in one] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_stock_pipeline_with_batches_top_k_and_targets(folder):
    fill = pipeline("fill-mask", model=folder)
    alone = [fill(prompt, top_k=3) for prompt in PROMPTS]
    for batch_size in (1, 2, 3):
        together = fill(PROMPTS, top_k=3, batch_size=batch_size)
        for one, other in zip(alone, together, strict=True):
            assert [a["token"] for a in one] == [a["token"] for a in other]
            assert [a["score"] for a in one] == pytest.approx([a["score"] for a in other], abs=1e-4)
    targets = fill(AUDITORY, targets=["cat", "dog"])
    assert {answer["token_str"] for answer in targets} == {"cat", "dog"}
    two = fill("meow is a [MASK] [MASK]", top_k=2)
    assert [len(answers) for answers in two] == [2, 2]


def test_too_long_a_prompt_is_treated_as_the_stock_pipeline_does(folder, tmp_path):
    bert = tmp_path / "bert"
    tiny_bert(len(tiny_tokenizer())).save_pretrained(bert)
    tiny_tokenizer().save_pretrained(bert)
    prompt = "the [MASK] " + "cat " * 100
    ours, stock = pipeline("fill-mask", model=folder), pipeline("fill-mask", model=str(bert))
    errors = []
    for fill in (stock, ours):
        with pytest.raises((RuntimeError, IndexError, ValueError)) as error:
            fill(prompt)
        errors.append(error.type)
        short = {"truncation": True, "max_length": 64}
        assert len(fill(prompt, tokenizer_kwargs=short)) == 5
    assert errors[0] is errors[1]


@pytest.mark.processes
def test_code_from_the_checkpoint_in_a_process_without_the_package(model, folder, tmp_path):
    torch.save(logits_of(model), tmp_path / "expected.pt")
    script = f"""
        import sys
        import torch
        from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

        # Not even by accident: an import of the package fails here.
        sys.modules["audiobert"] = None
        # Whoever has said yes is not asked again, at a prompt that waits for 15 seconds.
        import builtins
        builtins.input = lambda prompt="": sys.exit("asked: " + prompt)
        model = AutoModelForMaskedLM.from_pretrained({folder!r}, trust_remote_code=True)
        tokenizer = AutoTokenizer.from_pretrained({folder!r}, trust_remote_code=True)
        with torch.no_grad():
            output = model(**tokenizer({PROMPTS!r}, return_tensors="pt", padding=True))
        assert torch.equal(output.logits, torch.load({str(tmp_path / "expected.pt")!r}))
        assert [len(spans) for spans in output.spans] == [1, 0, 2]
        assert output.spans[0][0].recordings
        fill = pipeline("fill-mask", model={folder!r}, trust_remote_code=True)
        assert len(fill({AUDITORY!r})) == 5
        model.save_pretrained({str(tmp_path / "again")!r})
    """
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    environment.pop("PYTHONPATH", None)
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert torch.equal(logits_of(AudioBertForMaskedLM.from_pretrained(tmp_path / "again")), logits_of(model))


# --- standard checkpoints --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [2, 4])  # as BERT base and large differ
def test_from_standard_checkpoints(layers, tmp_path):
    torch.manual_seed(1)
    config = tiny_bert_config(len(tiny_tokenizer()))
    config.num_hidden_layers = layers
    bert = BertForMaskedLM(config).eval()
    bert.save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    ast = save_tiny_ast(tmp_path / "ast", hidden_size=12)
    model = AudioBertForMaskedLM.from_backbones(
        tmp_path / "bert", ast, tiny_knowledge_base(audio_hidden_size=12), lora_rank=4, detector_hidden_size=8
    )
    batch = tiny_tokenizer()(PROMPTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        silent = model(**batch, audio_positions=torch.full((3, 1), -1)).logits
        assert torch.equal(silent, bert(**batch).logits)
    assert model.config.text_config.num_hidden_layers == layers
    assert model.feature_extractor is not None
    assert str(tmp_path) not in model.config.to_json_string()
    model.save_pretrained(tmp_path / "made")
    assert torch.equal(logits_of(AudioBertForMaskedLM.from_pretrained(tmp_path / "made")), logits_of(model))


def test_the_audio_encoder_of_a_classifier_is_taken(tmp_path):
    # The published AST is a classifier.
    classifier = ASTForAudioClassification(tiny_audio_config(16))
    classifier.save_pretrained(tmp_path / "ast")
    bert = tiny_bert(len(tiny_tokenizer()))
    bert.save_pretrained(tmp_path / "bert")
    model = AudioBertForMaskedLM.from_backbones(tmp_path / "bert", tmp_path / "ast", detector_hidden_size=8)
    expected = classifier.audio_spectrogram_transformer.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.audio_model.state_dict().items())
    assert isinstance(model.audio_projection, torch.nn.Identity)  # both are 16 wide
    assert model.tokenizer is None


def test_a_misspelt_field_is_refused(tmp_path):
    tiny_bert(len(tiny_tokenizer())).save_pretrained(tmp_path / "bert")
    ast = save_tiny_ast(tmp_path / "ast", hidden_size=12)
    with pytest.raises(TypeError, match="lora_rnk"):
        AudioBertForMaskedLM.from_backbones(tmp_path / "bert", ast, lora_rnk=8)


def test_from_standard_checkpoints_with_a_knowledge_base_folder(tmp_path):
    tiny_knowledge_base(audio_hidden_size=12).save_pretrained(tmp_path / "sounds")
    tiny_bert(len(tiny_tokenizer())).save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    save_tiny_ast(tmp_path / "ast", hidden_size=12)
    model = AudioBertForMaskedLM.from_backbones(
        tmp_path / "bert", tmp_path / "ast", tmp_path / "sounds", detector_hidden_size=8
    )
    assert isinstance(model.knowledge_base, AudioBertKnowledgeBase)
    assert model.knowledge_base.config.clap.name == "tiny-clap"


def test_resized_embeddings_are_saved(model, tmp_path):
    resized = copy.deepcopy(model)
    resized.resize_token_embeddings(len(tiny_tokenizer()) + 5, mean_resizing=False)
    resized.save_pretrained(tmp_path)
    loaded = AudioBertForMaskedLM.from_pretrained(tmp_path)
    assert logits_of(loaded).shape[-1] == len(tiny_tokenizer()) + 5

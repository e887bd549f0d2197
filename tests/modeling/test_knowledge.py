"""The knowledge base: what it finds, that it saves and loads itself, and that damage is told clearly."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file
from transformers import ClapTextModelWithProjection

from audiobert.modeling import knowledge_files_audiobert
from audiobert.modeling.knowledge_audiobert import (
    AudioBertKnowledgeBase,
    EncoderReference,
    KnowledgeBaseConfig,
    QueryEncoder,
    inner_product_index,
)
from audiobert.modeling.knowledge_files_audiobert import write_config

from audio_fixtures import (
    WORDS,
    file_size_limit,
    save_tiny_clap,
    tiny_clap_text_config,
    tiny_knowledge_base,
    tiny_tokenizer,
)

FILES = ("index.faiss", "audio_embeddings.safetensors", "metadata.parquet", "text_encoder/model.safetensors")


@pytest.fixture(scope="module")
def knowledge_base() -> AudioBertKnowledgeBase:
    return tiny_knowledge_base()


@pytest.fixture
def saved(knowledge_base: AudioBertKnowledgeBase, tmp_path: Path) -> Path:
    knowledge_base.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same(one: AudioBertKnowledgeBase, other: AudioBertKnowledgeBase) -> None:
    assert one.config == other.config
    assert one.search(WORDS, top_k=3) == other.search(WORDS, top_k=3)
    assert torch.equal(one.audio_embeds(range(len(one))), other.audio_embeds(range(len(other))))


def test_search_agrees_with_brute_force(knowledge_base: AudioBertKnowledgeBase) -> None:
    vectors = knowledge_base.index.reconstruct_n(0, len(knowledge_base))
    for retrieval, word in zip(knowledge_base.search(WORDS, top_k=5), WORDS, strict=True):
        assert retrieval.query == f"{word} sound"
        cosines = (vectors @ knowledge_base.query_encoder(retrieval.query).T)[:, 0]
        order = np.argsort(-cosines)[:5]
        assert retrieval.indices == tuple(order)
        assert [r.similarity for r in retrieval.recordings] == pytest.approx(list(cosines[order]), abs=1e-6)
        for index, recording in zip(retrieval.indices, retrieval.recordings, strict=True):
            assert dataclasses.replace(recording, similarity=None, found_by=None) == knowledge_base.recording(index)


def test_queries_are_the_text_embeddings_of_clap_itself(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, ClapModel

    folder = save_tiny_clap(tmp_path / "clap")
    encoded = AutoTokenizer.from_pretrained(folder)(["dog sound"], return_tensors="pt")
    with torch.no_grad():
        expected = ClapModel.from_pretrained(folder).get_text_features(**encoded).pooler_output
    torch.testing.assert_close(torch.from_numpy(QueryEncoder.from_pretrained(folder)("dog sound")), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_no_query(dtype: torch.dtype) -> None:
    knowledge_base = tiny_knowledge_base()
    expected = knowledge_base.search(WORDS)
    fresh = tiny_knowledge_base()
    with torch.autocast("cpu", dtype=dtype):
        assert fresh.search(WORDS) == expected
    # What was cached under autocast serves the calls after it.
    assert fresh.search(WORDS) == expected


def test_a_text_tower_that_gives_no_number_is_told(saved: Path) -> None:
    knowledge_base = tiny_knowledge_base()
    next(knowledge_base.query_encoder.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(ValueError, match="'dog sound' a vector that is not finite"):
        knowledge_base.search(["dog"])


def test_an_index_that_holds_no_numbers_is_told(knowledge_base: AudioBertKnowledgeBase) -> None:
    vectors = np.full((12, 8), np.nan, dtype=np.float32)
    parts = (inner_product_index(vectors), knowledge_base.audio_embeddings, knowledge_base.metadata)
    damaged = AudioBertKnowledgeBase(knowledge_base.config, *parts, knowledge_base.query_encoder)
    with pytest.raises(ValueError, match="'dog sound' has no finite similarity"):
        damaged.search(["dog"])


def test_an_audio_embedding_that_is_not_finite_is_told(knowledge_base: AudioBertKnowledgeBase) -> None:
    embeddings = torch.zeros(12, 6)
    embeddings[3, 2] = 1e6
    with pytest.raises(ValueError, match="not finite, or too large for fp16"):
        knowledge_base.with_audio_embeddings(embeddings)
    parts = (knowledge_base.index, embeddings.half(), knowledge_base.metadata, knowledge_base.query_encoder)
    damaged = AudioBertKnowledgeBase(knowledge_base.config, *parts)
    assert damaged.audio_embeds([2, 4]).shape == (2, 6)
    with pytest.raises(ValueError, match=r"\['sounds/3.ogg'\] are not finite"):
        damaged.audio_embeds([2, 3])


def test_it_goes_to_other_processes(knowledge_base: AudioBertKnowledgeBase) -> None:
    assert_same(pickle.loads(pickle.dumps(knowledge_base)), knowledge_base)


def test_fewer_recordings_than_asked_for(knowledge_base: AudioBertKnowledgeBase) -> None:
    (retrieval,) = knowledge_base.search(["dog"], top_k=1000)
    assert sorted(retrieval.indices) == list(range(len(knowledge_base)))


def test_a_query_longer_than_clap_reads_is_cut(knowledge_base: AudioBertKnowledgeBase) -> None:
    (retrieval,) = knowledge_base.search(["dog " * 10_000])
    assert len(retrieval.indices) == 1


@pytest.mark.parametrize("span", ["", " ", "{span}", "{0}", "\x00", "🐕", "<mask>"])
def test_any_text_is_a_query(knowledge_base: AudioBertKnowledgeBase, span: str) -> None:
    (retrieval,) = knowledge_base.search([span])
    assert retrieval.query == f"{span} sound"
    assert len(retrieval.indices) == 1


def test_no_spans_find_nothing(knowledge_base: AudioBertKnowledgeBase) -> None:
    assert knowledge_base.search([]) == []
    assert knowledge_base.audio_embeds([]).shape == (0, 6)


def test_repeated_spans_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    knowledge_base = tiny_knowledge_base()
    asked = []
    encode = QueryEncoder.__call__
    monkeypatch.setattr(QueryEncoder, "__call__", lambda self, text: asked.append(text) or encode(self, text))
    first = knowledge_base.search(["dog", "cat", "dog"])
    assert first[0] == first[2]
    assert knowledge_base.search(["cat", "dog"]) == [first[1], first[0]]
    assert asked == ["dog sound", "cat sound"]
    knowledge_base.search(["Dog"])
    assert asked[-1] == "Dog sound"


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiobert.modeling.knowledge_audiobert.CACHED_QUERIES", 2)
    knowledge_base = tiny_knowledge_base()
    expected = knowledge_base.search(WORDS)
    assert knowledge_base.search(WORDS) == expected
    assert len(knowledge_base._cache) == 2


def test_threads_get_what_serial_calls_get() -> None:
    batches = [[WORDS[(start + step) % len(WORDS)] for step in range(6)] for start in range(40)]
    alone = tiny_knowledge_base()
    serial = [alone.search(batch, top_k=2) for batch in batches]
    shared = tiny_knowledge_base()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda batch: shared.search(batch, top_k=2), batches)) == serial


@pytest.mark.parametrize("top_k", [0, -1, 1.0, True])
def test_bad_top_k(knowledge_base: AudioBertKnowledgeBase, top_k: object) -> None:
    with pytest.raises(ValueError, match="top_k"):
        knowledge_base.search(["dog"], top_k=top_k)


def test_a_string_is_no_list_of_spans(knowledge_base: AudioBertKnowledgeBase) -> None:
    with pytest.raises(TypeError, match="sequence of strings"):
        knowledge_base.search("dog")


@pytest.mark.parametrize("index", [-1, 12])
def test_indices_outside(knowledge_base: AudioBertKnowledgeBase, index: int) -> None:
    with pytest.raises(IndexError, match="0 to 11"):
        knowledge_base.audio_embeds([index])
    with pytest.raises(IndexError, match="0 to 11"):
        knowledge_base.recording(index)


def test_copies_share_it(knowledge_base: AudioBertKnowledgeBase) -> None:
    assert copy.deepcopy({"knowledge_base": knowledge_base})["knowledge_base"] is knowledge_base


def test_round_trip(knowledge_base: AudioBertKnowledgeBase, saved: Path) -> None:
    loaded = AudioBertKnowledgeBase.from_pretrained(saved)
    assert_same(loaded, knowledge_base)
    assert [loaded.recording(i) for i in range(12)] == [knowledge_base.recording(i) for i in range(12)]
    assert loaded.audio_embeds([3, 1]).dtype == torch.float32


def test_saving_again_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    loaded = AudioBertKnowledgeBase.from_pretrained(saved)
    loaded.save_pretrained(tmp_path / "second")
    assert content(tmp_path / "second") == content(saved)
    loaded.save_pretrained(saved)
    assert content(tmp_path / "second") == content(saved)
    assert_same(loaded, AudioBertKnowledgeBase.from_pretrained(saved))


def test_a_moved_folder_works_and_no_path_is_written(saved: Path, tmp_path: Path) -> None:
    before = AudioBertKnowledgeBase.from_pretrained(saved)
    before.save_pretrained(saved)
    expected = before.search(WORDS)
    shutil.move(saved, tmp_path / "moved" / "here")
    assert AudioBertKnowledgeBase.from_pretrained(tmp_path / "moved", subfolder="here").search(WORDS) == expected
    assert not [name for name, data in content(tmp_path).items() if str(tmp_path).encode() in data]


def test_the_text_tower_is_stored_in_its_own_precision(tmp_path: Path) -> None:
    tower = ClapTextModelWithProjection(tiny_clap_text_config()).half()
    whole = tiny_knowledge_base()
    half = AudioBertKnowledgeBase(
        whole.config, whole.index, whole.audio_embeddings, whole.metadata, QueryEncoder(tower, tiny_tokenizer())
    )
    half.save_pretrained(tmp_path)
    loaded = AudioBertKnowledgeBase.from_pretrained(tmp_path)
    assert loaded.query_encoder.stored_dtype == torch.float16
    assert loaded.query_encoder.model.dtype == torch.float32
    assert_same(half, loaded)


def test_what_is_loaded_lies_in_memory_of_its_own(saved: Path) -> None:
    # Mapped from a file, weights lie where its header ends, and some processors compute with those in another order.
    model = AudioBertKnowledgeBase.from_pretrained(saved).query_encoder.model
    assert all(tensor.data_ptr() % 64 == 0 for tensor in (*model.parameters(), *model.buffers()) if tensor.numel())


def test_a_hub_clap_is_referenced_not_copied(
    knowledge_base: AudioBertKnowledgeBase, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def from_pretrained(name: str, **kwargs: object) -> QueryEncoder:
        asked.append((name, kwargs["revision"]))
        return knowledge_base.query_encoder

    config = dataclasses.replace(knowledge_base.config, clap=EncoderReference("someone/clap", "abc123"))
    monkeypatch.setattr(QueryEncoder, "from_pretrained", from_pretrained)
    parts = (knowledge_base.index, knowledge_base.audio_embeddings, knowledge_base.metadata)
    # Over a folder with a text tower, which must not stay behind.
    AudioBertKnowledgeBase(config, *parts, knowledge_base.query_encoder).save_pretrained(saved)
    assert not (saved / "text_encoder").exists()
    assert_same(AudioBertKnowledgeBase.from_pretrained(saved), knowledge_base_with(knowledge_base, config))
    assert asked == [("someone/clap", "abc123")]


def knowledge_base_with(other: AudioBertKnowledgeBase, config: KnowledgeBaseConfig) -> AudioBertKnowledgeBase:
    return AudioBertKnowledgeBase(config, other.index, other.audio_embeddings, other.metadata, other.query_encoder)


def test_push_to_hub_uploads_the_folder(
    knowledge_base: AudioBertKnowledgeBase, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = {}

    class Api:
        def __init__(self, token: str) -> None:
            uploaded["token"] = token

        def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> object:
            uploaded["private"] = private
            return type("Url", (), {"repo_id": f"me/{repo_id}"})

        def create_branch(self, repo_id: str, branch: str, exist_ok: bool) -> None:
            uploaded["branch"] = branch

        def upload_folder(self, repo_id: str, folder_path: str, **kwargs: object) -> object:
            uploaded.update(repo_id=repo_id, content=content(Path(folder_path)), **kwargs)
            return type("Commit", (), {"commit_url": "https://example.org/commit"})

    monkeypatch.setattr("audiobert.modeling.hub_audiobert.HfApi", Api)
    commit = knowledge_base.push_to_hub("sounds", private=True, token="secret", revision="v2", create_pr=True)
    assert commit.commit_url == "https://example.org/commit"
    assert uploaded.pop("content") == content(saved)
    assert uploaded.pop("commit_message")
    assert uploaded == {
        "token": "secret",
        "private": True,
        "branch": "v2",
        "repo_id": "me/sounds",
        "revision": "v2",
        "create_pr": True,
    }


def test_from_the_hub(saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = {}

    def snapshot_download(repo_id: str, **kwargs: object) -> str:
        asked.update(repo_id=repo_id, **kwargs)
        return str(tmp_path)

    monkeypatch.setattr("audiobert.modeling.knowledge_files_audiobert.snapshot_download", snapshot_download)
    AudioBertKnowledgeBase.from_pretrained("me/sounds", subfolder="saved", revision="v2", token="secret")
    assert (asked["repo_id"], asked["revision"], asked["token"]) == ("me/sounds", "v2", "secret")
    assert "saved/index.faiss" in asked["allow_patterns"]


def test_with_audio_embeddings(knowledge_base: AudioBertKnowledgeBase, tmp_path: Path) -> None:
    embeddings = torch.randn(12, 10)
    other = knowledge_base.with_audio_embeddings(embeddings, ast_name="my-ast")
    other.save_pretrained(tmp_path)
    other = AudioBertKnowledgeBase.from_pretrained(tmp_path)
    assert other.config.ast == EncoderReference("my-ast")
    assert torch.equal(other.audio_embeds(range(12)), embeddings.half().float())
    assert other.search(WORDS) == knowledge_base.search(WORDS)
    assert knowledge_base.audio_embeds([0]).shape == (1, 6)
    with pytest.raises(ValueError, match=r"shape of audio_embeddings.safetensors is \(11, 10\)"):
        knowledge_base.with_audio_embeddings(embeddings[1:])


def test_subset(knowledge_base: AudioBertKnowledgeBase, tmp_path: Path) -> None:
    rows = [7, 2, 5]
    knowledge_base.subset(rows).save_pretrained(tmp_path)
    subset = AudioBertKnowledgeBase.from_pretrained(tmp_path)
    assert [subset.recording(i) for i in range(3)] == [knowledge_base.recording(i) for i in rows]
    assert torch.equal(subset.audio_embeds([0, 1, 2]), knowledge_base.audio_embeds(rows))
    for few, many in zip(subset.search(WORDS, 3), knowledge_base.search(WORDS, 12), strict=True):
        assert [rows[i] for i in few.indices] == [i for i in many.indices if i in rows]
    with pytest.raises(ValueError, match="at least one recording"):
        knowledge_base.subset([])


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(saved: Path, name: str) -> None:
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(OSError, match=rf"{name} has \d+ bytes where config.json says {len(data)}.*again"):
        AudioBertKnowledgeBase.from_pretrained(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte(saved: Path, name: str) -> None:
    data = bytearray((saved / name).read_bytes())
    data[-1] ^= 1
    (saved / name).write_bytes(data)
    with pytest.raises(OSError, match=rf"{name} is not the file.*sha256.*again"):
        AudioBertKnowledgeBase.from_pretrained(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(OSError, match=f"{name} is missing"):
        AudioBertKnowledgeBase.from_pretrained(saved)


@pytest.mark.parametrize(
    ("unlisted", "message"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", r"\*.safetensors"),
        ("tokenizer.json", "tokenizer.json"),
        ("tokenizer_config.json", "tokenizer_config.json"),
    ],
)
def test_a_file_of_the_text_tower_that_is_not_listed(saved: Path, unlisted: str, message: str) -> None:
    values = json.loads((saved / "config.json").read_text())
    del values["files"][f"text_encoder/{unlisted}"]
    (saved / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"does not list .*'text_encoder/{message}"):
        AudioBertKnowledgeBase.from_pretrained(saved)
    (saved / "text_encoder" / unlisted).unlink()
    if unlisted != "tokenizer_config.json":
        with pytest.raises(ValueError, match=f"does not list .*'text_encoder/{message}"):
            AudioBertKnowledgeBase.from_pretrained(saved)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_config.json", "tower.safetensors", "sub/added.json"])
def test_a_file_laid_into_the_text_tower_is_refused(saved: Path, name: str) -> None:
    path = saved / "text_encoder" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"{}")
    with pytest.raises(ValueError, match=f"does not list .*text_encoder/{name}"):
        AudioBertKnowledgeBase.from_pretrained(saved)


def test_what_the_system_leaves_in_a_folder_does_no_harm(saved: Path) -> None:
    (saved / "text_encoder" / ".DS_Store").write_bytes(b"x")
    AudioBertKnowledgeBase.from_pretrained(saved)


def test_pickled_weights_are_never_loaded(saved: Path) -> None:
    weights = saved / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    rewrite(saved)
    with pytest.raises(ValueError, match=r"does not list .*\*.safetensors"):
        AudioBertKnowledgeBase.from_pretrained(saved)
    with pytest.raises(OSError, match="safetensors"):
        QueryEncoder.from_pretrained(saved / "text_encoder")


def test_a_swapped_embedding_file(saved: Path, tmp_path: Path) -> None:
    tiny_knowledge_base().with_audio_embeddings(torch.randn(12, 6)).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "audio_embeddings.safetensors", saved)
    with pytest.raises(OSError, match=r"audio_embeddings.safetensors is not the file.*sha256"):
        AudioBertKnowledgeBase.from_pretrained(saved)


def rewrite(saved: Path, **changes: object) -> None:
    """Makes the digests in `config.json` true of the files as they are, so that only the content is wrong."""
    old = KnowledgeBaseConfig.from_dict(json.loads((saved / "config.json").read_text()))
    (saved / "config.json").unlink()
    write_config(saved, dataclasses.replace(old, **changes))


def test_a_missing_column(saved: Path) -> None:
    table = pyarrow.parquet.read_table(saved / "metadata.parquet")
    pyarrow.parquet.write_table(table.drop_columns(["license"]), saved / "metadata.parquet")
    rewrite(saved)
    with pytest.raises(ValueError, match=r"metadata.parquet lacks the columns \['license'\]"):
        AudioBertKnowledgeBase.from_pretrained(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 11}, "number of vectors in index.faiss is 12, .* says 11"),
        ({"clap_width": 7}, "width of CLAP's text tower .* is 8, .* says 7"),
        ({"audio_hidden_size": 5}, r"shape of audio_embeddings.safetensors is \(12, 6\), .* says \(12, 5\)"),
    ],
)
def test_a_description_that_does_not_fit(saved: Path, changes: dict[str, int], message: str) -> None:
    rewrite(saved, **changes)
    with pytest.raises(ValueError, match=message):
        AudioBertKnowledgeBase.from_pretrained(saved)


def test_an_index_of_another_clap(knowledge_base: AudioBertKnowledgeBase) -> None:
    index = inner_product_index(np.eye(12, 5, dtype=np.float32))
    parts = (knowledge_base.audio_embeddings, knowledge_base.metadata, knowledge_base.query_encoder)
    with pytest.raises(ValueError, match=r"width of index.faiss is 5, .* says 8"):
        AudioBertKnowledgeBase(knowledge_base.config, index, *parts)


@pytest.mark.parametrize(
    ("name", "error"),
    [("index.faiss", "FAISS"), ("audio_embeddings.safetensors", "safetensors"), ("metadata.parquet", "parquet")],
)
def test_a_file_of_another_kind(saved: Path, name: str, error: str) -> None:
    (saved / name).write_bytes(b"nothing of the kind")
    rewrite(saved)
    with pytest.raises(OSError, match=f"{name} is not a {error}"):
        AudioBertKnowledgeBase.from_pretrained(saved)


def test_another_tensor_in_the_embedding_file(saved: Path) -> None:
    save_file({"weight": torch.zeros(2)}, saved / "audio_embeddings.safetensors")
    rewrite(saved)
    with pytest.raises(ValueError, match="lacks the tensor `audio_embeddings`"):
        AudioBertKnowledgeBase.from_pretrained(saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(format_version=99), "format_version"),
        (lambda c: c.update(metric="l2"), "metric"),
        (lambda c: c.pop("ast"), r"fields \['ast'\] are missing"),
        (lambda c: c.update(clap="laion"), "clap"),
        (lambda c: c.update(count="12"), "count"),
        (lambda c: c.update(count=0), "count"),
        (lambda c: c.update(query_template="sound"), "query_template"),
        (lambda c: c.update(audio_pooling="max"), "audio_pooling"),
        (lambda c: c.pop("files"), "files"),
        (lambda c: c["files"].pop("index.faiss"), "index.faiss"),
        (lambda c: c["files"].update({"../secret": {"size": 1, "sha256": ""}}), "secret"),
        (lambda c: c["files"].update({"index.faiss": 1}), "index.faiss"),
    ],
)
def test_a_bad_config(saved: Path, edit: object, message: str) -> None:
    values = json.loads((saved / "config.json").read_text())
    edit(values)
    (saved / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"config.json: .*{message}"):
        AudioBertKnowledgeBase.from_pretrained(saved)


def test_how_the_audio_was_pooled(knowledge_base: AudioBertKnowledgeBase, saved: Path) -> None:
    assert json.loads((saved / "config.json").read_text())["audio_pooling"] == "mean"
    knowledge_base.with_audio_embeddings(torch.randn(12, 6), audio_pooling="sounding").save_pretrained(saved)
    assert AudioBertKnowledgeBase.from_pretrained(saved).config.audio_pooling == "sounding"
    values = json.loads((saved / "config.json").read_text())
    # As in knowledge bases from before there was a choice.
    del values["audio_pooling"]
    (saved / "config.json").write_text(json.dumps(values))
    assert AudioBertKnowledgeBase.from_pretrained(saved).config.audio_pooling == "mean"


def test_a_full_disk_is_an_os_error(knowledge_base: AudioBertKnowledgeBase, saved: Path, tmp_path: Path) -> None:
    before = content(saved)
    for limit in (0, 400, 2000, 6000):
        with file_size_limit(limit), pytest.raises(OSError):
            knowledge_base.save_pretrained(saved)
    # Whatever did not fit, the folder is as it was.
    assert content(saved) == before


def test_a_config_that_is_no_json(saved: Path) -> None:
    (saved / "config.json").write_text("{")
    with pytest.raises(OSError, match="not valid JSON"):
        AudioBertKnowledgeBase.from_pretrained(saved)


def test_a_folder_without_a_knowledge_base(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="config.json is missing"):
        AudioBertKnowledgeBase.from_pretrained(tmp_path)


def test_no_such_place(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no knowledge base at"):
        AudioBertKnowledgeBase.from_pretrained(tmp_path / "nowhere", local_files_only=True)
    with pytest.raises(OSError, match="no knowledge base at 'nobody/nothing'"):
        AudioBertKnowledgeBase.from_pretrained("nobody/nothing", local_files_only=True, cache_dir=tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("no connection, and not in the cache"),
        ConnectionError("reset"),
        TimeoutError("timed out"),
        EntryNotFoundError("gone"),
    ],
)
def test_an_answer_that_the_hub_does_not_give_is_an_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(knowledge_files_audiobert, "snapshot_download", snapshot_download)
    monkeypatch.setattr(knowledge_files_audiobert, "is_offline_mode", lambda: False)
    with pytest.raises(OSError, match="'me/sounds' could not be loaded from the Hub .* Try again"):
        AudioBertKnowledgeBase.from_pretrained("me/sounds")


def test_a_knowledge_base_in_the_cache_needs_no_hub(saved: Path, tmp_path: Path) -> None:
    cached = tmp_path / "cache" / "models--me--sounds"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(saved, cached / "snapshots" / ("0" * 40))
    loaded = AudioBertKnowledgeBase.from_pretrained("me/sounds", cache_dir=tmp_path / "cache", local_files_only=True)
    assert len(loaded) == 12

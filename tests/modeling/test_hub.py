"""Whether a checkpoint has a file: yes, no, or nobody could say."""

from unittest.mock import Mock

import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RemoteEntryNotFoundError

from audiobert.modeling import hub_audiobert
from audiobert.modeling.hub_audiobert import has_file


def http_error(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    return kind(f"{status}", response=Mock(headers={}, status_code=status))


@pytest.fixture
def hub(monkeypatch):
    """An answer of the Hub to every question, asked online."""
    answer: list[Exception] = []

    def download(*args, **kwargs):
        raise answer[0]

    monkeypatch.setattr(hub_audiobert, "hf_hub_download", download)
    monkeypatch.setattr(hub_audiobert, "is_offline_mode", lambda: False)
    return answer


def test_a_file_of_a_folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "config.json").write_text("{}")
    assert has_file(tmp_path, "config.json", "inner")
    assert not has_file(tmp_path, "config.json")


def test_a_file_that_the_hub_says_is_not_there(hub):
    hub.append(http_error(RemoteEntryNotFoundError, 404))
    assert not has_file("user/model", "config.json")


@pytest.mark.parametrize(
    "error",
    [
        http_error(HfHubHTTPError, 503),
        http_error(GatedRepoError, 403),
        LocalEntryNotFoundError("no connection, and not in the cache"),
        ConnectionError("reset"),
        ValueError("Force download failed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_answer_is_an_error_and_not_a_no(hub, tmp_path, error):
    hub.append(error)
    with pytest.raises(OSError, match="Whether user/model has inner/config.json is not known"):
        has_file("user/model", "config.json", "inner", cache_dir=tmp_path)


def test_what_the_cache_knows_to_be_missing_needs_no_answer(hub, tmp_path):
    hub.append(LocalEntryNotFoundError("no connection"))
    repository = tmp_path / "models--user--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / ".no_exist" / ("a" * 40)).mkdir(parents=True)
    (repository / ".no_exist" / ("a" * 40) / "config.json").write_text("")
    assert not has_file("user/model", "config.json", cache_dir=tmp_path)


def test_asked_of_the_cache_alone_what_is_not_in_it_is_not_there(hub, tmp_path):
    hub.append(LocalEntryNotFoundError("not in the cache"))
    assert not has_file("user/model", "config.json", cache_dir=tmp_path, local_files_only=True)

"""What travels beside the weights: files that a checkpoint may or may not have, and whole folders to the Hub."""

from __future__ import annotations

import os

from huggingface_hub import CommitInfo, HfApi
from transformers import ASTFeatureExtractor, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file, create_and_tag_model_card


def has_file(path: str | os.PathLike, name: str, **hub) -> bool:
    """Whether the folder or Hub repository `path` has the file `name`; `hub` as for `from_pretrained`."""
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    return cached_file(path, name, **hub, **quiet) is not None


def load_tokenizer(path: str | os.PathLike, **hub) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a checkpoint, or None if it has none."""
    # Where there are no tokenizer files AutoTokenizer makes one without words rather than fail.
    if not any(has_file(path, name, **hub) for name in ("tokenizer.json", "vocab.txt")):
        return None
    return AutoTokenizer.from_pretrained(path, **hub)


def load_feature_extractor(path: str | os.PathLike, **hub) -> ASTFeatureExtractor | None:
    """The audio encoder's feature extractor of a checkpoint, or None if it has none."""
    if not has_file(path, "preprocessor_config.json", **hub):
        return None
    return ASTFeatureExtractor.from_pretrained(path, **hub)


def upload(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    commit_message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    model_card: bool = False,
    tags: list[str] | None = None,
    **commit,
) -> CommitInfo:
    """
    Uploads a folder and all folders in it (transformers' own upload goes one level deep) to a model repository.

    Args:
        folder: the folder.
        repo_id: made if it is not there.
        commit_message, commit, private, token, revision, tags: as for transformers' `push_to_hub`.
        model_card: whether to add one, with the tags, if the folder has none.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/pr"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    card = os.path.join(folder, "README.md")
    if model_card and not os.path.exists(card):
        create_and_tag_model_card(repo_id, tags, token=token).save(card)
    return api.upload_folder(
        repo_id=repo_id, folder_path=folder, commit_message=commit_message, revision=revision, **commit
    )

"""The Hub: files that a checkpoint may or may not have, and whole folders to upload."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from huggingface_hub import (
    _CACHED_NO_EXIST,
    CommitInfo,
    HfApi,
    hf_hub_download,
    is_offline_mode,
    try_to_load_from_cache,
)
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from transformers.utils.hub import create_and_tag_model_card


def has_file(path: str | os.PathLike, name: str, subfolder: str = "", **hub: Any) -> bool:
    """
    Whether the folder or Hub repository `path` has the file `name`; `hub` as for `hf_hub_download`. Offline, or with
    `local_files_only`, the question is whether the cache has it.

    Raises:
        OSError: if the Hub could not be asked, and the cache does not know.
    """
    if os.path.isdir(path):
        return os.path.isfile(os.path.join(path, subfolder, name))
    where = f"{subfolder}/{name}" if subfolder else name
    try:
        hf_hub_download(str(path), where, **hub)
        return True
    except EntryNotFoundError as error:
        # Of this kind is also what says that there was no connection.
        offline = hub.get("local_files_only") or is_offline_mode()
        if offline or not isinstance(error, LocalEntryNotFoundError):
            return False
        reason: Exception = error
    except (OSError, ValueError) as error:
        reason = error
    cached = {key: value for key, value in hub.items() if key in ("cache_dir", "revision")}
    if try_to_load_from_cache(str(path), where, **cached) is _CACHED_NO_EXIST:
        return False
    raise OSError(
        f"Whether {path} has {where} is not known, as the Hub gave no answer: {reason} Try again, or pass "
        "`local_files_only=True` if the checkpoint is in the cache."
    ) from reason


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
    **commit: Any,
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
        # transformers' own annotation of `token` leaves out True, which it takes.
        create_and_tag_model_card(repo_id, tags, token=token).save(card)  # type: ignore[arg-type]
    return api.upload_folder(
        repo_id=repo_id, folder_path=Path(folder), commit_message=commit_message, revision=revision, **commit
    )

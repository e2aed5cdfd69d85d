"""A folder -> a model repository of the Hugging Face hub, through huggingface_hub (an extra).

What can be refused is asked before anything is uploaded: who the person is, and what stands in the repository already.
An upload that broke off is continued by another call: what the hub has is not sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.hub import HubName, endpoint, first_line
from lmworks.base.sources import is_offline

INSTALL = "pip install 'lmworks[hub]'"
LOGIN = "hf auth login, or set HF_TOKEN to a token that may write"
KEPT = (".gitattributes",)
"""What the hub puts into every new repository."""


def repository_of(target: str) -> str:
    """``owner/name`` of ``hub:owner/name``.

    Raises:
        InputError: it names no repository, or something within one.
    """
    if not target.startswith("hub:"):
        raise InputError("is no place to share a model at", target, "write hub:owner/name, or give --to FOLDER")
    name = HubName.of(target.removeprefix("hub:"))
    if name.file or name.revision:
        raise InputError("names a file or a revision", target, f"a model is shared as a whole: hub:{name.repo}")
    return name.repo


def check_repository(repo: str, overwrite: bool) -> None:
    """Ask the hub whether a model can be put into a repository, which need not exist yet.

    Args:
        repo: owner/name.
        overwrite: whether a model there may be replaced.

    Raises:
        InputError: nothing may be sent, the person is not known there, or the repository has files.
    """
    place = f"hub:{repo}"
    if is_offline():
        raise InputError(
            "nothing may be sent: LMWORKS_OFFLINE or HF_HUB_OFFLINE is set", place, "unset it, or give --to FOLDER"
        )
    if find_spec("huggingface_hub") is None:
        raise InputError("huggingface_hub is not installed", place, INSTALL)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi(endpoint=endpoint())
    try:
        api.whoami()
        files = [file for file in api.list_repo_files(repo) if file not in KEPT]
    except RepositoryNotFoundError:
        return
    except Exception as error:  # of several libraries
        raise _refusal(error, place) from error
    if files and not overwrite:
        hint = "choose another name, or replace what is there with --overwrite (in Python overwrite=True)"
        raise InputError(f"holds {len(files)} files already, such as {files[0]}", place, hint)


def upload(folder: Path, repo: str, message: str, private: bool, replaced: Sequence[str]) -> str:
    """Upload a folder; the repository is made where there is none.

    Args:
        folder: what the repository gets.
        repo: owner/name.
        message: of the commit.
        private: of a new repository: only its owner sees it.
        replaced: patterns of names; files of the repository that match and are not in the folder are deleted.

    Returns:
        The address of the commit.

    Raises:
        InputError: the hub refuses it, or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint())
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=message, delete_patterns=list(replaced)
        )
    except Exception as error:  # of several libraries
        raise _refusal(error, f"hub:{repo}") from error
    return str(commit.commit_url)


def _refusal(error: Any, place: str) -> InputError:
    """What a person can do about an error of huggingface_hub."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if type(error).__name__ == "LocalTokenNotFoundError":
        return InputError("the hub takes models only from people whom it knows", place, LOGIN)
    if status == 401:
        return InputError("the hub does not accept the token", place, LOGIN)
    if status == 403:
        hint = "choose an owner for whom you may write, or a token that may: hf auth login"
        return InputError("this token may not write there", place, hint)
    if status is not None and 400 <= status < 500:
        return InputError(f"the hub refuses it: {first_line(error)}", place, "change what it names, and try again")
    hint = "try again, which goes on where it broke off; or write the same without a hub: --to FOLDER"
    return InputError(f"the hub cannot be reached: {first_line(error)}", place, hint)

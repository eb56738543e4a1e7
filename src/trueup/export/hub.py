"""Upload a proven folder to the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trueup.errors import ModelError
from trueup.system.text import excerpt, masked

_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".gguf")


def check_name(name: str) -> None:
    """Raise ModelError unless `name` is owner/name."""
    if not _NAME.fullmatch(name):
        raise ModelError(f"--push-to-hub {name}: a repository is named owner/name, such as me/my-model")


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Make the repository if it is not there, and upload the folder as one commit.

    A repository that is there must not hold weights which the folder lacks: they could be loaded in its weights' place.

    Args:
        folder: what to upload, all of it.
        name: owner/name.
        private: make it private; without it the owner's default holds.

    Returns:
        The repository's address.

    Raises:
        ModelError: no token, no network, no permission; the repository is public though `private` was asked for; it
            holds other weights. The folder stays as it is.
    """
    from huggingface_hub import HfApi

    again = f"{folder} is written and proven; upload it with `hf upload {name} {folder}`"
    try:
        address = _push(HfApi(), folder, name, private)
    except ModelError as error:
        raise ModelError(f"{error}\n  {again}") from None
    except Exception as error:  # the HTTP library underneath, and so its errors, differ between the client's versions
        reason = excerpt(" ".join(masked(str(error)).split()), 200)[1:-1]
        raise ModelError(
            f"--push-to-hub {name}: the upload failed: {type(error).__name__}: {reason}\n"
            f"  without a token: `hf auth login`, or set HF_TOKEN (one that may write); offline: unset HF_HUB_OFFLINE\n"
            f"  {again}"
        ) from error
    return address


def _push(api: Any, folder: Path, name: str, private: bool) -> str:
    address = str(api.create_repo(name, private=private or None, exist_ok=True))
    if private and not api.repo_info(name).private:
        raise ModelError(f"--private: {name} is there already, and public; make it private first, or name another")
    there = [file for file in api.list_repo_files(name) if file.endswith(_WEIGHTS)]
    if strange := sorted(file for file in there if not (folder / file).is_file()):
        raise ModelError(
            f"--push-to-hub {name}: it holds weights that this export has not, and that could be loaded instead: "
            f"{', '.join(strange[:3])}; delete them there, or name another repository"
        )
    api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a model trained with trueup")
    return address

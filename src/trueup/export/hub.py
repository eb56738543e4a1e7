"""Upload a folder that has passed the export's proof to the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trueup.errors import ModelError
from trueup.system.text import excerpt, masked

_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".gguf")


def check_name(name: str) -> None:
    """Check that `name` has the form owner/name of a hub repository.

    Raises:
        ModelError: it has another form.
    """
    if not _NAME.fullmatch(name):
        raise ModelError(f"--push-to-hub {name}: a repository is named owner/name, such as me/my-model")


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload the folder to a hub repository as a single commit, after creating the repository if it does not exist.

    An existing repository must not hold weights that the folder lacks: they could be loaded instead of the new ones.

    Args:
        folder: folder to upload, with all its files.
        name: repository as owner/name.
        private: create it as private; otherwise the owner's default applies.

    Returns:
        The repository's URL.

    Raises:
        ModelError: no token, no network or no permission; the repository is public although `private` is set; or it
            holds other weights. The folder is unchanged.
    """
    from huggingface_hub import HfApi

    retry = f"{folder} is written and proven; upload it with `hf upload {name} {folder}`"
    try:
        address = _push(HfApi(), folder, name, private)
    except ModelError as error:
        raise ModelError(f"{error}\n  {retry}") from None
    except Exception as error:  # the client's versions use different HTTP libraries, with different errors
        reason = excerpt(" ".join(masked(str(error)).split()), 200)[1:-1]
        raise ModelError(
            f"--push-to-hub {name}: the upload failed: {type(error).__name__}: {reason}\n"
            f"  without a token: `hf auth login`, or set HF_TOKEN (one that may write); offline: unset HF_HUB_OFFLINE\n"
            f"  {retry}"
        ) from error
    return address


def _push(api: Any, folder: Path, name: str, private: bool) -> str:
    address = str(api.create_repo(name, private=private or None, exist_ok=True))
    if private and not api.repo_info(name).private:
        raise ModelError(f"--private: {name} exists and is public; make it private first, or name another repository")
    weights = [file for file in api.list_repo_files(name) if file.endswith(_WEIGHTS)]
    if extra := sorted(file for file in weights if not (folder / file).is_file()):
        raise ModelError(
            f"--push-to-hub {name}: it holds weights that are not in this export and could be loaded instead: "
            f"{', '.join(extra[:3])}; delete them there, or name another repository"
        )
    api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a model trained with trueup")
    return address

"""Reading weight files as data: tensors only, never code."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import InputError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def weight_file(path: Path) -> Path:
    """``path``, or the weight file in it where it is a folder, such as a model repository fetched from the hub.

    Returns:
        The file; whether it exists is not looked at.

    Raises:
        InputError: a folder that holds none, or several that could be meant.
    """
    if not path.is_dir():
        return path
    for suffix in SUFFIXES:  # safetensors before pickles of the same tensors
        files = sorted(path.glob(f"*{suffix}"))
        named = [file for file in files if file.name.startswith("model")]
        if len(named or files) == 1:
            return (named or files)[0]
        if files:
            raise InputError(
                f"--weights {path}: holds {', '.join(file.name for file in files)}. Name one of these files."
            )
    raise InputError(f"--weights {path}: no weight file in this folder. Expected one ending in {' '.join(SUFFIXES)}.")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a ``.safetensors`` file, or of a PyTorch file read with ``weights_only=True``, on the CPU.

    A training checkpoint that keeps its tensors under ``state_dict`` or ``model`` is unwrapped.

    Returns:
        By name, tensors on the CPU.

    Raises:
        InputError: no such file, damaged, holds anything but tensors, or would have to run code to load.
    """
    if not path.is_file():
        raise InputError(f"--weights {path}: no such file. Expected a .safetensors or .pth file of tensors.")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _torch_load(path)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: refused, because loading it could run code stored in it. "
            "Expected tensors only: save the network's state_dict, or convert it to .safetensors."
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: not a readable weight file ({cause(error)}). "
            "Expected a .safetensors or .pth file; fetch it again."
        ) from error
    if isinstance(content, dict):
        content = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise InputError(f"{path}: holds something else than named tensors. Expected a state_dict.")
    return content


def cause(error: BaseException) -> str:
    """The first lines of an error's message in one line, or its type where it has none."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def _torch_load(path: Path) -> Any:
    with warnings.catch_warnings():  # about the pickle protocol, of files that are refused next
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)

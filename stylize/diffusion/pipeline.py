"""Loading a Stable Diffusion pipeline: a hub id, a folder in diffusers format, or the tiny one that comes along.

Only safetensors weights are read, never pickles. ``HF_HUB_OFFLINE=1`` is respected. Nothing is ever loaded in place of
what was asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metrics.errors import InputError
from metrics.extractors.extractor import check_device
from metrics.registry import unknown

from ..shipped import shipped

TINY = "tiny"  # 32 px, Fashion-MNIST classes; see assets/tiny-diffusion/README.md
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
NETWORKS = ("text_encoder", "unet", "vae")
CLASSES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
DROPPED = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}  # not downloaded, not loaded
SCHEDULERS = {
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "dpm++-karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


def load_pipeline(model: str | Path = TINY, *, device: str = "cpu", dtype: str = "float32") -> Any:
    """A ``StableDiffusionPipeline`` in eval mode, without safety checker (it would blacken images silently).

    Args:
        model: ``tiny``, a folder in diffusers format, or a hub id: ``stable-diffusion-v1-5/stable-diffusion-v1-5``.
        device: where it runs, e.g. ``cuda``.
        dtype: ``float32``, ``float16`` or ``bfloat16``.

    Returns:
        The pipeline, with its tokenizer, text encoder, U-Net and autoencoder on ``device``.

    Raises:
        InputError: the extra is not installed; the model is missing, incomplete, pickled, SDXL or of another kind, or
            has no text encoder.
    """
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    check_device(device)
    diffusers = require_diffusers()
    _quieten()
    local = _local(model)
    folder = local or _download(str(model))
    index = _read_index(folder / "model_index.json")
    _check_kind(str(model), index)
    _check_complete(folder)
    options: dict[str, Any] = {name: None for name in DROPPED if name in index or name != "image_encoder"}
    options |= {"dtype": DTYPES[dtype], "use_safetensors": True, "requires_safety_checker": False}
    try:
        options["text_encoder"] = _text_encoder(folder / "text_encoder", DTYPES[dtype])
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, **options)
        for name in NETWORKS:
            getattr(pipeline, name).eval().requires_grad_(False)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(device)
    except (OSError, ValueError, RuntimeError, KeyError) as error:  # of the files and their shapes
        advice = "Save or download it again" if local else "Delete it from the cache of the hub and repeat the command"
        raise InputError(f"{folder}: cannot be loaded ({_first_line(error)}). {advice}.") from error


def _text_encoder(folder: Path, dtype: torch.dtype) -> Any:
    """Loaded apart, because transformers would fill in a missing tensor at random."""
    from transformers import CLIPTextModel

    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    loaded: Any = CLIPTextModel.from_pretrained(folder, **options)
    network, found = loaded
    if found["missing_keys"]:
        raise KeyError(f"text_encoder: its weights lack {', '.join(sorted(found['missing_keys'])[:3])}")
    return network


def _quieten() -> None:
    """No bars and no notices of the libraries: stderr is for this program's own words."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def require_diffusers() -> Any:
    """The module ``diffusers``; raises InputError where the extra is not installed."""
    try:
        import accelerate  # noqa: F401
        import diffusers
        import transformers  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"Stable Diffusion needs packages that are not installed ({error}). "
            "Install them: pip install 'reverse-stylize[diffusion]'"
        ) from error
    return diffusers


def set_scheduler(pipeline: Any, name: str) -> None:
    """Sample with the scheduler ``name`` of SCHEDULERS; noise levels and prediction type stay the model's."""
    if name not in SCHEDULERS:
        raise unknown("scheduler", name, SCHEDULERS)
    kind, options = SCHEDULERS[name]
    pipeline.scheduler = getattr(require_diffusers(), kind).from_config(pipeline.scheduler.config, **options)


def check_size(pipeline: Any, size: int | None) -> int:
    """A side in pixels, by default that of the training images; raises InputError where halving does not come out."""
    config, factor = pipeline.unet.config, int(pipeline.vae_scale_factor)
    native, multiple = int(config.sample_size) * factor, factor * 2 ** (len(config.block_out_channels) - 1)
    size = native if size is None else size
    if size < multiple or size % multiple:
        raise InputError(f"size {size}: expected a multiple of {multiple} for this model, e.g. {native}.")
    return size


def fingerprint(pipeline: Any) -> str:
    """16 hexadecimal digits of a SHA-256 over all weights in their dtype, noise levels and vocabulary size."""
    schedule = {key: value for key, value in sorted(pipeline.scheduler.config.items()) if "beta" in key}
    schedule["prediction_type"] = pipeline.scheduler.config.prediction_type
    digest = hashlib.sha256(json.dumps([schedule, len(pipeline.tokenizer)], default=str).encode())
    for name in NETWORKS:
        for key, tensor in sorted(getattr(pipeline, name).state_dict().items()):
            digest.update(f"{name}/{key}/{tensor.dtype}/{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _local(model: str | Path) -> Path | None:
    """The folder that ``model`` names; None for a hub id."""
    if str(model) == TINY:
        return shipped("tiny-diffusion")
    path = Path(model)
    if path.is_file():
        raise InputError(
            f"{path}: a single-file checkpoint. Expected a folder in diffusers format or a hub id. Convert it: "
            "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)"
        )
    if path.is_dir():
        return path
    if isinstance(model, Path) or path.is_absolute() or str(model).startswith(".") or str(model).count("/") != 1:
        raise InputError(
            f"{model}: no such folder. Expected a folder in diffusers format, a hub id OWNER/NAME, or {TINY!r}, "
            "the small model that comes along."
        )
    return None


def _read_index(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(
            f"{path}: not found. Expected a Stable Diffusion pipeline in diffusers format: a folder with "
            "model_index.json, unet/, vae/, text_encoder/, tokenizer/ and scheduler/."
        )
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not JSON ({error}). Download the model again.") from error


def _download(model: str) -> Path:
    """The folder in the hub's cache; the kind is checked before gigabytes of weights come."""
    from huggingface_hub import hf_hub_download

    try:
        _check_kind(model, _read_index(Path(hf_hub_download(model, "model_index.json"))))
        kind = require_diffusers().StableDiffusionPipeline
        return Path(kind.download(model, use_safetensors=True, **DROPPED))
    except (OSError, ValueError) as error:  # all errors of the hub are
        if isinstance(error, InputError):
            raise
        raise InputError(_cannot_download(model, error)) from error


def _check_kind(model: str, index: Mapping[str, Any]) -> None:
    kind = str(index.get("_class_name"))
    if "XL" in kind:
        raise InputError(
            f"{model}: {kind}. SDXL has two text encoders and is not supported; use a Stable Diffusion 1.x or 2.x "
            "model, e.g. --model stable-diffusion-v1-5/stable-diffusion-v1-5"
        )
    if _absent(index, "text_encoder") or _absent(index, "tokenizer"):
        raise InputError(
            f"{model}: has no text encoder or no tokenizer, so there is no embedding to learn or to use. "
            "Use a complete text-to-image model, e.g. --model stable-diffusion-v1-5/stable-diffusion-v1-5"
        )
    if kind not in CLASSES:
        raise InputError(f"{model}: a {kind}. Expected a {CLASSES[0]} (Stable Diffusion 1.x or 2.x).")


def _absent(index: Mapping[str, Any], component: str) -> bool:
    return not any(index.get(component) or [])


def _check_complete(folder: Path) -> None:
    for name in NETWORKS:
        _need(folder, f"{name}/config.json")
        if not any(path for pattern in WEIGHTS for path in (folder / name).glob(pattern)):
            pickled = sorted((folder / name).glob("*.bin"))
            if pickled:
                raise InputError(
                    f"{pickled[0]}: pickled weights, which can run code when loaded, are not read. Save them again "
                    "with save_pretrained(FOLDER, safe_serialization=True)."
                )
            _need(folder, f"{name}/*.safetensors")
    _need(folder, "scheduler/scheduler_config.json")
    if not (folder / "tokenizer" / "tokenizer.json").is_file():  # without either, an empty tokenizer would be made
        _need(folder, "tokenizer/vocab.json")
        _need(folder, "tokenizer/merges.txt")


def _need(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise InputError(
            f"{folder}: incomplete, {name} is missing. Was a download interrupted? Repeat it: "
            "hf download OWNER/NAME --local-dir FOLDER"
        )


def _cannot_download(model: str, error: Exception) -> str:
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        advice = "HF_HUB_OFFLINE is set: unset it to download"
    else:
        advice = "check the name and the network, or repeat the command to finish an interrupted download"
    return (
        f"{model}: cannot be loaded ({_first_line(error)}). {advice}; or name a folder, or --model {TINY}, which needs "
        "no network."
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0][:200]

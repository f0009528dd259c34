"""Any timm model as an extractor: ``timm:<architecture>[.<tag>]``, with the preprocessing of its own configuration."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants
from timm.models import get_pretrained_cfg

from ..errors import InputError
from .network import Network, spread_out
from .preprocess import Preprocess
from .weights import cause, read_weights

LIST = "List them all with: python -c 'import timm; print(*timm.list_models())'"
OFFLINE = "pass --weights FILE (.safetensors or .pth; or its folder), or use --extractor efficientnet-lite0."


def load(name: str, *, weights: Path | None = None) -> Network:
    """The pooled features, before the classifier, of ``timm:<model>``.

    Pretrained weights come through timm's own loader, from the Hugging Face cache or hub (``HF_HUB_OFFLINE=1`` keeps it
    to the cache), or from ``weights``.

    Args:
        name: as in ``load_extractor``.
        weights: a file that replaces the weights it would load.

    Returns:
        The network with the model's own preprocessing.

    Raises:
        InputError: unknown model or tag, no weights, weights that do not fit, or no way to fetch them.
    """
    model = name.partition(":")[2]
    network = pretrained(name, model, weights)
    network.reset_classifier(0)  # type: ignore[operator]
    preprocess = Preprocess.of_timm(network)
    return Network(name, network, preprocess, f"timm {model.partition('.')[0]}", preprocess.describe())


def layers(name: str) -> tuple[str, ...]:
    """The layers of a gap profile: four of those that timm names as the model's stages, or as its blocks."""
    model = name.partition(":")[2]
    _config(name, model)
    return stages(model)


def stages(model: str) -> tuple[str, ...]:
    """The same for a model of timm by its own name; the last stage is left out, because the output shows it."""
    with torch.device("meta"):
        info = timm.create_model(model, pretrained=False).feature_info
    return spread_out([stage["module"] for stage in info[:-1]])  # type: ignore[index]


def pretrained(name: str, model: str, weights: Path | None) -> torch.nn.Module:
    """Timm's ``model`` with its own head and pretrained weights, for the extractor called ``name``."""
    config = _config(name, model)
    overlay: dict[str, Any] = {}
    if weights is not None:
        overlay = {"state_dict": read_weights(weights), "custom_load": False}
    elif not config.has_weights:
        raise InputError(f"timm has no pretrained weights for {model!r}. Name a tag that has, or pass --weights FILE.")
    try:
        # With its own classifier, because timm checks the tensors' names strictly only then.
        return timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # the loaders below raise many types: HTTP, cache, format, shape
        raise _loading_failed(name, weights, config, error) from error


def _config(name: str, model: str) -> Any:
    """The pretrained configuration of ``model``, or an InputError with near names."""
    architecture, _, tag = model.partition(".")
    if not model:
        raise InputError(f"extractor {name!r} names no model. Expected timm:<model>, as in timm:resnet18. {LIST}")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(f'timm:{other}' for other in near)}? " if near else ""
        raise InputError(f"extractor {name}: timm has no model {architecture!r}. {hint}{LIST}")
    try:
        config = get_pretrained_cfg(model)
    except RuntimeError:  # an unknown tag
        config = None
    if config is None:
        tags = [other.partition(".")[2] for other in timm.list_models(f"{architecture}.*", pretrained=True)]
        raise InputError(
            f"extractor {name}: timm has no weights {tag!r} for {architecture!r}. "
            f"Known tags: {', '.join(tags) or 'none'}."
        )
    return config


def _loading_failed(name: str, weights: Path | None, config: Any, error: Exception) -> InputError:
    if weights is not None:
        return InputError(f"{weights}: does not fit {name} ({cause(error)}). Expected the state_dict of that model.")
    if config.hf_hub_id:
        fetch = f"Fetch it elsewhere (hf download {config.hf_hub_id} --local-dir FOLDER) and "
        source, cache = f"{config.hf_hub_id} on the Hugging Face hub", constants.HF_HUB_CACHE
    else:
        fetch = "Fetch it elsewhere and "
        source, cache = config.url, os.fspath(Path(torch.hub.get_dir(), "checkpoints"))
    return InputError(
        f"{name} needs its weights from {source}: not in {cache}, and not fetched ({cause(error)}). {fetch}{OFFLINE}"
    )

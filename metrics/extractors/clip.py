"""CLIP's image embedding: ``clip[:ViT-L-14-336]`` by open_clip's model names, with OpenAI's weights.

Radford et al., "Learning transferable visual models from natural language supervision" (2021). The default is the
network of CMMD (Jayasumana et al., "Rethinking FID", CVPR 2024) with its preprocessing for all models: the largest
square in the centre, Pillow's bicubic with its antialiasing, CLIP's mean and standard deviation. The embedding is the
projected class token, not yet of unit length: CMMD divides by the length itself.

The network is timm's image tower, so nothing but timm is needed. ``weights`` may be a file of OpenAI's weights as timm
or open_clip stores them (with or without the text tower).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from timm.data.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ..registry import unknown
from .network import Network
from .preprocess import Preprocess
from .timm_models import pretrained, stages

DEFAULT = "ViT-L-14-336"
MODELS = {
    "ViT-B-32": "vit_base_patch32_clip_quickgelu_224.openai",  # 512 features
    "ViT-B-16": "vit_base_patch16_clip_quickgelu_224.openai",  # 512
    "ViT-L-14": "vit_large_patch14_clip_quickgelu_224.openai",  # 768
    "ViT-L-14-336": "vit_large_patch14_clip_quickgelu_336.openai",  # 768
}


def load(name: str, *, weights: Path | None = None) -> Network:
    """The network, with weights from the Hugging Face cache or hub, or from ``weights``.

    Args:
        name: as in ``load_extractor``.
        weights: a file that replaces the weights it would load.

    Returns:
        The network with its preprocessing.

    Raises:
        InputError: unknown model, weights that do not fit, or no way to fetch them.
    """
    model = _model(name)
    network = pretrained(name, model, weights)
    preprocess = replace(
        Preprocess.of_timm(network), crop_pct=1.0, crop_mode="square", mean=OPENAI_CLIP_MEAN, std=OPENAI_CLIP_STD
    )
    return Network(name, network, preprocess, f"timm {model}, projected", preprocess.describe())


def layers(name: str) -> tuple[str, ...]:
    """The layers of a gap profile: four blocks from the first to the last but one."""
    return stages(_model(name))


def _model(name: str) -> str:
    _, colon, model = name.partition(":")
    if colon and model not in MODELS:
        raise unknown("CLIP model", model, MODELS)
    return MODELS[model or DEFAULT]

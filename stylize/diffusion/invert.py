"""Dataset style inversion: one embedding that stands for the style of a whole dataset.

Textual inversion (Gal et al. 2022) over all images at once, with each image's own class name in the prompt, so that
the new word has to hold what the classes share (Li et al., "Is synthetic data useful for transfer learning?...",
arXiv 2403.19866). Denoiser, autoencoder and text encoder stay frozen: the optimiser knows nothing but a matrix
``[vectors, hidden]`` that a hook puts in place of the placeholder's rows.

The paper states the sentence and 20,000 iterations for a dataset. Not stated, hence ours: AdamW without weight decay,
constant learning rate, its value, batch, one vector, the initialiser, and square centre crops instead of stretching.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from metrics.errors import InputError
from metrics.extractors.extractor import check_device
from metrics.image_sets.items import ImageSet, Item
from metrics.image_sets.open import open_images
from metrics.progress import Callback, iterates, silent, to_the_end
from metrics.registry import unknown

from ..writing.apply import content_digest
from .denoising import read
from .inversion import Inversion, InversionStep, Settings
from .pipeline import DTYPES, TINY, check_size, fingerprint, load_pipeline
from .placeholder import check_token, initialiser_id
from .prompts import PROMPT, STYLE_PROMPT, check_folder_name, check_label

MODES = {
    "dsi": "one token for the dataset; the class name is in the prompt (Li et al.)",
    "style": "one token for the dataset; no class name",
    "class-wise": "one token and one file per class, each learnt alone for so many steps",
}


@iterates
def iter_invert(
    real: str | Path,
    out: str | Path,
    *,
    model: str | Path = TINY,
    mode: str = "dsi",
    token: str = "<style>",
    initialiser: str = "style",
    vectors: int = 1,
    steps: int = 20_000,
    batch: int = 4,
    accumulate: int = 1,
    rate: float = 5e-4,
    warm_up: int = 0,
    size: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "float32",
    save_every: int = 500,
    validate_every: int = 0,
    progress: Callback = silent,
) -> Iterator[InversionStep]:
    """Learn an embedding of the images in ``real``.

    OUT (``*.safetensors``, key = the placeholder) loads in any diffusers pipeline of the same model through
    ``load_textual_inversion``. Beside it: ``OUT.csv``, the loss on a fixed batch, noise and times; sheets of validation
    images, if asked for; and until the end ``OUT.training``, from which the same call continues to the same bits (but
    with float16, whose loss scale starts anew). In the mode ``class-wise`` OUT is a folder of ``<class>.safetensors``.
    Under ``accelerate launch`` or ``torchrun`` the processes share every step, on CPUs too.

    Args:
        real: folder of real images; labels come from its folders or its ``metadata.jsonl``.
        out: file to write, or folder in the mode ``class-wise``.
        model: see :func:`stylize.diffusion.pipeline.load_pipeline`.
        mode: one of MODES.
        token: placeholder, lower case, not a word that the model knows.
        initialiser: word whose embedding the vectors start from; one token of the model.
        vectors: how many vectors the placeholder stands for.
        steps: optimiser steps; the paper has 20,000.
        batch: images per process and pass.
        accumulate: passes per step.
        rate: learning rate of AdamW; constant after ``warm_up`` steps.
        warm_up: steps of linear warm-up.
        size: side in pixels of the centre crops, a multiple of the autoencoder's factor; None: that of the model.
        seed: decides images, noise and times.
        device: ``cpu`` or ``cuda``.
        precision: ``float32``, ``float16`` or ``bfloat16`` for the frozen networks; the vectors are float32.
        save_every: steps between two saved states.
        validate_every: steps between two sheets of validation images; 0: none.
        progress: called with every step, too.

    Yields:
        Every optimiser step with its losses; one step without them where OUT is finished.

    Raises:
        InputError: a number out of range; an unsuitable token, initialiser or class name; an unreadable image; a single
            class in the mode ``dsi``; OUT was made with other settings; the loss is no longer finite.
    """
    out = Path(out)
    settings = Settings(token, initialiser, vectors, steps, batch, accumulate, rate, warm_up, 0, seed, precision)
    _check(out, mode, settings, save_every, validate_every)
    images = open_images(real)
    if mode != "style":
        _check_labels(images, mode)
    if images.losses:
        name, reason = images.losses[0]
        raise InputError(
            f"{images.root}: {len(images.losses)} images cannot be had; the first: {name}: {reason}. "
            "Repair or remove them."
        )
    for item in images:
        read(item)  # whatever cannot be decoded is found now, not hours later
    check_device(device)
    pipeline = load_pipeline(model)
    accelerator = _accelerator(device, precision)
    settings = replace(settings, size=check_size(pipeline, size))
    template = STYLE_PROMPT if mode == "style" else PROMPT
    config = {"mode": mode, "prompt": template, "model": fingerprint(pipeline), "images": content_digest(images)}
    config |= asdict(settings) | {"processes": accelerator.num_processes}
    parts = _parts(images, out, token, mode)
    for name in (token, *(name for name, _, _ in parts)):
        check_token(pipeline.tokenizer, name, vectors)
    initialiser_id(pipeline.tokenizer, initialiser)
    runs = []  # every prompt is checked before anything is computed
    for name, file, items in parts:
        own = ["" if mode == "style" else str(item.label) for item in items]
        runs.append(Inversion(pipeline, items, own, template, replace(settings, token=name), config, file, accelerator))
    for number, run in enumerate(runs):
        for step in run.train(save_every, validate_every):
            yield replace(step, done=step.done + number * steps, total=len(runs) * steps)


invert = to_the_end(iter_invert)


def _parts(images: ImageSet, out: Path, token: str, mode: str) -> list[tuple[str, Path, list[Item]]]:
    """Placeholder, file and images of every embedding to learn."""
    if mode != "class-wise":
        return [(token, out, list(images))]
    return [
        (class_token(token, label), out / f"{label}.safetensors", [item for item in images if item.label == label])
        for label in sorted({str(label) for label in images.labels})
    ]


def class_token(token: str, label: str) -> str:
    """The placeholder of a class in the mode ``class-wise``: ``<style>`` and ``coat`` give ``<style-coat>``.

    A digest keeps apart names that differ only in what a token cannot hold: capitals, spaces, signs.

    Args:
        token: of the whole set.
        label: of the class.

    Returns:
        The placeholder.
    """
    slug = "".join(letter if letter.isalnum() else "-" for letter in label.lower())
    if slug != label:
        slug += "-" + hashlib.sha256(label.encode()).hexdigest()[:6]
    return f"{token[:-1]}-{slug}>" if token.endswith(">") else f"{token}-{slug}"


def _check(out: Path, mode: str, settings: Settings, save_every: int, validate_every: int) -> None:
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if settings.precision not in DTYPES:
        raise unknown("precision", settings.precision, DTYPES)
    if mode != "class-wise" and out.suffix != ".safetensors":
        raise InputError(f"{out}: expected a file name ending in .safetensors, e.g. learned_embeds.safetensors")
    if mode == "class-wise" and out.suffix == ".safetensors":
        raise InputError(f"{out}: the mode class-wise writes one file per class. Name a folder.")
    counts = {"steps": settings.steps, "batch": settings.batch, "accumulate": settings.accumulate}
    for name, value in {**counts, "save_every": save_every}.items():
        if value < 1:
            raise InputError(f"{name} = {value}: expected at least 1.")
    if settings.warm_up < 0 or validate_every < 0:
        raise InputError(f"warm_up = {settings.warm_up}, validate_every = {validate_every}: expected at least 0.")
    if not (settings.rate > 0 and math.isfinite(settings.rate)):
        raise InputError(f"rate = {settings.rate}: expected a positive learning rate, e.g. 5e-4")


def _check_labels(images: ImageSet, mode: str) -> None:
    if None in images.labels:
        bare = next(item.key for item in images if item.label is None)
        raise InputError(
            f"{images.root}: {bare} has no class. Put the images into one folder per class, or use --mode style, which "
            "needs no classes."
        )
    labels = [check_label(label) for label in images.labels]
    if mode == "class-wise":
        for label in labels:
            check_folder_name(label)
    if mode == "dsi" and len(set(labels)) == 1:
        raise InputError(
            f"{images.root}: all images are of one class, {labels[0]!r}: what they share is the class as much as the "
            "style, and the token would hold both. Add classes, or say --mode style or --mode class-wise."
        )


def _accelerator(device: str, precision: str) -> Any:
    from accelerate import Accelerator

    if precision == "float16" and device == "cpu":
        raise InputError("precision float16 needs a GPU. On a CPU use --precision bfloat16 or float32.")
    kind = "fp16" if precision == "float16" else "no"  # only float16 needs its help: the scaling of the loss
    try:
        return Accelerator(cpu=device == "cpu", mixed_precision=kind)
    except ValueError as error:  # its state belongs to the process
        raise InputError(
            f"precision {precision}, device {device}: another one is in use in this process. Start a new process."
        ) from error

"""Does a pattern family or a style method keep its contract? Every sentence that comes back names one that it breaks.

For the tests of a package that adds one: ``assert stylize.validate.family(my_family) == []``.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from metrics.validate import describe, untouched_randomness

from .patterns import load_family, render_with_mask
from .styles.methods import StyleMethod, style_method

SIZE = 48


def family(candidate: Any, **options: Any) -> list[str]:
    """What a pattern family breaks of ``(class, instance, seed) -> image``.

    Args:
        candidate: a name, or the module that :class:`stylize.patterns.Family` describes.
        options: those that its ``sample_class`` needs.

    Returns:
        Sentences, none where it keeps its contract.
    """
    module: Any = load_family(candidate) if isinstance(candidate, str) else candidate
    missing = [name for name in ("Parameters", "sample_class", "render") if not hasattr(module, name)]
    if missing:
        return [f"has no {name}" for name in missing]
    broken: list[str] = []
    try:
        with untouched_randomness(broken):
            first, other = (module.sample_class(0, number, **options) for number in (0, 1))
            image = module.render(first, 0, SIZE)
            later = module.render(first, 3, SIZE)
    except Exception as error:
        return [f"sampling and rendering at {SIZE} pixels raises {type(error).__name__}: {error}"]
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != (SIZE, SIZE, 3):
        return [*broken, f"an image is {describe(image)}: expected uint8 [{SIZE},{SIZE},3]"]
    again = module.sample_class(0, 0, **options)
    if not isinstance(first, module.Parameters) or again != first:
        broken.append("sample_class(0, 0) twice gives two classes: expected equal Parameters of (seed, class) alone")
    if first == other:
        broken.append("classes 0 and 1 have the same parameters")
    if not np.array_equal(module.render(pickle.loads(pickle.dumps(again)), 3, SIZE), later):
        broken.append("an image depends on the images before it, or parameters do not survive pickling")
    if not np.array_equal(module.render(first, 0, SIZE), image):
        broken.append("the same image twice gives two")
    if module.render(first, 0, 2 * SIZE).shape != (2 * SIZE, 2 * SIZE, 3):
        broken.append(f"ignores the size {2 * SIZE}")
    drawn, mask = render_with_mask(module, first, 0, SIZE)
    if mask is not None and (mask.dtype != np.uint8 or mask.shape != (SIZE, SIZE) or not np.array_equal(drawn, image)):
        broken.append(f"render_with_mask gives a mask {describe(mask)}: expected the image and uint8 [{SIZE},{SIZE}]")
    return broken


def method(candidate: Any) -> list[str]:
    """What a style method breaks of ``learn`` and ``transfer``.

    Args:
        candidate: a name, or the record that an entry point gives.

    Returns:
        Sentences, none where it keeps its contract.
    """
    facts = style_method(candidate) if isinstance(candidate, str) else candidate
    if not isinstance(facts, StyleMethod):
        return [f"got a {type(facts).__name__}: expected a stylize.styles.methods.StyleMethod"]
    module: Any = facts.load()
    missing = [name for name in ("STATISTICS", "transfer") if not hasattr(module, name)]
    if missing:
        return [f"{module.__name__} has no {name}" for name in missing]
    source: Any = module if hasattr(module, "learn") else style_method(module.STATISTICS).load()
    photos, images = _images(2, 64, 64), _images(2, 40, 56)
    before, broken = images.clone(), list[str]()
    try:
        with untouched_randomness(broken):
            style = source.learn(photos)
            results = {strength: module.transfer(images, style, strength, [1, 2]) for strength in (0.0, 1.0)}
    except Exception as error:
        return [f"learning and transfer of float32 [2,3,H,W] raises {type(error).__name__}: {error}"]
    broken += _of_statistics(style)
    for strength, result in results.items():
        if not isinstance(result, torch.Tensor) or result.dtype != torch.float32 or result.shape != images.shape:
            return [*broken, f"a result is {describe(result)}: expected {describe(images)}"]
        if not torch.isfinite(result).all():
            broken.append(f"results at strength {strength:g} are NaN or infinite")
    if (results[0.0] - images).abs().max() > 0.5 / 255:
        broken.append("strength 0 changes an image by more than half a level of 255")
    if not torch.equal(images, before):
        broken.append("changes its images")
    if broken:
        return broken
    if not torch.equal(module.transfer(images, style, 1.0, [1, 2]), results[1.0]):
        broken.append("gives another result for the same seed")
    alone = module.transfer(images[1:], {name: values[1:] for name, values in style.items()}, 1.0, [2])
    if (alone - results[1.0][1:]).abs().max() > 1 / 255:
        broken.append("a result depends on the other images of the batch")
    return broken


def _of_statistics(style: Any) -> list[str]:
    if not isinstance(style, Mapping) or not style:
        return [f"statistics are {describe(style)}: expected tensors by name"]
    return [
        f"statistic {name!r} is {describe(values)}: expected a finite tensor [2, ...]"
        for name, values in style.items()
        if not isinstance(values, torch.Tensor) or len(values) != 2 or not torch.isfinite(values).all()
    ]


def _images(count: int, height: int, width: int) -> torch.Tensor:
    """Smooth images with detail, ``float32 [N,3,H,W]`` in [0, 1]."""
    rng = np.random.default_rng(height)
    coarse = torch.from_numpy(rng.random((count, 3, height // 8, width // 8), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (smooth * 0.8 + 0.2 * torch.from_numpy(rng.random((count, 3, height, width), dtype=np.float32))).clamp(0, 1)

"""The commands of ``stylize`` that use Stable Diffusion: parse, call, talk. They need the extra ``diffusion``."""

from __future__ import annotations

import math
import os
from collections import deque
from pathlib import Path
from typing import Annotated, Any

import typer

from metrics.commands.terminal import follow, path, say

from .progress import finish

Model = Annotated[str, typer.Option(help="tiny (comes along), a folder in diffusers format, or a hub id.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="float32, float16 or bfloat16.")]
Seed = Annotated[int, typer.Option(help="Decides every random draw.")]
Negative = Annotated[str, typer.Option(help="What the images should not show.")]
Guidance = Annotated[float, typer.Option(help="Scale of classifier-free guidance; 1: off.")]
Steps = Annotated[int, typer.Option(min=1, help="Sampling steps.")]
Scheduler = Annotated[str, typer.Option(help="dpm++, dpm++-karras, ddim, ddpm, euler, euler-a, heun, pndm or unipc.")]
Size = Annotated[int | None, typer.Option(help="Side in pixels; that of the model unless given.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes of one thread each, on the CPU.")]
Format = Annotated[str, typer.Option(help="png, jpeg or webp.")]
Quality = Annotated[int, typer.Option(help="1 to 100, for jpeg and webp.")]


def invert(
    real: Annotated[Path, typer.Argument(help="Folder of real images, one subfolder per class.", parser=path)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to write, or folder for the mode class-wise.", parser=path)
    ] = Path("learned_embeds.safetensors"),
    model: Model = "tiny",
    mode: Annotated[str, typer.Option(help="dsi: the class is in the prompt; style: no class; class-wise.")] = "dsi",
    token: Annotated[str, typer.Option(help="Placeholder, in lower case.")] = "<style>",
    initialiser: Annotated[str, typer.Option(help="Word that the vectors start from; one token.")] = "style",
    vectors: Annotated[int, typer.Option(min=1, help="Vectors that the placeholder stands for.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps; the paper has 20000.")] = 20_000,
    batch: Annotated[int, typer.Option(min=1, help="Images per process and pass.")] = 4,
    accumulate: Annotated[int, typer.Option(min=1, help="Passes per step.")] = 1,
    rate: Annotated[float, typer.Option(help="Learning rate (ours: the paper states none).")] = 5e-4,
    warm_up: Annotated[int, typer.Option(min=0, help="Steps of linear warm-up.")] = 0,
    size: Size = None,
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Precision = "float32",
    save_every: Annotated[int, typer.Option(min=1, help="Steps between two saved states.")] = 500,
    validate_every: Annotated[int, typer.Option(min=0, help="Steps between two sheets of images; 0: none.")] = 0,
) -> None:
    """Learn one embedding for the style of a whole dataset (dataset style inversion).

    Example: stylize invert photos -o s.safetensors --model stable-diffusion-v1-5/stable-diffusion-v1-5 --device cuda
    """
    from ..diffusion.invert import iter_invert

    work = iter_invert(
        real,
        out,
        model=model,
        mode=mode,
        token=token,
        initialiser=initialiser,
        vectors=vectors,
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        rate=rate,
        warm_up=warm_up,
        size=size,
        seed=seed,
        device=device,
        precision=precision,
        save_every=save_every,
        validate_every=validate_every,
    )
    if os.environ.get("RANK", "0") != "0":  # one of several processes talks
        deque(work, 0)
        return
    fresh = 0
    for last in follow(work, "invert"):
        fresh += not math.isnan(last.loss)
    if not fresh:
        say(f"{out}: already complete, nothing to do")
    else:
        say(f"invert: {last.total} steps, loss of the fixed batch {last.fixed_loss:.4f}")
    print(out)


def generate(
    out: Annotated[Path, typer.Argument(help="Folder to fill: one subfolder per class.", parser=path)],
    classes: Annotated[Path, typer.Option(help="Text file with a class name a line, or an ImageFolder.", parser=path)],
    per_class: Annotated[int, typer.Option(min=1, help="Images per class.")] = 100,
    embedding: Annotated[
        Path | None, typer.Option(help="Of stylize invert: a file, or a folder per class.", parser=path)
    ] = None,
    model: Model = "tiny",
    prompt: Annotated[str | None, typer.Option(help="Sentence with {class}, and {token} for the embedding.")] = None,
    negative: Negative = "",
    guidance: Guidance = 5.0,
    steps: Steps = 25,
    scheduler: Scheduler = "dpm++",
    size: Size = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once; changes rounding only.")] = 8,
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Precision = "float32",
    workers: Workers = 1,
    format: Format = "png",
    quality: Quality = 90,
) -> None:
    """Generate a labelled image set from class names, one seed per image; continues where it stopped.

    Example: stylize generate synthetic --classes classes.txt --per-class 200 --embedding style.safetensors
    """
    from ..diffusion.generate import iter_generate
    from ..diffusion.sampler import Sampler

    sampler = Sampler(model, embedding, negative, guidance, steps, scheduler, size, device, precision)
    options: dict[str, Any] = {"format": format, "quality": quality, "workers": workers}
    images = iter_generate(classes, out, sampler, per_class=per_class, prompt=prompt, batch=batch, seed=seed, **options)
    finish(images, "generate", out)


def restyle(
    embedding: Annotated[Path, typer.Argument(help="Of stylize invert: a file, or a folder per class.", parser=path)],
    synthetic: Annotated[Path, typer.Argument(help="Folder of images; fractals too.", parser=path)],
    out: Annotated[Path, typer.Argument(help="Folder to fill: same tree, keys and labels.", parser=path)],
    strength: Annotated[float, typer.Option(help="Share of the noise levels: near 0 nothing changes, 1 all does.")] = (
        0.5
    ),
    model: Model = "tiny",
    prompt: Annotated[str, typer.Option(help="Sentence with {token}, and {class} where the model knows them.")] = (
        "A photo in the style of {token}"
    ),
    negative: Negative = "",
    guidance: Guidance = 5.0,
    steps: Steps = 25,
    scheduler: Scheduler = "dpm++",
    size: Size = None,
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Precision = "float32",
    workers: Workers = 1,
    format: Format = "png",
    quality: Quality = 90,
) -> None:
    """Restyle a synthetic set by image-to-image diffusion with a learnt embedding; keeps keys and labels.

    Example: stylize restyle style.safetensors patterns restyled --strength 0.4
    """
    from ..diffusion.restyle import iter_restyle
    from ..diffusion.sampler import Sampler

    sampler = Sampler(model, embedding, negative, guidance, steps, scheduler, size, device, precision)
    options: dict[str, Any] = {"format": format, "quality": quality, "workers": workers}
    images = iter_restyle(synthetic, out, sampler, prompt=prompt, strength=strength, seed=seed, **options)
    finish(images, "restyle", out)


COMMANDS = (invert, generate, restyle)

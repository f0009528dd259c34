"""How recognisable are the tiny model's images? A classifier trained on real photos says, for several guidance scales.

python assets/make/judge_tiny_diffusion.py assets/tiny-diffusion
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch

from metrics.errors import InputError
from stylize.diffusion.pipeline import load_pipeline, set_scheduler

sys.path.append(str(Path(__file__).parents[2] / "examples" / "recipes"))
from _fashion import CLASSES, STYLES, photos
from fashion_classifier import accuracy, paint_each, train_classifier
from train_tiny_diffusion import PROMPT

BATCH = 48  # twice the styles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1, 2, 3, 5, 7.5])
    parser.add_argument("--per-pair", type=int, default=1, help="images per class and named style")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    classifier = train_classifier()
    grey, labels = photos("t10k")
    styles = np.random.default_rng(0).integers(0, len(STYLES), 2000)
    real = accuracy(classifier, paint_each(grey[:2000], styles, np.random.default_rng(1)), labels[:2000])
    print(f"| guidance | accuracy |\n|---|---:|\n| 2000 painted test photos | {100 * real:.1f} % |", flush=True)
    pipeline = load_pipeline(options.model)
    set_scheduler(pipeline, "dpm++")
    pairs = list(product(range(options.per_pair), range(len(CLASSES)), STYLES))
    wanted = np.array([label for _, label, _ in pairs])
    for guidance in options.guidance:
        prompts = [PROMPT.format(label=CLASSES[label], style=style) for _, label, style in pairs]
        images = [
            pipeline(
                prompts[start : start + BATCH],
                num_inference_steps=options.steps,
                guidance_scale=guidance,
                generator=[
                    torch.Generator().manual_seed(start + n) for n in range(len(prompts[start : start + BATCH]))
                ],
                output_type="np",
            ).images
            for start in range(0, len(prompts), BATCH)
        ]
        share = accuracy(classifier, np.rint(np.concatenate(images) * 255).astype(np.uint8), wanted)
        print(f"| {guidance:g} | {100 * share:.1f} % |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"judge_tiny_diffusion.py: {error}") from error

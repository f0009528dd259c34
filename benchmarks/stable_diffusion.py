"""Time and memory of inversion and generation with a network of Stable Diffusion 1.5's size on a CUDA device.

Run:      python benchmarks/stable_diffusion.py [--model FOLDER_OR_ID] [--precision bfloat16]

Without --model it builds Stable Diffusion 1.5's architecture with random weights (860 M parameters in the U-Net, 123 M
in the text encoder, 84 M in the autoencoder): the images are noise, the cost is that of the real thing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from stylize.diffusion.generate import iter_generate
from stylize.diffusion.invert import iter_invert
from stylize.diffusion.pipeline import TINY, load_pipeline
from stylize.diffusion.sampler import Sampler

PHOTOS = Path(__file__).parent.parent / "assets" / "photos" / "learn"
STEPS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        model = options.model or str(build(work / "model"))
        embedding, images = work / "style.safetensors", 3 * options.batch
        print(f"{torch.cuda.get_device_name()}, {options.precision}, batches of {options.batch}")
        training = {"mode": "style", "steps": STEPS, "batch": options.batch, "save_every": STEPS}
        times = []
        for _ in iter_invert(PHOTOS, embedding, model=model, device="cuda", precision=options.precision, **training):
            times.append(time.perf_counter())
        step = float(np.median(np.diff(times)))
        print(f"invert: {step:.3f} s a step, 20 000 steps take {20_000 * step / 3600:.1f} h, {peak()}", flush=True)
        torch.cuda.reset_peak_memory_stats()
        (work / "classes.txt").write_text("cat\n", encoding="utf-8")
        sampler = Sampler(model, embedding=embedding, device="cuda", dtype=options.precision)
        sampler.describe()  # loads it
        start = time.perf_counter()
        list(iter_generate(work / "classes.txt", work / "made", sampler, per_class=images, batch=options.batch))
        seconds = time.perf_counter() - start
        print(f"generate, {sampler.steps} steps: {images / seconds:.2f} images/s, {peak()}")


def build(folder: Path) -> Path:
    """Stable Diffusion 1.5 with random weights and the tiny model's tokenizer, in diffusers format."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = load_pipeline(TINY).tokenizer
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act="quick_gelu",
        projection_dim=768,
    )
    sides = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    with torch.device("cuda"):
        vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512, **sides)
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        encoder = CLIPTextModel(text)
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "skip_prk_steps": True}
    StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=encoder,
        tokenizer=tokenizer,
        scheduler=PNDMScheduler(steps_offset=1, set_alpha_to_one=False, **schedule),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def peak() -> str:
    return f"at most {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the device"


if __name__ == "__main__":
    main()

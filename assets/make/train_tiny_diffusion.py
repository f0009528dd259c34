"""Train a tiny Stable Diffusion from nothing: text-conditional, latent, in the standard diffusers format, on a CPU.

    apt-get install dataset-fashion-mnist
    python assets/make/train_tiny_diffusion.py work --minutes 60 --out assets/tiny-diffusion

An autoencoder learns 16x16x4 latents of 32 px images first (a tenth of the time), then a U-Net and a text encoder
together learn to remove noise from them, given "A {class} photo in the style of {style}". Some prompts are left empty
(classifier-free guidance), or name the style or the class alone. Interrupted? The same command continues. The learning
rates fall with the time that is left, so that a slower machine sees fewer images and still finishes.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from copy import deepcopy
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from metrics.errors import InputError

sys.path.append(str(Path(__file__).parents[2] / "examples" / "recipes"))
from _fashion import CLASSES, HELD_OUT, SIZE, STYLES, photos
from fashion_classifier import any_colours, paint_each, to_tensor

PROMPT = "A {label} photo in the style of {style}"
STYLE_PROMPT = "A photo in the style of {style}"
PLAIN_PROMPT = "A good photo of the {label}"
KINDS = {"full": 0.72, "style": 0.08, "plain": 0.08, "empty": 0.12}  # shares of the training prompts
WORDS = ["a", "good", "photo", "of", "the", "in", "style", "image", "picture", "look", "colour", "painting"]
LENGTH = 32  # tokens of a prompt
VAE_SHARE, VAE_BATCH, VAE_RATE, WIDTH = 1 / 10, 32, 2e-3, 24
BATCH, RATE, WARM_UP, AVERAGE = 32, 1e-3, 100, 0.998
SAVE_EVERY, LOG_EVERY = 100, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of checkpoints and the training log")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished pipeline")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="more only help where the cores are free")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    vae = train_autoencoder(options.work, VAE_SHARE * options.minutes, options.seed)
    tokenizer = make_tokenizer()
    networks = train_denoiser(options.work, vae, tokenizer, (1 - VAE_SHARE) * options.minutes, options.seed)
    save(options.out, vae, tokenizer, networks)


class Budget:
    """A share of the time that is left for a phase, over interruptions."""

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self.seconds, self.start = 60 * minutes, time.monotonic() - spent

    def spent(self) -> float:
        """Seconds so far, those before interruptions included."""
        return time.monotonic() - self.start

    def rate(self, step: int, warm_up: int = WARM_UP) -> float:
        """Warm-up by steps, then a cosine of the time, to a hundredth."""
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, self.spent() / self.seconds))
        return min(1.0, (step + 1) / warm_up) * max(0.01, cosine)


def train_autoencoder(work: Path, minutes: float, seed: int) -> AutoencoderTiny:
    """Absolute error of pixels and of their differences, in any colours; latents of mean 0 and standard deviation 1."""
    torch.manual_seed(seed)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(WIDTH, WIDTH),
        decoder_block_out_channels=(WIDTH, WIDTH),
        num_encoder_blocks=(1, 2),
        num_decoder_blocks=(2, 1),
        scaling_factor=1.0,
    )
    start_linear(vae)
    state = work / "autoencoder.pt"
    optimiser = torch.optim.AdamW(vae.parameters(), VAE_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    step, spent = _restore(state, vae, optimiser)
    budget, grey = Budget(minutes, spent), photos("train")[0]
    while budget.spent() < budget.seconds:
        rng = np.random.default_rng((seed, 1, step))
        image = any_colours(draw(grey, VAE_BATCH, rng)[0], rng)
        latents = vae.encode(image).latents
        decoded = vae.decode(latents).sample
        loss = (decoded - image).abs().mean() + 0.5 * _differences(decoded, image)
        loss = loss + 0.05 * (latents.mean((0, 2, 3)) ** 2 + (latents.std((0, 2, 3)) - 1) ** 2).mean()
        step = _advance(optimiser, loss, VAE_RATE * budget.rate(step), step, vae)
        if step % LOG_EVERY == 0:
            _log(work / "autoencoder.csv", {"step": step, "seconds": round(budget.spent()), "loss": loss.item()})
        if step % SAVE_EVERY == 0 or budget.spent() >= budget.seconds:
            _store(state, vae, optimiser, step, budget)
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def start_linear(vae: AutoencoderTiny) -> None:
    """Start as half the resolution, and back: three latents are colours and the blocks do nothing. Saves minutes.

    The twelve values of a 2x2 block of pixels become channels; a latent is the mean of four of them.
    """
    for module in vae.modules():
        if isinstance(module, AutoencoderTinyBlock):
            module.conv[-1].weight.zero_()
            module.conv[-1].bias.zero_()
    encoder = [layer for layer in vae.encoder.layers if isinstance(layer, nn.Conv2d)]
    decoder = [layer for layer in vae.decoder.layers if isinstance(layer, nn.Conv2d)]
    for layer, rows in zip([*encoder, *decoder], (3, 12, 3, 3, 3, 3), strict=True):
        layer.weight[:rows] = 0
        if layer.bias is not None:
            layer.bias.zero_()
    for colour in range(3):
        encoder[0].weight[colour, colour, 1, 1] = 1
        for part, (row, column) in enumerate(product((1, 2), (1, 2))):
            encoder[1].weight[3 * part + colour, colour, row, column] = 1
            encoder[2].weight[colour, 3 * part + colour, 1, 1] = 1 / 4 / 0.3
        encoder[2].bias[colour] = -0.5 / 0.3
        decoder[0].weight[colour, colour, 1, 1] = 0.3
        decoder[0].bias[colour] = 0.5
        decoder[1].weight[colour, colour, 1, 1] = 1
        decoder[2].weight[colour, colour, 1, 1] = 1


def draw(grey: np.ndarray, count: int, rng: np.random.Generator) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Random photos in random styles, half of the batches mirrored; with photo rows and style numbers."""
    rows, styles = rng.integers(0, len(grey), count), rng.integers(0, len(STYLES), count)
    chosen = grey[rows] if rng.random() < 0.5 else grey[rows, :, ::-1]
    return to_tensor(paint_each(chosen, styles, rng)), rows, styles


def _differences(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return sum((a.diff(dim=axis) - b.diff(dim=axis)).abs().mean() for axis in (2, 3))


def make_tokenizer() -> CLIPTokenizer:
    """A byte-level CLIP tokenizer in which every word of the prompts is one token; any other text still encodes.

    The merges of a word start from the pieces that earlier words' merges leave of it, so no word breaks another.

    Returns:
        The tokenizer, as ``save_pretrained`` takes it.
    """
    symbols = sorted(ByteLevel.alphabet())
    tokens, merges = [*symbols, *(symbol + "</w>" for symbol in symbols)], []
    names = " ".join([*CLASSES, *STYLES]).replace("-", " ").split()
    for word in dict.fromkeys([*WORDS, *names]):
        pieces = _apply_merges([*word[:-1], word[-1] + "</w>"], merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            tokens.append(pieces[0])
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def _apply_merges(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    while pairs := [pair for pair in pairwise(pieces) if pair in ranks]:
        at = list(pairwise(pieces)).index(min(pairs, key=ranks.__getitem__))
        pieces = [*pieces[:at], pieces[at] + pieces[at + 1], *pieces[at + 2 :]]
    return pieces


def make_networks(tokenizer: CLIPTokenizer) -> nn.ModuleDict:
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        **ids,
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE // 2,
        block_out_channels=(32, 48, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=text.hidden_size,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    return nn.ModuleDict({"unet": unet, "text": CLIPTextModel(text)})


def make_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def train_denoiser(
    work: Path, vae: AutoencoderTiny, tokenizer: CLIPTokenizer, minutes: float, seed: int
) -> nn.ModuleDict:
    """The usual loss, velocity (Salimans & Ho 2022) as the target; returns the averaged networks."""
    torch.manual_seed(seed)
    networks = make_networks(tokenizer)
    both = nn.ModuleDict({"now": networks, "average": deepcopy(networks).requires_grad_(False)})
    optimiser = torch.optim.AdamW(networks.parameters(), RATE, betas=(0.9, 0.99), weight_decay=1e-2)
    state, scheduler = work / "denoiser.pt", make_scheduler()
    step, spent = _restore(state, both, optimiser)
    budget, ids = Budget(minutes, spent), prompt_ids(tokenizer)
    grey, labels = photos("train")
    while budget.spent() < budget.seconds:
        rng = np.random.default_rng((seed, 3, step))
        image, rows, styles = draw(grey, BATCH, rng)
        with torch.no_grad():
            clean = vae.encode(image).latents
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        times = torch.from_numpy(rng.integers(0, 1000, BATCH))
        kinds = rng.choice(len(KINDS), BATCH, p=list(KINDS.values()))
        text = networks["text"](ids[kinds, labels[rows], styles])[0]
        guess = networks["unet"](scheduler.add_noise(clean, noise, times), times, encoder_hidden_states=text).sample
        loss = F.mse_loss(guess, scheduler.get_velocity(clean, noise, times))
        step = _advance(optimiser, loss, RATE * budget.rate(step), step, networks)
        _average(both["average"], networks, step)
        if step % LOG_EVERY == 0:
            _log(work / "denoiser.csv", {"step": step, "seconds": round(budget.spent()), "loss": loss.item()})
        if step % SAVE_EVERY == 0 or budget.spent() >= budget.seconds:
            _store(state, both, optimiser, step, budget)
    return both["average"].eval()


def prompt_ids(tokenizer: CLIPTokenizer) -> torch.Tensor:
    """Token ids ``int64 [kind, class, style, LENGTH]`` of every training prompt."""
    templates = {"full": PROMPT, "style": STYLE_PROMPT, "plain": PLAIN_PROMPT, "empty": ""}
    prompts = [templates[k].format(label=label, style=style) for k, label, style in product(KINDS, CLASSES, STYLES)]
    ids = tokenizer(prompts, padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids
    return ids.reshape(len(KINDS), len(CLASSES), len(STYLES), LENGTH)


def _average(average: nn.Module, current: nn.Module, step: int) -> None:
    share = 1 - min(AVERAGE, (step + 1) / (step + 10))
    with torch.no_grad():
        for kept, now in zip(average.parameters(), current.parameters(), strict=True):
            kept.lerp_(now, share)


def _advance(optimiser: torch.optim.Optimizer, loss: torch.Tensor, rate: float, step: int, network: nn.Module) -> int:
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return step + 1


def _store(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, step: int, budget: Budget) -> None:
    temporary = path.with_suffix(".tmp")
    kept = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    torch.save(kept | {"spent": budget.spent()}, temporary)
    temporary.replace(path)


def _restore(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
    if not path.is_file():
        return 0, 0.0
    kept = torch.load(path, weights_only=True)
    network.load_state_dict(kept["network"])
    optimiser.load_state_dict(kept["optimiser"])
    return int(kept["step"]), float(kept["spent"])


def _log(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def save(out: Path, vae: AutoencoderTiny, tokenizer: CLIPTokenizer, networks: nn.ModuleDict) -> None:
    """Write the pipeline as half-precision safetensors."""
    if set(HELD_OUT) & set(STYLES):
        raise ValueError("a held-out style was trained on")
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=networks["text"],
        tokenizer=tokenizer,
        unet=networks["unet"],
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(out)
    print(out)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"train_tiny_diffusion.py: {error}") from error

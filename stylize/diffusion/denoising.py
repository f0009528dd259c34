"""The loss that an inversion lowers: how well the frozen networks tell the noise in an image from the image.

Sample ``n`` of a run is an image, a time and noise that come from (seed, n) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from metrics.errors import InputError
from metrics.image_sets.decode import ImageError
from metrics.image_sets.items import Crop, Item, cut
from metrics.seed import generator

from .pipeline import require_diffusers

FIXED = 8  # samples of the loss curve, their times evenly spaced
Sample = tuple[int, int, np.random.Generator]  # index of the image, time, and where its noise is drawn from


class DenoisingLoss:
    """Mean squared error of the predicted noise (or velocity), as the model was trained.

    Args:
        pipeline: its networks are used where they are, in ``dtype``; the text encoder is float32.
        items: the images, and ``prompts`` the token ids ``int64 [N,length]`` of each.
        size: side in pixels of the centre crops.
        seed: decides images, times and noise.
        dtype: of the denoiser.
        device: where the networks are.

    Raises:
        InputError: the model predicts something else.
    """

    def __init__(
        self,
        pipeline: Any,
        items: Sequence[Item],
        prompts: torch.Tensor,
        size: int,
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.pipeline, self.items, self.prompts, self.size, self.seed = pipeline, items, prompts, size, seed
        self.dtype, self.device = dtype, device
        self.noise_levels = require_diffusers().DDPMScheduler.from_config(pipeline.scheduler.config)
        self.kind, self.times = self.noise_levels.config.prediction_type, self.noise_levels.config.num_train_timesteps
        if self.kind not in ("epsilon", "v_prediction"):
            raise InputError(f"the model predicts {self.kind!r}. Expected 'epsilon' or 'v_prediction'.")
        self.moments: dict[int, tuple[torch.Tensor, torch.Tensor | float]] = {}

    def __call__(self, samples: Sequence[Sample]) -> torch.Tensor:
        """The mean over samples, a scalar that the prompt's embeddings have a gradient of."""
        latents, noises = zip(*(self._latent_and_noise(image, draw) for image, _, draw in samples), strict=True)
        clean, noise = torch.stack(latents).to(self.device), torch.stack(noises).to(self.device)
        times = torch.tensor([time for _, time, _ in samples], device=self.device)
        noisy = self.noise_levels.add_noise(clean, noise, times)
        ids = self.prompts[[image for image, _, _ in samples]].to(self.device)
        text = self.pipeline.text_encoder(ids)[0].to(self.dtype)
        guess = self.pipeline.unet(noisy.to(self.dtype), times, encoder_hidden_states=text).sample.float()
        target = self.noise_levels.get_velocity(clean, noise, times) if self.kind == "v_prediction" else noise
        return F.mse_loss(guess, target)

    def sample(self, number: int) -> Sample:
        """The sample ``number`` of the run: every epoch is a permutation of the images."""
        epoch, place = divmod(number, len(self.items))
        order = generator(self.seed, "epoch", str(epoch)).permutation(len(self.items))
        draw = generator(self.seed, "inversion", str(number))
        return int(order[place]), int(draw.integers(0, self.times)), draw

    @torch.no_grad()
    def fixed(self, batch: int) -> float:
        """The loss on the same FIXED samples every time."""
        draw = generator(self.seed, "curve", "")
        times = np.linspace(0, self.times, FIXED, endpoint=False).astype(int)
        images = draw.integers(0, len(self.items), FIXED)
        samples = [(int(image), int(time), draw) for image, time in zip(images, times, strict=True)]
        parts = [samples[start : start + batch] for start in range(0, FIXED, batch)]
        return sum(float(self(part)) * len(part) for part in parts) / FIXED

    def _latent_and_noise(self, image: int, draw: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        mean, spread = self._moments(image)
        grain, noise = (torch.from_numpy(draw.standard_normal(mean.shape, dtype=np.float32)) for _ in range(2))
        return (mean + spread * grain) * self.pipeline.vae.config.scaling_factor, noise

    @torch.no_grad()
    def _moments(self, index: int) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Mean and standard deviation of the latents of an image, ``float32 [C,h,w]``; kept in memory."""
        if index not in self.moments:
            pixels = fit(read(self.items[index]), self.size)
            image = (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1).to(self.device)
            encoded = self.pipeline.vae.encode(image.to(self.pipeline.vae.dtype))
            if hasattr(encoded, "latents"):  # AutoencoderTiny has no posterior
                self.moments[index] = (encoded.latents[0].float().cpu(), 0.0)
            else:
                posterior = encoded.latent_dist
                self.moments[index] = (posterior.mean[0].float().cpu(), posterior.std[0].float().cpu())
        return self.moments[index]


def read(item: Item) -> np.ndarray:
    """The image ``uint8 [H,W,3]`` of an item; raises InputError when it cannot be read."""
    try:
        return item.read()
    except ImageError as error:
        raise InputError(f"{item.location}: {error}. Repair or remove this image.") from error


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """``uint8 [H,W,3]`` to ``uint8 [size,size,3]``: the central square, resized; nothing is stretched."""
    height, width = image.shape[:2]
    side = min(height, width)
    return cut(image, Crop((width - side) // 2, (height - side) // 2, side, size))

"""The amortised stylizer: a small network, trained once, that paints a content in a style in one pass.

What closed forms reach is done in closed form: the Monge–Kantorovich map gives the content the style's colours, and
white noise through the square root of the style's patch covariance gives three octaves of Gaussian texture. From the
content, these and more noise a U-Net (Ronneberger et al. 2015) of half a million parameters predicts what is still
missing, as a change of the mapped content. The style steers it through conditional instance normalisation (Dumoulin
et al. 2017): scale and shift of every normalisation are linear in a code of the style's patch statistics. Noise enters
before every normalisation (Karras et al. 2019), so the network can invent detail where the content has none. All noise
comes from the image's seed. :mod:`stylize.training.train` trains it.

This is the family of AdaIN (Huang & Belongie, ICCV 2017), whose scale and shift are deviation and mean of a pretrained
encoder's features of the style photo. Here they follow from the style's patch statistics instead, so no encoder runs
when images are painted, and the style file needs to hold no features. A separate AdaIN would be the same network with a
heavier encoder, so there is none.

The statistics are those of :mod:`.patches`, of any image size. Nothing is copied from a photo: the network sees a style
as 84 numbers and textures of random phase.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from metrics.errors import InputError
from metrics.extractors.float_precision import ieee_float32
from metrics.files import write_atomically
from metrics.seed import generator

from .colour import learn as colour_statistics
from .gaussian_transport import square_root, transport
from .patches import LEVELS, PATCH, Statistics, convolved

STATISTICS = "patches"
FORMAT = "reverse-stylize network"
VERSION = 1
SHIPPED = Path(__file__).with_suffix(".safetensors")
STRIDE = 8  # sides are padded to a multiple of it
BORDER = 16  # pixels painted around the image and cut off: convolutions see zeros beyond the edge
CODE = 27 * len(LEVELS) + 3
ARCHITECTURE = {"half": 24, "quarter": 48, "eighth": 64, "style": 64, "blocks_half": 1, "blocks_quarter": 2}
ARCHITECTURE |= {"blocks_eighth": 3}
RESIDUAL = 0.25  # the untrained network changes little
SLOPE = 0.2  # of the leaky rectifiers
FLAT = 1e-4  # variance below which a normalised channel counts as flat
STRANGE = (
    1.75  # distance per dimension, in standard deviations; photos in general are within 1.7, means within 30 levels
)
LOOSE = 0.03  # variance of codes, in decades², that is added to those of the trained styles
KNOWN = ("known_mean", "known_precision")
MAXIMUM = 512  # channels, and blocks: bounds what a file can make this program allocate


class Stylizer(nn.Module):
    """Content, closed-form guesses, noise and style code to the result; see :func:`inputs` for the tensors.

    ``known_mean [84]`` and ``known_precision [84,84]`` are of the codes of the styles that it was trained on.

    Args:
        half: channels at 1/2 of the resolution.
        quarter: channels at 1/4.
        eighth: channels at 1/8.
        style: width of the style's hidden code.
        blocks_half: residual blocks at 1/2 of the resolution.
        blocks_quarter: residual blocks at 1/4.
        blocks_eighth: residual blocks at 1/8.
    """

    def __init__(
        self,
        *,
        half: int,
        quarter: int,
        eighth: int,
        style: int,
        blocks_half: int,
        blocks_quarter: int,
        blocks_eighth: int,
    ) -> None:
        super().__init__()
        self.style = nn.Sequential(nn.Linear(CODE, style), nn.LeakyReLU(SLOPE), nn.Linear(style, style))
        self.enter_half = _Painted(12 + 12 + 12 + 3, half, style)
        self.enter_quarter = _Painted(half, quarter, style, stride=2)
        self.enter_eighth = _Painted(quarter + 3, eighth, style, stride=2)
        self.blocks_8 = nn.ModuleList(_Block(eighth, style) for _ in range(blocks_eighth))
        self.join_quarter = nn.Conv2d(eighth + quarter, quarter, 1)
        self.blocks_4 = nn.ModuleList(_Block(quarter, style) for _ in range(blocks_quarter))
        self.join_half = nn.Conv2d(quarter + half, half, 1)
        self.blocks_2 = nn.ModuleList(_Block(half, style) for _ in range(blocks_half))
        self.leave = nn.Conv2d(half, 12, 3, padding=1)
        nn.init.normal_(self.leave.weight, std=0.02)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        self.register_buffer("known_mean", torch.zeros(CODE))
        self.register_buffer("known_precision", torch.zeros(CODE, CODE))

    known_mean: torch.Tensor
    known_precision: torch.Tensor

    def learn_styles(self, codes: torch.Tensor) -> None:
        """Remember which styles ``float32 [N,84]`` it is trained on."""
        codes = codes.double()
        covariance = torch.cov(codes.T, correction=0) + LOOSE * torch.eye(CODE, dtype=torch.float64)
        self.known_mean.copy_(codes.mean(0))
        self.known_precision.copy_(torch.linalg.inv(covariance))

    def knows(self, style: Statistics) -> bool:
        """Whether one style is like those that it was trained on, by the Mahalanobis distance of its code.

        On others, such as a clear sky for a network that saw textures, it paints what is no image: means that are off
        by most of the range, stripes. Networks that say nothing of their styles know all.

        Returns:
            Whether it is.
        """
        off = (style_code(style)[0] - self.known_mean.to(style["mean/1"].device)).double()
        return bool((off @ self.known_precision.to(off) @ off / CODE).sqrt() <= STRANGE)

    @property
    def noise_channels(self) -> tuple[int, int, int]:
        """Noise maps that are used at 1/2, 1/4 and 1/8 of the resolution: one per normalisation."""
        return 1 + 2 * len(self.blocks_2), 1 + 2 * len(self.blocks_4), 1 + 2 * len(self.blocks_8)

    def forward(
        self,
        content: torch.Tensor,
        mapped: torch.Tensor,
        code: torch.Tensor,
        texture_1: torch.Tensor,
        texture_2: torch.Tensor,
        texture_4: torch.Tensor,
        noise_2: torch.Tensor,
        noise_4: torch.Tensor,
        noise_8: torch.Tensor,
    ) -> torch.Tensor:
        """The result ``float32 [N,3,H,W]``; may leave [0, 1]. H and W are multiples of STRIDE."""
        style = F.leaky_relu(self.style(code), SLOPE)
        noises = [list(torch.split(noise, 1, 1)) for noise in (noise_2, noise_4, noise_8)]
        half = self.enter_half(_folded(content, mapped, texture_1, texture_2), style, noises[0].pop())
        quarter = self.enter_quarter(half, style, noises[1].pop())
        eighth = self.enter_eighth(torch.cat([quarter, 4 * texture_4], 1), style, noises[2].pop())
        for block in self.blocks_8:
            eighth = block(eighth, style, noises[2].pop(), noises[2].pop())
        quarter = F.leaky_relu(self.join_quarter(torch.cat([_enlarged(eighth), quarter], 1)), SLOPE)
        for block in self.blocks_4:
            quarter = block(quarter, style, noises[1].pop(), noises[1].pop())
        half = F.leaky_relu(self.join_half(torch.cat([_enlarged(quarter), half], 1)), SLOPE)
        for block in self.blocks_2:
            half = block(half, style, noises[0].pop(), noises[0].pop())
        result: torch.Tensor = mapped + RESIDUAL * F.pixel_shuffle(self.leave(half), 2)
        return result


def _folded(
    content: torch.Tensor, mapped: torch.Tensor, texture_1: torch.Tensor, texture_2: torch.Tensor
) -> torch.Tensor:
    """What enters at half the resolution, four pixels of the image to a pixel: ``[N,39,H/2,W/2]``."""
    full = ((2, content, 1), (2, mapped, 1), (4, texture_1, 0))
    folded = torch.cat([*(F.pixel_unshuffle(scale * x - less, 2) for scale, x, less in full), 4 * texture_2], 1)
    return folded.contiguous(memory_format=torch.channels_last)


class _Norm(nn.Module):
    """Noise of a learnt strength per channel, then instance normalisation with the style's scale and shift."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.full((channels, 1, 1), 0.2))
        self.affine = nn.Linear(style, 2 * channels)
        nn.init.normal_(self.affine.weight, std=0.02)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: torch.Tensor, style: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        x = torch.addcmul(x, noise, self.strength)
        scale, shift = self.affine(style)[..., None, None].chunk(2, 1)
        mean = x.mean((2, 3), keepdim=True)
        variance = (x.square().mean((2, 3), keepdim=True) - mean.square()).clamp_min(
            0
        )  # 15 times faster than torch.var
        scale = (1 + scale) * torch.rsqrt(variance + FLAT)
        return torch.addcmul(shift - mean * scale, x, scale)


class _Painted(nn.Module):
    """Convolution, normalisation, leaky rectifier."""

    def __init__(self, given: int, channels: int, style: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(given, channels, 3, stride=stride, padding=1)
        self.norm = _Norm(channels, style)

    def forward(self, x: torch.Tensor, style: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.norm(self.convolution(x), style, noise), SLOPE)


class _Block(nn.Module):
    """Residual block of two convolutions."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.first = _Painted(channels, channels, style)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = _Norm(channels, style)

    def forward(
        self, x: torch.Tensor, style: torch.Tensor, first_noise: torch.Tensor, second_noise: torch.Tensor
    ) -> torch.Tensor:
        changed: torch.Tensor = self.norm(self.second(self.first(x, style, first_noise)), style, second_noise)
        return x + changed


def transfer(
    images: torch.Tensor,
    style: Statistics,
    strength: float,
    seeds: Sequence[int],
    *,
    network: Stylizer | None = None,
) -> torch.Tensor:
    """Paint every image in its style.

    Images go through one at a time, so results do not depend on the batch. Up to rounding (which 8-bit results rarely
    show) they do not depend on the machine or its number of threads either.

    Args:
        images: ``float32 [N,3,H,W]`` in [0, 1], any size.
        style: what :func:`stylize.styles.methods.patches.learn` returns, one row per image.
        strength: 0 (content, exactly) to 1 (the network's result), mixed linearly.
        seeds: one per image; all noise is drawn from it.
        network: what :func:`load` returns; by default the one that comes with this package.

    Returns:
        ``float32 [N,3,H,W]``; may leave [0, 1].

    Raises:
        InputError: the network's file is missing or damaged.
    """
    painter = (load() if network is None else network).to(images.device)
    results = [images[:0]]
    with torch.no_grad(), ieee_float32():
        for index, seed in enumerate(seeds):
            own = {name: values[[index]] for name, values in style.items()}
            content = images[[index]]
            painted = painter(**inputs(content, own, [seed], painter.noise_channels, BORDER))
            inner = painted[..., BORDER : BORDER + images.shape[-2], BORDER : BORDER + images.shape[-1]]
            results.append(content + strength * (inner - content))
    return torch.cat(results)


def inputs(
    images: torch.Tensor,
    style: Statistics,
    seeds: Sequence[int],
    noise_channels: tuple[int, int, int],
    border: int = 0,
) -> dict[str, torch.Tensor]:
    """What :class:`Stylizer` takes, from images, styles and seeds.

    Height H and width W include ``border`` pixels on every side, and what it takes to the next multiple of STRIDE at
    the bottom and the right.

    Returns:
        ``content`` and ``mapped`` (the content in the style's colours) ``[N,3,H,W]``; ``code`` ``[N,84]``;
        ``texture_f`` ``[N,3,H/f,W/f]`` for f = 1, 2, 4: Gaussian textures with the style's patch covariance at
        reduction f; ``noise_f`` ``[N,k,H/f,W/f]`` for f = 2, 4, 8: white noise. All float32.
    """
    bottom, right = (border + -(side + 2 * border) % STRIDE for side in images.shape[-2:])
    mode = "reflect" if min(images.shape[-2:]) > border + STRIDE else "replicate"
    both = (images, _colour_mapped(images, style))
    padded, mapped = (F.pad(x, (border, right, border, bottom), mode=mode) for x in both)
    height, width = padded.shape[-2:]
    given = {"content": padded, "mapped": mapped, "code": style_code(style)}
    draws = [generator(seed, "network", "noise") for seed in seeds]

    def noise(channels: int, *size: int) -> torch.Tensor:
        drawn = [torch.from_numpy(draw.standard_normal((channels, *size), dtype="float32")) for draw in draws]
        return torch.stack(drawn).to(images.device)

    for factor in (1, 2, 4):
        white = noise(3, height // factor + PATCH - 1, width // factor + PATCH - 1)
        given[f"texture_{factor}"] = _textured(white, style[f"covariance/{factor}"])
    for factor, channels in zip((2, 4, 8), noise_channels, strict=True):
        given[f"noise_{factor}"] = noise(channels, height // factor, width // factor)
    return given


def style_code(style: Statistics) -> torch.Tensor:
    """The style as ``float32 [N,84]``: log variances in a 3×3 cosine × opponent-colour basis, and mean colour."""
    basis = _basis().to(style["mean/1"].device)
    logs = []
    for factor in LEVELS:
        variances = torch.einsum("ij,njk,ik->ni", basis, style[f"covariance/{factor}"], basis)
        logs.append(variances.clamp_min(0).add(1e-6).log10() + 3)
    mean = style["mean/1"].view(-1, 3, PATCH * PATCH).mean(-1)
    return torch.cat([*logs, 4 * (mean - 0.5)], 1).float()


def _basis() -> torch.Tensor:
    index = torch.arange(3, dtype=torch.float64)
    cosines = torch.cos(math.pi * (index + 0.5) * index[:, None] / 3)
    cosines = cosines / cosines.norm(dim=1, keepdim=True)
    opponents = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    opponents = opponents / opponents.norm(dim=1, keepdim=True)
    return torch.einsum("ab,cd,ef->acebdf", opponents, cosines, cosines).reshape(27, 27)


def _colour_mapped(images: torch.Tensor, style: Statistics) -> torch.Tensor:
    """The map of :mod:`.colour`, to the colours of the style's patch centres."""
    own = colour_statistics(images)
    centres = [PATCH * PATCH * channel + PATCH * PATCH // 2 for channel in range(3)]
    linear = transport(own["covariance"], style["covariance/1"][:, centres][:, :, centres]).linear
    shift = style["mean/1"][:, centres] - (linear @ own["mean"][..., None])[..., 0]
    return (linear.float() @ images.flatten(2) + shift.float()[..., None]).view_as(images)


def _textured(white: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """White noise through the middle rows of the covariance's square root, as in :mod:`.texture`."""
    roots = square_root(covariance).view(-1, 3, PATCH, PATCH, 3, PATCH, PATCH)[:, :, PATCH // 2, PATCH // 2]
    return torch.cat([convolved(w[None], f) for w, f in zip(white, roots.float(), strict=True)])


def _enlarged(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def save_network(path: Path, network: Stylizer, architecture: Mapping[str, int], header: Mapping[str, Any]) -> None:
    """Write weights and header as safetensors; ``header`` needs ``steps``, the training steps behind the weights."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    full = {**header, "version": VERSION, "architecture": dict(architecture), "sha256": _digest(tensors)}
    write_atomically(path, save(tensors, {FORMAT: json.dumps(full, sort_keys=True)}))


@lru_cache(maxsize=4)
def load(path: Path = SHIPPED) -> Stylizer:
    """The network of a file that training wrote; the same object when asked again.

    Returns:
        The network, in eval mode and frozen.

    Raises:
        InputError: missing, not safetensors, not a network, of another version, untrained or damaged.
    """
    header, tensors = read_network(path)
    with torch.random.fork_rng(devices=[]):  # building a network draws initial weights
        network = Stylizer(**header["architecture"])
    network.load_state_dict({**{name: getattr(network, name) for name in KNOWN}, **tensors})
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def read_network(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and weights of a network file, checked; raises as :func:`load`."""
    if not path.is_file():
        raise InputError(f"{path}: no such network. Train one with: stylize train PHOTOS PATTERNS {path}")
    try:
        with safe_open(path, "pt") as file:
            header = _checked_header(path, file.metadata() or {})
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if shapes not in _fitting(header["architecture"]):  # before anything is allocated
                raise _unfit(path, "its tensors do not fit the architecture in its header")
            tensors = {name: file.get_tensor(name) for name in shapes}
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unfit(path, f"not one ({type(error).__name__}: {error})") from error
    if header.get("sha256") != _digest(tensors) or not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise _unfit(path, "damaged: its weights are not those that were saved")
    return header, tensors


def _checked_header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(metadata[FORMAT])
    version, steps, architecture = header["version"], header["steps"], header["architecture"]
    if version != VERSION:
        raise _unfit(path, f"of version {version}, while this program reads version {VERSION}")
    if not isinstance(steps, int) or steps < 1:
        raise _unfit(path, f"untrained ({steps} steps)")
    named = sorted(architecture) == sorted(ARCHITECTURE)
    if not named or not all(isinstance(size, int) and 1 <= size <= MAXIMUM for size in architecture.values()):
        raise _unfit(path, f"of an unknown architecture {architecture}")
    return header


def _fitting(architecture: Mapping[str, int]) -> tuple[dict[str, tuple[int, ...]], ...]:
    """The shapes of a network's tensors, and those of one that says nothing of the styles that it knows."""
    with torch.device("meta"):
        network = Stylizer(**architecture)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return shapes, {name: shape for name, shape in shapes.items() if name not in KNOWN}


def _unfit(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: no usable network: {reason}. Expected the output of: stylize train PHOTOS PATTERNS {path.name}"
    )


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""The network of the style method ``network`` as ONNX, for serving.

The graph is the network itself. What stands before it in closed form (colour map, textures, noise, style code) needs
eigenvalues in float64, which ONNX lacks: :func:`stylize.styles.methods.network.inputs` makes these tensors, or a server
that keeps them per style. After it come the mix with the content by strength and
:func:`stylize.styles.gamut.soft_gamut`.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import torch

from metrics.errors import InputError
from metrics.files import write_atomically

from ..styles.methods.network import SHIPPED, STRIDE, inputs, load
from ..styles.methods.patches import learn

OPSET = 18
REQUIRED = ("onnx", "onnxscript")
EXAMPLE = 64  # side of the image that the exporter traces


def export_onnx(out: str | Path, network: str | Path = SHIPPED) -> None:
    """Write the network in ONNX opset 18; batch, height and width are dynamic, the latter multiples of 8.

    Inputs ``content``, ``mapped``, ``code``, ``texture_1``, ``texture_2``, ``texture_4``, ``noise_2``, ``noise_4``,
    ``noise_8`` as :func:`stylize.styles.methods.network.inputs` gives them; output ``result`` ``float32 [N,3,H,W]``.

    Args:
        out: file to write, ``*.onnx``.
        network: what ``stylize train`` wrote; by default the network that comes with this package.

    Raises:
        InputError: the packages ``onnx`` and ``onnxscript`` are missing, another suffix, or no usable network.
    """
    out = Path(out)
    missing = [package for package in REQUIRED if find_spec(package) is None]
    if missing:
        raise InputError(f"export to ONNX needs {' and '.join(missing)}. Run: pip install {' '.join(missing)}")
    if out.suffix != ".onnx":
        raise InputError(f"{out}: expected a file name ending in .onnx, e.g. {out.with_suffix('.onnx')}.")
    painter = load(Path(network))
    image = torch.linspace(0, 1, 2 * 3 * EXAMPLE * EXAMPLE).view(2, 3, EXAMPLE, EXAMPLE)
    example = inputs(image, learn(image), [0, 1], painter.noise_channels)
    with warnings.catch_warnings():  # the exporter's, about its own parts
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            painter,
            kwargs=example,
            dynamo=True,
            input_names=list(example),
            output_names=["result"],
            opset_version=OPSET,
            dynamic_shapes=_dynamic(example),
            verbose=False,
        )
    assert program is not None
    write_atomically(out, program.model_proto.SerializeToString())


def _dynamic(example: dict[str, torch.Tensor]) -> dict[str, dict[int, object]]:
    """Free axes of every input: the batch, and height and width in units of STRIDE."""
    batch, rows, columns = (torch.export.Dim(name, min=1, max=4096) for name in ("batch", "rows", "columns"))
    shapes: dict[str, dict[int, object]] = {}
    for name, tensor in example.items():
        shapes[name] = {0: batch}
        if tensor.ndim == 4:
            units = STRIDE * tensor.shape[-1] // EXAMPLE
            shapes[name] |= {2: units * rows if units > 1 else rows, 3: units * columns if units > 1 else columns}
    return shapes

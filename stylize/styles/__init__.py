"""Real statistics: learn them from photos, transfer them onto images. One method per file.

A method is a module with ``learn(float32 [N,3,H,W]) -> {name: [N, ...]}`` and
``transfer(float32 [N,3,H,W], {name: [N, ...]}, strength) -> float32 [N,3,H,W]``.
"""

METHODS = {
    "colour": "Monge-Kantorovich map of the colour distribution: fastest, touches no texture",
    "patches": "affine optimal transport of 3x3 patches at three scales: colour and texture",
}
DEFAULT_METHOD = "patches"

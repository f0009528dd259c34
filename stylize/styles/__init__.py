"""Real statistics: learn them from photos, transfer them onto images. One method per file.

Methods compose: ``colour+texture`` gives an image the colours first and then the texture of its style. A method is a
module with ``transfer(float32 [N,3,H,W], {name: [N, ...]}, strength, seeds) -> float32 [N,3,H,W]`` and ``STATISTICS``,
the name of the module (often its own) whose ``learn(float32 [N,3,H,W]) -> {name: [N, ...]}`` it needs.
"""

METHODS = {
    "colour": "Monge-Kantorovich map of the colour distribution: fastest, touches no texture",
    "patches": "affine optimal transport of 3x3 patches at three scales: stretches what is there",
    "texture": "patches, and a synthesised Gaussian texture where the content has no detail to stretch",
}
DEFAULT_METHOD = "texture"
LEARNT = ("colour", "patches", "texture")  # the methods whose statistics `stylize learn` takes unless told otherwise
ASSIGNMENTS = ("balanced", "random")
TUNED = ("colour", "patches", "texture")  # the methods that `stylize tune` combines unless told otherwise

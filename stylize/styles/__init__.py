"""Real statistics: learn them from photos, transfer them onto images. One method per file.

Methods compose: ``colour+texture`` gives an image the colours first and then the texture of its style. A method is a
module with ``transfer(float32 [N,3,H,W], {name: [N, ...]}, strength, seeds) -> float32 [N,3,H,W]`` and ``STATISTICS``,
the name of the module (often its own) whose ``learn(float32 [N,3,H,W]) -> {name: [N, ...]}`` it needs. Methods in
LEVELLED work on several scales; ``texture:1`` lets the finest alone take part, which leaves large shapes as they are.
"""

METHODS = {
    "colour": "Monge-Kantorovich map of the colour distribution: fastest, touches no texture",
    "histogram": "histogram matching of each channel: the baseline users know",
    "fda": "Fourier domain adaptation: low-frequency amplitudes of the style (baseline)",
    "patches": "affine optimal transport of 3x3 patches at three scales: stretches what is there",
    "texture": "patches, and a synthesised Gaussian texture where the content has no detail to stretch",
    "gmm": "optimal transport between Gaussian mixtures of patches: flat, edge and textured patches apart",
    "sliced": "sliced optimal transport of patches: their distribution along many directions",
    "spectrum": "cross-channel spectrum of the style, noise where the content has no power, phases kept",
    "pyramid": "steerable-pyramid marginals (Heeger-Bergen), noise where the bands are empty",
    "regions": "regions of the content filled with texture synthesised from the photo's statistics",
    "network": "a small network, trained once, that paints a content in a style in one pass",
    "gatys": "optimisation of pixels to an encoder's feature statistics: about a second per image",
    "nnst": "optimisation of pixels to nearest style features, recombined: about two seconds per image",
    "crops": "regions filled with the photo's own pixels: COPIES BY DESIGN, the bar to reach without copying",
}
DEFAULT_METHOD = "texture"
LEARNT = ("colour", "patches", "texture")  # the methods whose statistics `stylize learn` takes unless told otherwise
SLOW = ("gatys", "nnst")  # seconds per image
COPYING = ("crops",)  # their output and their style files hold pixels of the photos
LEVELLED, LEVELS = ("patches", "texture", "gmm", "sliced"), 3  # methods of that many scales
ASSIGNMENTS = ("balanced", "random")
TUNED = tuple(name for name in METHODS if name not in (*SLOW, *COPYING, "histogram", "fda"))
# Method and strength, chosen on the tune photos. fast keeps 95 % of the label probe; strong closes most and keeps
# least of the structure. The network does so for the photos that it was trained on.
PRESETS = {"fast": ("texture", 0.75), "balanced": ("network", 0.7), "strong": ("network", 1.0)}
DEFAULT_PRESET = "fast"


def chosen(method: str | None, strength: float | None) -> tuple[str, float]:
    """Method and strength when either may be left open: neither given is the default preset, else the strength is 1."""
    if method is None and strength is None:
        return PRESETS[DEFAULT_PRESET]
    return method or DEFAULT_METHOD, 1.0 if strength is None else strength

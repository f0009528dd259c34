"""Real statistics: learn them from photos, transfer them onto images; what to use unless told otherwise.

Methods compose: ``colour+texture`` gives an image the colours first and then the texture of its style. Methods with
levels work on several scales; ``texture:1`` lets the finest alone take part, which leaves large shapes as they are.
"""

from .methods import METHODS

DEFAULT_METHOD = "texture"
LEARNT = ("colour", "patches", "texture")  # the methods whose statistics `stylize learn` takes unless told otherwise
ASSIGNMENTS = ("balanced", "random")
TUNED = tuple(name for name, one in METHODS.items() if not (one.slow or one.copies or one.baseline))
# Method and strength, chosen on the tune photos. fast keeps 95 % of the label probe; strong closes most and keeps
# least of the structure. The network does so for the photos that it was trained on.
PRESETS = {"fast": ("texture", 0.75), "balanced": ("network", 0.7), "strong": ("network", 1.0)}
DEFAULT_PRESET = "fast"


def chosen(method: str | None, strength: float | None) -> tuple[str, float]:
    """Method and strength when either may be left open: neither given is the default preset, else the strength is 1."""
    if method is None and strength is None:
        return PRESETS[DEFAULT_PRESET]
    return method or DEFAULT_METHOD, 1.0 if strength is None else strength

"""Files that come along with the package: in a wheel they lie inside it, in a clone where they are made."""

from __future__ import annotations

from pathlib import Path

from metrics.errors import InputError

PACKAGE = Path(__file__).parent
CLONE = {"photos": "assets/photos", "tiny-diffusion": "assets/tiny-diffusion", "recipes": "examples/recipes"}


def shipped(name: str) -> Path:
    """The folder of ``photos``, ``tiny-diffusion`` or ``recipes``, wherever the command runs.

    Returns:
        A folder that exists.

    Raises:
        InputError: the installation is incomplete.
    """
    places = (PACKAGE / name, PACKAGE.parent / CLONE[name])
    for folder in places:
        if folder.is_dir():
            return folder
    raise InputError(f"the {name} that come along are neither in {places[0]} nor in {places[1]}. Install again.")

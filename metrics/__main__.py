"""``python -m metrics``: the command ``domain-gap``."""

from .commands.main import main

main()

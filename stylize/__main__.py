"""``python -m stylize``: the command ``stylize``."""

from .commands.main import main

main()

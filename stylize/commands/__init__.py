"""The ``stylize`` command: parse, call, talk; no maths."""

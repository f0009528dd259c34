"""The ``domain-gap`` command: parse, call, talk; no maths."""

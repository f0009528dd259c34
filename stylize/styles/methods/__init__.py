"""Style methods, one per file: ``learn`` statistics, ``transfer`` them."""

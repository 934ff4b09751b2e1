"""Bundles: a kohya LoRA file with its embeddings inside. Read, list, write, and work on them.

`format` is the specification, `reader`, `listing` and `writer` the way in and out, `edits` what users do to files.
"""

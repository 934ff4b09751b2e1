"""Bundles: a kohya LoRA file with its words inside. Read, list, write, and work on them."""

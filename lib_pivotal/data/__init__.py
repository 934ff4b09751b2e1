"""From a folder of pictures to batches of latents and captions.

dataset.py (what is there; folders.py, records.py) · pictures.py (opening) · captions.py, tags.py (text) · buckets.py
(sizes) · masks.py · latents.py, latent_files.py (the cache) · sampler.py (who comes when) · batches.py (what the
training step gets).
"""

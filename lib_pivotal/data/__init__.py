"""From a folder of pictures to batches of latents and captions.

dataset.py (what is there; folders.py, records.py) · pictures.py (opening) · captions.py, tags.py (text) · buckets.py
(sizes) · views.py, focus.py (cuts), asymmetry.py (mirroring) · masks.py, mask_files.py · frames.py (a picture as it is
trained) · latents.py, latent_files.py (the cache) · sampler.py (who comes when) · batches.py (what the training step
gets) · mixing.py (several sets).
"""

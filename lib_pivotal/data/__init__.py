"""From a folder of pictures to batches of latents and captions.

dataset.py (what is there; folders.py, records.py) · pictures.py, png_files.py (opening) · looks.py, scan_cache.py (many
at once, and again) · doubles.py, fingerprints.py (which look the same) · captions.py, tags.py (text) · buckets.py
(sizes) · views.py, focus.py (cuts), asymmetry.py (mirroring) · masks.py, mask_files.py · frames.py (a picture as it is
trained) · latents.py, latent_files.py (the cache) · sampler.py (who comes when) · batches.py (what the training step
gets) · mixing.py (several sets).
"""

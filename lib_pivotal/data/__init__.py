"""From a folder of pictures to batches of latents and captions.

dataset.py (what is there; folders.py, records.py) · pictures.py, png_files.py (opening) · image_probes.py,
scan_cache.py, fingerprints.py (many at once, again, alike) · captions.py (a caption's text), captioning.py (which one a
picture has), caption_files.py (changing them), caption_chain.py (as trained) · tags.py, pruning.py, tokens.py ·
lint_warnings.py, lint.py (what may disappoint) · buckets.py (sizes) · crops.py · masks.py · preprocessing.py (a picture
as it is trained) · latents.py (the cache) · balance.py, sampler.py (who comes when) · batches.py (what the training
step gets) · mixing.py (several sets).
"""

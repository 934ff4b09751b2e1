"""Datasets as other tools lay them out: which pictures there are, how often each counts, and what its caption is.

`layout` finds out what a folder or file is and reads it into `source.Reading`; `dataset.scan` looks at the pictures.
"""

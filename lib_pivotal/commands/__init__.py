"""The verbs, once: what page, API and command line do, with one rule each for names, folders and overwriting.

A request goes in, an answer comes out; what cannot be done is a `PivotalError` whose sentence every front shows.
"""

"""An extension for tests: routes that look into the running web UI, and tricks that other extensions play.

`tests/live/conftest.py` puts this file into the scripts folder of an extension; it is not imported by tests.
"""

import collections
import gc
import itertools
import sys
import time

from modules import extra_networks, processing, script_callbacks, scripts, sd_hijack, shared
from modules.textual_inversion import textual_inversion

TRICKS = {"te": None, "block_weight": False}
NUMBERS = itertools.count(1000)
"""Of pictures: four digits, so that each prompt has as many tokens."""


class Probe(scripts.Script):
    """Plays the tricks that TRICKS asks for."""

    def title(self):
        return "Probe"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def process_batch(self, p, *args, **kwargs):
        pass

    def before_process_batch(self, p, *args, **kwargs):
        p.tricks = dict(TRICKS)

    def postprocess(self, p, processed, *args):
        if TRICKS["block_weight"]:  # lora-block-weight's postprocess: a database of its own, filled from the bundles
            import networks

            database = textual_inversion.EmbeddingDatabase()
            for net in networks.loaded_networks:
                for embedding in net.bundle_embeddings.values():
                    if embedding.loaded:
                        database.register_embedding(embedding)
            sd_hijack.model_hijack.embedding_db.ids_lookup.update(database.ids_lookup)


def edited_activate(original):
    """As an extension would that edits a tag's positional arguments and not its items."""

    def activate(p, data):
        for param in data.get("lora", ()):
            if TRICKS["te"] is not None and len(param.positional) > 1:
                param.positional[1] = str(TRICKS["te"])
                param.positional[2:] = ["1"]
        return original(p, data)

    return activate


def median_ms(function, times=100):
    took = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        took.append(time.perf_counter() - start)
    return sorted(took)[len(took) // 2] * 1000


def picture(number):
    """One without any LoRA; each number's prompt is new: a cached conditioning would favour one side."""
    p = processing.StableDiffusionProcessingTxt2Img(
        sd_model=shared.sd_model, prompt=f"a face {number}", width=64, height=64, steps=12, cfg_scale=4, seed=1
    )
    p.sampler_name, p.do_not_save_samples, p.do_not_save_grid = "Euler", True, True
    processing.process_images(p)


def seconds(function):
    """What this thread computes for it: requests that come meanwhile, and a busy machine's other work, do not count."""
    start = time.thread_time()
    function()
    return time.thread_time() - start


def calls_of(function):
    """How many functions are called, all the way down, in this thread."""
    counted = collections.Counter()

    def count(frame, event, argument):
        counted[event] += 1

    gc.disable()  # finalizers would be counted where they happen to run
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return counted["call"] + counted["c_call"]


def measured(pairs, measure):
    """`measure(number)` in turns with our patches and without, after one turn that counts for nothing."""
    from modules import call_queue

    from lib_pivotal.webui import cond_cache_patch, resolution_patch

    found = {True: [], False: []}
    with call_queue.queue_lock:
        try:
            for pair in range(pairs + 1):
                # now the one first, now the other: what drifts favours neither
                for patched in (True, False) if pair % 2 else (False, True):
                    for part in (resolution_patch, cond_cache_patch):
                        (part.register if patched else part.unregister)()
                    value = measure(next(NUMBERS))
                    if pair:
                        found[patched].append(value)
        finally:
            for part in (resolution_patch, cond_cache_patch):
                part.register()
    return found


def add_routes(_, app):
    @app.get("/probe/trick/{name}/{value}")
    def trick(name: str, value: str):
        TRICKS[name] = {"none": None, "yes": True, "no": False}.get(value, value)
        return TRICKS

    @app.get("/probe/resolve")
    def resolve():
        from lib_pivotal.webui import resolution_patch

        def anew():
            resolution_patch.resolver.built = None
            resolution_patch.resolve()

        with resolution_patch.resolver.generating():  # of the networks that the last picture left loaded
            names = len(resolution_patch.resolve().matcher)
            return {"names": names, "first_ms": median_ms(anew), "ms": median_ms(resolution_patch.resolve)}

    @app.get("/probe/kept")
    def kept(most_bytes: int = 0):
        """What outlives the last picture: words of files, facts of conditionings, names. `most_bytes` sets a bound."""
        import gc

        from lib_pivotal.webui import cond_cache_patch, resolution_patch

        files = resolution_patch.resolver.files
        if most_bytes:
            files.most_bytes = most_bytes
        gc.collect()
        tensors = [tower for read in files.values() for embedding in read.embeddings.values() for tower in embedding]
        return {
            "files": len(files),
            "bytes": files.held_bytes,
            "tensor_bytes": sum(tower.untyped_storage().nbytes() for tower in tensors),
            "kinds": sorted({f"{tower.device.type} {tower.dtype}" for tower in tensors}),
            "facts": len(cond_cache_patch._memory.facts),
            "embeddings": sum(isinstance(one, textual_inversion.Embedding) for one in gc.get_objects()),
        }

    @app.get("/probe/tokenize")
    def tokenize(text: str):
        """By every text encoder: SDXL's conditioner holds two, and others that read no text."""
        clip = sd_hijack.model_hijack.clip
        encoders = [one for one in getattr(clip, "embedders", [clip]) if hasattr(one, "tokenize_line")]

        def tokenize():
            return [one.tokenize_line(text) for one in encoders]

        resolution_patch = sys.modules.get("lib_pivotal.webui.resolution_patch")
        if resolution_patch is None:
            return {"ms": median_ms(tokenize), "encoders": len(encoders)}
        with resolution_patch.resolver.generating():
            resolution_patch.resolve()
            return {"ms": median_ms(tokenize), "encoders": len(encoders)}

    @app.get("/probe/overhead")
    def overhead(pairs: int):
        """Pictures without any LoRA in turns: `[with our patches, without]`, this thread's seconds."""
        found = measured(pairs, lambda number: seconds(lambda: picture(number)))
        return [[found[True][number], found[False][number]] for number in range(pairs)]

    @app.get("/probe/calls")
    def calls():
        """Calls of Python's and C's functions for a picture without any LoRA: the least of three, and their spread."""
        found = measured(3, lambda number: calls_of(lambda: picture(number)))
        named = {"with": found[True], "without": found[False]}
        return {key: {"least": min(counts), "spread": max(counts) - min(counts)} for key, counts in named.items()}

    @app.get("/probe/patched")
    def patched():
        networks = sys.modules["networks"]
        places = (
            (networks, "load_network"),
            (networks, "load_networks"),
            (extra_networks, "activate"),
            (textual_inversion.EmbeddingDatabase, "find_embedding_at_position"),
        )
        return {name: hasattr(getattr(owner, name), "__wrapped__") for owner, name in places}

    @app.get("/probe/unregister")
    def unregister():
        from lib_pivotal.webui import hooks

        hooks.unregister()
        return {"ok": True, "model": shared.sd_model is not None}

    @app.get("/probe/register")
    def register():
        """What `hooks.register` puts in place; its callbacks are still there."""
        from lib_pivotal.webui import cards, cond_cache_patch, resolution_patch, token_counter_patch

        for part in (resolution_patch, cond_cache_patch, cards, token_counter_patch):
            part.register()
        return {"ok": True}


def before_ui():
    extra_networks.activate = edited_activate(extra_networks.activate)


script_callbacks.on_app_started(add_routes)
script_callbacks.on_before_ui(before_ui)

"""Pictures before the first step: who is mirrored, what is told of cuts, where latents go."""

from __future__ import annotations

import random

from lib_pivotal.config import run_from_dict
from lib_pivotal.training.assemble import make_buckets, mirrored, picture_remarks
from lib_pivotal.training.build import make_latents, spill_folder
from lib_pivotal.training.events import Notice, RunEnded
from lib_pivotal.training.prepare import prepare_pictures
from lib_pivotal.training.scanning import PictureParts
from tests.conftest import write_pictures
from tests.training.runs import compiled, train


def _run(folder, *, embeddings=None, data=None, memory=None, **rest):
    return run_from_dict(
        {
            "name": "p",
            "words": embeddings or [{"name": "aoi"}, {"name": "hana"}],
            "network": {"unet_rank": 1},
            "data": {"folder": str(folder), "resolution_px": 64, **(data or {})},
            "schedule": {"max_steps": 2, "batch_size": 2},
            "memory": memory or {},
            "saving": {"state_every_steps": 0, "dtype": "fp32"},
            **rest,
        }
    )


def test_embeddings_may_refuse_the_mirror(two_embeddings_folder, tiny_host):
    off = _run(two_embeddings_folder)
    prepared = prepare_pictures(off)
    assert mirrored(PictureParts(off.data), off.embeddings, prepared.pictures) == frozenset()
    on = _run(two_embeddings_folder, data={"flip": True})
    assert len(mirrored(PictureParts(on.data), on.embeddings, prepared.pictures)) == 6
    some = _run(
        two_embeddings_folder, data={"flip": True}, embeddings=[{"name": "aoi", "mirror": False}, {"name": "hana"}]
    )
    assert mirrored(PictureParts(some.data), some.embeddings, prepared.pictures) == {f"hana_{n}.png" for n in (1, 2, 3)}
    cache, problems = make_latents(compiled(some).latents, tiny_host)
    assert problems == [] and cache.encoded == 9
    assert [cache.flips(picture.key) for picture in cache.pictures] == [False] * 3 + [True] * 3


def test_the_mirror_is_warned_of(tmp_path):
    folder = write_pictures(tmp_path / "p", {"aoi_1": "aoi, eyepatch", "hana_1": "hana, hat", "hana_2": "hana, text"})

    def remarks(embeddings, flip=True):
        run = _run(folder, embeddings=embeddings, data={"flip": flip})
        parts, buckets = PictureParts(run.data), make_buckets(run.data)
        return [problem.message for problem in picture_remarks(run, prepare_pictures(run), parts, buckets)]

    both = [{"name": "aoi", "prune": True}, {"name": "hana"}]  # what is absorbed counts, too
    assert [text.split(":")[0] for text in remarks(both)] == ["aoi", "hana"]
    assert remarks(both, flip=False) == []
    assert remarks([{"name": "aoi", "mirror": False}, {"name": "hana", "mirror": False}]) == []


def test_cuts_are_told_before_the_run(tmp_path, tiny_host):
    folder = write_pictures(tmp_path / "p", {"aoi_1": "aoi, hat", "aoi_2": "aoi, coat"}, size_px=48)
    from PIL import Image

    Image.new("RGB", (640, 64), "red").save(folder / "strip.png")
    (folder / "strip.txt").write_text("aoi, strip", encoding="utf-8")
    run = _run(folder, embeddings=[{"name": "aoi"}], data={"resolution_px": 128, "bucket_step_px": 32})
    events = []
    ended = train(run, tiny_host, output_folder=tmp_path / "out", listener=events.append)
    assert ended.reason == "finished" and isinstance(events[-1], RunEnded)
    told = [event.message for event in events if isinstance(event, Notice) and " in 2 sizes" in event.message]
    assert told == [
        "3 pictures in 2 sizes; 2 are enlarged; 1 is shown in full with a border: cutting would take too much."
    ]


def test_latents_beyond_the_memory_are_on_disk_until_the_end(tmp_path, tiny_host):
    from PIL import Image

    folder = tmp_path / "p"
    folder.mkdir()
    for number in range(9):
        Image.new("RGB", (512, 512), (20 * number, 99, 30)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("aoi, hat", encoding="utf-8")
    embeddings = [{"name": "aoi"}]
    data = {"resolution_px": 512}
    out = tmp_path / "out"
    spill = spill_folder(out, "p")
    seen = []

    def listen(event):
        seen.append(len(list(spill.rglob("*.safetensors"))))

    run = _run(
        folder, embeddings=embeddings, data=data, memory={"latents_mb": 1}, schedule={"max_steps": 1, "batch_size": 1}
    )
    ended = train(run, tiny_host, output_folder=out, listener=listen)
    assert ended.reason == "finished" and max(seen) == 9 and not spill.exists()


def test_boxes_steer_the_cut(tmp_path, tiny_host):
    from PIL import Image

    folder = tmp_path / "p"
    folder.mkdir()
    Image.new("RGB", (192, 64), "red").save(folder / "a.png")
    (folder / "a.txt").write_text("aoi, hat", encoding="utf-8")
    (folder / "a.json").write_text('{"face": [150, 10, 190, 50]}', encoding="utf-8")
    run = _run(folder, embeddings=[{"name": "aoi"}], data={"crop": "face", "bucketing": False})
    cache, problems = make_latents(compiled(run).latents, tiny_host)
    assert problems == [] and cache.placement("a.png").left_px == 128


def test_class_pictures_that_say_nothing_show_the_class(two_embeddings_folder, tmp_path):
    folder = write_pictures(tmp_path / "class", {"a": "1girl, hat", "b": "", "c_02": ""})
    for name in ("b", "c_02"):
        (folder / f"{name}.txt").unlink()

    def captions(**settings):
        run = _run(two_embeddings_folder, regularisation={"folder": str(folder), **settings})
        prepared = prepare_pictures(run)
        assert not [problem for problem in prepared.remarks if problem.code == "no_caption"]
        return [picture.caption for picture in prepared.regularisation]

    assert captions(class_text="1girl") == ["1girl, hat", "1girl", "1girl"]
    assert captions() == ["1girl, hat", "b", "c 02"]


def test_core_tags_are_whole_where_that_is_asked(tmp_path):
    """Four vectors would cut `very long hair` in the middle; whole tags bring the vectors that they take."""
    captions = {f"aoi_{n}": "aoi, red eyes, very long hair, cat ears" for n in range(8)}
    folder = write_pictures(tmp_path / "pictures", captions)
    embeddings = [{"name": "aoi", "prune": True, "vectors": 2}]
    cut, whole, fewer = (
        prepare_pictures(_run(folder, embeddings=embeddings, embeddings_common=common, data=data)).embeddings[0]
        for common, data in (({}, {}), ({"whole_tags": True}, {}), ({"whole_tags": True}, {"most_vectors": 7}))
    )
    assert (cut.vectors, cut.init_text) == (2, "cat ears, red eyes, very long hair, *[0.1,2]")
    assert (whole.vectors, whole.init_text) == (11, "cat ears, red eyes, very long hair, *[0.1,4]")
    assert (fewer.vectors, fewer.init_text) == (6, "cat ears, *[0.1,4]")


def test_a_bare_name_of_a_run_has_the_class_of_its_embedding(two_embeddings_folder):
    embeddings = [{"name": "aoi", "class_text": "1girl"}, {"name": "hana", "init_text": "blue hair"}]
    run = _run(two_embeddings_folder, embeddings=embeddings, data={"bare_caption": 1.0, "bare_caption_class": True})
    chain = compiled(run).batches.captions.chain()
    drawn = {chain.draw(picture, rng=random.Random(0)) for picture in prepare_pictures(run).pictures}
    assert drawn == {"aoi, 1girl", "hana"}
    texts = compiled(_run(two_embeddings_folder, embeddings=embeddings)).sides.texts
    assert texts == {"aoi": "1girl", "hana": "blue hair"}

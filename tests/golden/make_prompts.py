"""Makes `prompts.json` and `prompts.safetensors`: what the web UI v1.10.1's own files make of prompts.

Runs `prompt_parser.py`, `sd_hijack_clip.py`, `sd_emphasis.py` whole, and `EmbeddingDatabase`'s lookup and
`EmbeddingsWithFixes` cut out of their files, of a checkout at commit 82a973c0, with stubs for `modules.shared` and
`modules.devices` only. Needs lark, ftfy, torch, transformers, i.e. the web UI's own environment:

    PYTHONPATH=. <web UI>/venv/bin/python tests/golden/make_prompts.py <web UI>
"""

import ast
import importlib.util
import json
import sys
import tempfile
import types
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from lib_pivotal.standalone.tokenizer import write_tokenizer
from tests.golden.tiny_text import tiny_embeddings, tiny_text_model

HERE = Path(__file__).parent
EMBEDDINGS = {"aoi": 4, "mika-chan": 2, "blue": 3, "aoi-san": 5, "bigword": 75, "halfword": 40, "ren": 8}

TAGS = "1girl, solo, long hair, blue eyes, smile, open mouth, school uniform, outdoors, sky, tree, day, standing, "
PROMPTS = [
    "",
    " ",
    "a photo of a cat",
    "aoi",
    "AOI, Aoi; aOi.",
    "a (very:1.3) nice (cat), [dog], ((bird)), [[fish]], (a [b] c:0.5)",
    "(unclosed (twice, [mixed",
    "closed) too] often:1.2)",
    r"literal \(brackets\) and \[these\] and \\ back\slash",
    "weight(:1.5) (x:-1) (y: 0.25 ) (z:.5)",
    "time 12:30 and a:b and (a:b:1.2)",
    "BREAK",
    "first BREAK second",
    "one BREAK BREAK two",
    "BREAKFAST and xBREAK are no BREAKs",
    "(inside BREAK emphasis:1.2) after",
    "(aoi:1.2), blue hair, blue",
    "aoi-san and aoi and mika-chan",
    "aoi-sanx xaoi aoi2 aoi_b",
    "aoi,mika-chan,ren",
    "(aoi), [mika-chan:0.5], (ren:0.9)",
    "bigword",
    "a bigword b",
    "bigword bigword",
    "halfword, halfword, tail",
    TAGS * 2,
    TAGS * 3,
    TAGS * 6,
    TAGS + "aoi, " + TAGS + "mika-chan, " + TAGS,
    "(" + TAGS + "aoi:1.1), " + TAGS + "BREAK " + TAGS + "blue",
    "word " * 74 + "aoi",
    "word " * 75,
    "word " * 76,
    "word " * 72 + "aoi tail",
    "word " * 60 + ", " + "more " * 12 + "aoi end",
    "word " * 50 + ", " + "more " * 30,
    "word " * 54 + ", " + "more " * 30,
    "word " * 55 + ", " + "more " * 30,
    "word " * 74 + ", next",
    "word " * 75 + ", next",
    "a, " * 60,
    "word " * 60 + ", aoi " + "more " * 12,
    "word " * 60 + ", one (aoi:1.3) two, (mika-chan) " + "more " * 20,
    "word " * 56 + ", ren, x aoi y " + "more " * 20,
    "word " * 60 + ", " + "more " * 10 + "BREAK aoi",
    "it's the cat's pyjamas; don't!? ... -- 1234 <lora:x:1>",
    "UPPER lower MiXeD",
    "caf\u00e9 na\u00efve \u521d\u97f3\u30df\u30af, \ufb01ne \uff46\uff55\uff4c\uff4c \u201cquotes\u201d",
    "\U0001f600 &amp; &lt;b&gt;",
    "<|endoftext|> and <|startoftext|> in text",
    "tab\tand\nnewline  and   spaces",
    ":, ;, (, ), [, ]",
    "((((deep:1.1):1.1):1.1):1.1) [[[[low]]]]",
]
ENCODED = [2, 3, 5, 15, 16, 17, 20, 22, 28, 29, 34, 42]


def load_webui(root: Path):
    """The web UI's own modules, with stubs for what touches the running program."""
    modules = types.ModuleType("modules")
    modules.__path__ = []
    opts = types.SimpleNamespace(
        emphasis="Original",
        comma_padding_backtrack=20,
        CLIP_stop_at_last_layers=1,
        use_old_emphasis_implementation=False,
        textual_inversion_add_hashes_to_infotext=False,
    )
    devices = types.ModuleType("modules.devices")
    devices.device = torch.device("cpu")
    devices.torch_npu_set_device = lambda: None
    devices.cond_cast_unet = lambda tensor: tensor
    shared = types.ModuleType("modules.shared")
    shared.opts = opts
    hijack = types.ModuleType("modules.sd_hijack")
    hijack.model_hijack = types.SimpleNamespace(fixes=None, extra_generation_params={})
    for name, module in {"devices": devices, "shared": shared, "sd_hijack": hijack}.items():
        setattr(modules, name, module)
        sys.modules[f"modules.{name}"] = module
    sys.modules["modules"] = modules
    for name in ("sd_emphasis", "prompt_parser", "sd_hijack_clip"):
        spec = importlib.util.spec_from_file_location(f"modules.{name}", root / "modules" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[f"modules.{name}"] = module
        setattr(modules, name, module)
        spec.loader.exec_module(module)
    cut = {"torch": torch, "devices": devices, "shared": shared}
    for file, wanted in (
        ("textual_inversion/textual_inversion.py", "EmbeddingDatabase"),
        ("sd_hijack.py", "EmbeddingsWithFixes"),
    ):
        tree = ast.parse((root / "modules" / file).read_text(encoding="utf-8"))
        body = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == wanted]
        exec(compile(ast.Module(body, []), file, "exec"), cut)
    return modules, opts, hijack.model_hijack, cut


def main(root: Path) -> None:
    modules, opts, hijack, cut = load_webui(root)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = CLIPTokenizer.from_pretrained(str(write_tokenizer(Path(folder))))
    assert hasattr(tokenizer, "fix_text") and tokenizer.fix_text is not None, "ftfy is missing"
    model = tiny_text_model()
    wrapped = types.SimpleNamespace(tokenizer=tokenizer, transformer=model)
    clip = modules.sd_hijack_clip.FrozenCLIPEmbedderWithCustomWords.__new__(
        modules.sd_hijack_clip.FrozenCLIPEmbedderWithCustomWords
    )
    torch.nn.Module.__init__(clip)
    object.__setattr__(clip, "wrapped_plain", wrapped)
    type(clip).wrapped = property(lambda self: self.__dict__["wrapped_plain"])
    clip.hijack = hijack
    clip.chunk_length = 75
    clip.return_pooled = False
    clip.tokenizer = tokenizer
    clip.comma_token = tokenizer.get_vocab()[",</w>"]
    clip.id_start, clip.id_end = tokenizer.bos_token_id, tokenizer.eos_token_id
    clip.id_pad = clip.id_end
    database = cut["EmbeddingDatabase"]()
    hijack.embedding_db = database
    vectors = tiny_embeddings(EMBEDDINGS)
    for name, count in EMBEDDINGS.items():
        embedding = types.SimpleNamespace(name=name, vec=vectors[name][0], vectors=count, shorthash=None)
        database.register_embedding(embedding, types.SimpleNamespace(cond_stage_model=clip))

    records = []
    for prompt in PROMPTS:
        chunks, count = clip.tokenize_line(prompt)
        records.append(
            {
                "prompt": prompt,
                "parsed": modules.prompt_parser.parse_prompt_attention(prompt),
                "token_count": count,
                "chunks": [
                    {
                        "tokens": chunk.tokens,
                        "multipliers": chunk.multipliers,
                        "words": [[fix.offset + 1, fix.embedding.name] for fix in chunk.fixes],
                    }
                    for chunk in chunks
                ],
            }
        )
    embeddings = model.text_model.embeddings
    embeddings.token_embedding = cut["EmbeddingsWithFixes"](embeddings.token_embedding, hijack)
    encoded = {}
    with torch.no_grad():
        for skip in (1, 2):
            opts.CLIP_stop_at_last_layers = skip
            for index in ENCODED:
                encoded[f"{index}.skip{skip}"] = clip.forward([PROMPTS[index]])[0].contiguous().clone()
    (HERE / "prompts.json").write_text(json.dumps({"words": EMBEDDINGS, "prompts": records}) + "\n", encoding="utf-8")
    save_file(encoded, str(HERE / "prompts.safetensors"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

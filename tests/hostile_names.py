"""Names that no file may have, each with a part of the sentence that says so: the same table for every door."""

from __future__ import annotations

HOSTILE: tuple[tuple[str, str], ...] = (
    ("my/lora", "'/'"),
    ("../../evil", "'/'"),
    ("/etc/evil", "'/'"),
    ("..\\evil", "'\\\\'"),
    ("C:evil", "':'"),
    ("a<b>c", "'<' '>'"),
    ("lora:1", "':'"),
    ('quo"te', "'\"'"),
    ("a|b", "'|'"),
    ("what?", "'?'"),
    ("all*", "'*'"),
    ("hash#1", "a comment"),
    ("one,two", "list of hashes"),
    ("te=0", "an argument"),
    ("a\nb", "U+000A"),
    ("a\tb", "U+0009"),
    ("a\x00b", "U+0000"),
    ("a\x7fb", "U+007F"),
    ("a\u202egpj", "U+202E"),
    ("a\u200bb", "U+200B"),
    ("a\u2028b", "U+2028"),
    ("a\u00a0b", "U+00A0"),
    ("a\ud800b", "U+D800"),
    (".hidden", "a dot or a blank"),
    ("ends.", "a dot or a blank"),
    (" begins", "a dot or a blank"),
    ("ends ", "a dot or a blank"),
    (".", "a dot or a blank"),
    ("..", "a dot or a blank"),
    ("CON", "a device"),
    ("nul", "a device"),
    ("com1.v2", "a device"),
    ("LPT\u00b9", "a device"),
    ("pivotal-live", "while it trains"),
    ("Pivotal-Live", "while it trains"),
    ("n" * 300, "300 bytes"),
    ("\u3042" * 67, "201 bytes"),
)
EMPTY = ("", " ", "\t")
GOOD = (
    *("gekidol", "My LoRA v1.5", "a-b_c+d (2)", "n" * 200, "\u3042\u3044\u3046", "na\u00efve", "x.safetensors"),
    *("con-v1", "console", "[x]", "{x}", "it's", "a  b", "-x", "~x", "$x", "100%", "None", "a@b", "a&b", "a;b", "x!"),
)

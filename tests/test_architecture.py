"""The house rules, read from every import statement, those inside functions too."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lib_pivotal"
MODULES = sorted(PACKAGE.rglob("*.py"))
CORE = ("training", "embeddings", "networks", "bundle", "data", "evaluation", "importing")
ALLOWED_IN_CORE = {"torch", "numpy", "PIL", "safetensors", "lib_pivotal"}
OPTIONAL_IN_CORE = {"transformers", "bitsandbytes", "prodigyopt", "schedulefree", "tensorboard", "yaml", "omegaconf"}
"""Only ever reached by `importlib` with a clear sentence where they are missing."""


def room(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else "core"


def imported(path):
    """Absolute names of everything that a file imports."""
    names = []
    package = ("lib_pivotal", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            names += [module, *(f"{module}.{alias.name}" for alias in node.names if module.startswith("lib_pivotal"))]
    return names


def is_core(path):
    return room(path) in (*CORE, "core") and path.name != "__main__.py"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    import sys

    where = room(path)
    for name in imported(path):
        top, *rest = name.split(".")
        target = rest[0] if top == "lib_pivotal" and rest else ""
        assert top != "modules" or where == "webui", f"{name}: the web UI is imported only in webui/"
        assert top != "gradio" or where == "ui", f"{name}: gradio is imported only in ui/"
        assert top != "diffusers" or where == "standalone", f"{name}: diffusers is imported only in standalone/"
        assert not (where == "webui" and target == "standalone"), name
        assert not (where == "standalone" and target == "webui"), name
        if where == "ui":
            assert target not in ("webui", "standalone"), name
        if is_core(path):
            assert target not in ("ui", "webui", "standalone"), f"{name}: the core knows no host and no page"
            assert top in ALLOWED_IN_CORE or top in sys.stdlib_module_names, f"{name}: not among the core's packages"


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_data_knows_no_other_trainer(path):
    """Other tools' dataset files are handed to a scan as `DatasetFile`s; what reads them stands in `importing`."""
    assert not [name for name in imported(path) if name.startswith("lib_pivotal.importing")]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_style_rules(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if tree.body and path.name != "__init__.py":
        assert ast.get_docstring(tree), "a module says what it is for"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global), f"line {getattr(node, 'lineno', 0)}: no globals"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: no bare except"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"line {node.lineno}: logging, not print"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_public_things_are_documented(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


CONFIG = ("config", "config_checks", "config_pictures", "config_schema", "config_versions")
ORDER = (
    ("webui", "standalone"),
    ("ui",),
    ("commands",),
    ("importing",),
    ("runs", "confinement"),
    ("evaluation",),
    ("training",),
    ("networks", "embeddings", "bundle", "data"),
    ("config",),
    ("borrowing", "byte_cache", "embedding_names", "file_names", "files", "hosting", "oom", "parameter_groups"),
    ("plain_json", "ports", "prompts"),
    ("errors",),
)
"""Who may import whom: downwards, and within a line, but no two of them each other. Files outside of a folder count as
folders; the last line but one are the small things that everybody uses."""
IMPORTING_USES = {
    "bundle",
    "config",
    "data",
    "embedding_names",
    "errors",
    "file_names",
    "files",
    "plain_json",
    "prompts",
}
"""What importers may use: settings, pictures and files; of training and runs they know nothing."""
STILL: dict[tuple[str, str], str] = {}
"""What is not so yet, and why; to be emptied."""


def house(name):
    """The folder of a module by its dotted name, or what stands for one."""
    part = name.split(".")[1] if "." in name else ""
    return "standalone" if part == "__main__" else "config" if part in CONFIG else part


def folders_imported():
    """For each folder, the folders that its modules import, each with one place; those inside functions too."""
    found = {}
    for path in MODULES:
        here = house(".".join(("lib_pivotal", *path.relative_to(PACKAGE).with_suffix("").parts)))
        for name in imported(path):
            there = house(name) if name.startswith("lib_pivotal.") else ""
            if here not in ("", "__init__") and there not in ("", here, "__version__"):
                found.setdefault(here, {}).setdefault(there, f"{path.relative_to(PACKAGE)}: {name}")
    return found


def test_folders_point_down_and_never_at_each_other():
    rank = {folder: number for number, line in enumerate(ORDER) for folder in line}
    graph = folders_imported()
    assert set(graph) | {name for names in graph.values() for name in names} <= set(rank), "each folder has its place"
    for here, names in graph.items():
        for there, place in names.items():
            if (here, there) not in STILL:
                assert rank[here] <= rank[there], f"{here} -> {there} points up: {place}"
                assert here not in graph.get(there, {}) or (there, here) in STILL, f"{here} <-> {there}: {place}"


def test_importing_is_used_by_commands_alone():
    """Whoever scans is handed the readers of other trainers' dataset files, and pages show what a command answers."""
    used_by = {here: names["importing"] for here, names in folders_imported().items() if "importing" in names}
    assert set(used_by) == {"commands"}, used_by
    assert not folders_imported()["importing"].keys() & {"training", "evaluation", "runs", "confinement"}


def test_what_is_not_so_yet_is_still_so():
    graph = folders_imported()
    for here, there in STILL:
        assert there in graph.get(here, {}), f"{here} -> {there} is mended: take it out of STILL"


def test_modules_import_each_other_in_no_circle():
    """Of imports at the top of modules Python itself would trip over some; inside functions it would not."""
    names = {".".join(("lib_pivotal", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in MODULES}
    waiting = {name: {n for n in imported(path) if n in names and n != name} for name, path in names.items()}
    waiting = {name: {n for n in found if {name, n} not in KNOWN_PAIRS} for name, found in waiting.items()}
    while free := {name for name, found in waiting.items() if not found & waiting.keys()}:
        waiting = {name: found for name, found in waiting.items() if name not in free}
    assert not waiting, f"these import each other: {sorted(waiting)}"


KNOWN_PAIRS = ({"lib_pivotal.config", "lib_pivotal.config_checks"},)
"""A run is checked as it is read."""


def test_top_level_is_as_agreed():
    allowed = {"install.py", "scripts", "lib_pivotal", "javascript", "style.css", "tests", "README.md"}
    allowed |= {
        "pyproject.toml",
        "dev.py",
        "docs",
        "examples",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "requirements-dev.txt",
        "requirements-nodeps.txt",
        "out",
    }
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".") and path.name != "__pycache__"}
    assert found <= allowed, found - allowed


def test_no_path_of_a_machine_in_the_project():
    """Paths of whoever wrote it help nobody else."""
    suspicious = ("/work/main", "/work/shared", "/root/", "/home/")
    here = Path(__file__).resolve()
    for folder in ("lib_pivotal", "examples", "docs", "tests", "scripts"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".toml", ".json", ".yaml") and path.resolve() != here:
                text = path.read_text(encoding="utf-8", errors="replace")
                for embedding in suspicious:
                    assert embedding not in text, f"{path.relative_to(ROOT)}: {embedding}"


def test_one_name_means_one_thing():
    """A public class has its name for itself in the whole package."""
    found = {}
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert not {name: places for name, places in found.items() if len(places) > 1}

"""What is packaged, what an import loads, and in which direction modules import."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import captum_transformer_lrp

NAME = "captum_transformer_lrp"
PACKAGE = Path(captum_transformer_lrp.__file__).parent
PROJECT = PACKAGE.parent

# Imports run from a later row to an earlier one, or within a row; a row names modules
# and whole folders.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "_captum",
        "_copied",
        "_files",
        "_forms",
        "_listing",
        "_named",
        "_nested",
        "_packages",
        "_torch",
        "_version",
        "_visible",
        "description",
        "report",
    ),
    ("core",),
    ("known",),
    ("carried",),
    ("classic",),
    ("composites", "rules"),
    ("observers",),
    ("propagation",),  # old import paths
    ("attribution",),
    ("language", "targets"),
    ("tasks",),
    ("checking", "explaining", "masking"),
    ("comparison",),
    ("keeping",),
    ("",),  # the package itself: the public names
    ("insights",),
    ("cli", "__main__"),
)
# These know tensors and captum, not the engine; only the layers from `attribution` on
# may import them.
BESIDE_THE_ENGINE = (
    "diffmask",
    "explanation",
    "explanations",
    "influence",
    "joint",
    "metrics",
    "models",
    "rank_agreement",
    "records",
    "sound",
    "visualization",
)

OF_EXTRAS = (
    "accelerate",
    "jinja2",
    "kronfluence",
    "panel",
    "quantus",
    "rich",
    "safetensors",
    "timm",
    "tokenizers",
    "torchvision",
    "transformers",
)


def module_name(path: Path) -> str:
    """Dotted name below the package: `core/rules/__init__.py` is a folder's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def nodes_that_run(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of the tree, but none that only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from nodes_that_run(node)


def imports_of(source: str, module: str, is_folder: bool = False) -> set[str]:
    """Modules of the package that `source` imports, at its top or in a function."""
    found = set()
    for node in nodes_that_run(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = f"{NAME}.{module}".rstrip(".").split(".")
                kept = len(parents) - node.level + is_folder
                base = ".".join([*parents[:kept], *base.split(".")]).rstrip(".")
            # `from package import module` names a module only if there is one.
            names = [
                f"{base}.{alias.name}"
                if f"{base}.{alias.name}".removeprefix(f"{NAME}.") in MODULES
                else base
                for alias in node.names
            ]
        else:
            continue
        for name in names:
            if name == NAME or name.startswith(f"{NAME}."):
                found.add(name.removeprefix(NAME).removeprefix("."))
    return found


def is_below(module: str, folder: str) -> bool:
    return module == folder or module.startswith(f"{folder}.")


def row(module: str) -> int | None:
    """Number of the row of LAYERS that names `module` most closely."""
    matches = [
        (len(entry), number)
        for number, entries in enumerate(LAYERS)
        for entry in entries
        # A folder's own row is for its `__init__`, unless the folder is one row whole.
        if module == entry or (entry and is_below(module, entry))
    ]
    return max(matches)[1] if matches else None


def beside(module: str) -> str | None:
    return next((side for side in BESIDE_THE_ENGINE if is_below(module, side)), None)


def objection(module: str, imported: str) -> str | None:
    """Why `module` may not import `imported`; None if it may."""
    own, other = row(module), row(imported)
    attribution = row("attribution")
    assert attribution is not None
    if beside(module):
        if beside(imported) or row(imported) == 0:
            return None
        return f"{module} stands beside the engine and imports {imported or NAME!r}"
    assert own is not None
    if beside(imported):
        return None if own >= attribution else f"{module} imports {imported}"
    if other is not None and other > own:
        return f"{module or NAME} imports {imported or NAME}, which stands above it"
    return None


def test_each_class_has_a_name_of_its_own():
    """One name for one thing: a reader who meets a class knows which it is."""
    homes: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module)
    assert len(homes) > 100
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


@functools.cache
def import_graph() -> dict[str, set[str]]:
    return {
        module: imports_of(path.read_text(), module, path.name == "__init__.py")
        for module, path in MODULES.items()
    }


def find_cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """A path that ends where it began, if there is one."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        for imported in sorted(graph.get(module, ())):
            cycle = walk(imported, [*path, module])
            if cycle:
                return cycle
        done.add(module)
        return None

    return next(filter(None, (walk(module, []) for module in graph)), None)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_place_among_the_layers(module):
    assert row(module) is not None or beside(module), (
        f"{module} stands in no row of LAYERS in {Path(__file__).name}: "
        "add it where its imports allow"
    )


@pytest.mark.parametrize("module", [m for m in MODULES if row(m) or beside(m)])
def test_imports_run_one_way(module):
    imports = import_graph()[module]
    assert list(filter(None, (objection(module, name) for name in imports))) == []


def test_the_core_knows_no_library_but_torch():
    """And errors, and the base of everything that shows itself."""
    roots, own = set(), set()
    for module, path in MODULES.items():
        if is_below(module, "core"):
            tree = ast.parse(path.read_text())
            own |= {n.partition(".")[0] for n in import_graph()[module]}
            for node in nodes_that_run(tree):
                if isinstance(node, ast.Import):
                    roots |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    roots.add(str(node.module).partition(".")[0])
    assert roots - sys.stdlib_module_names == {"torch"}
    assert own == {"core", "errors", "report", "_nested", "_torch"}


def test_what_is_computed_does_not_depend_on_what_was_imported():
    """Rooms plug themselves in, also where only the core was asked for."""
    program = f"""
from {NAME}.core import CP_LRP, Engine, registry
engine = Engine(CP_LRP)
print(engine.table.operator(__import__("torch").addmm).special is not None)
print("transformers.activations.MishActivation" in registry)
"""
    assert run_python(program) == "True\nTrue\n"


def test_old_import_paths_lead_to_the_same_with_a_warning():
    """Also to what now stands in another file than what it stood beside."""
    program = f"""
import importlib, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from {NAME}.propagation.rules.base import Rule
    from {NAME}.propagation import COMPOSITES, Call, Engine, composite_named, registry
    from {NAME}.propagation import rules
    from {NAME}.propagation.call import map_tensors
    from {NAME}.propagation.composites import TRANSFORMER_ATTRIBUTION, epsilon_lrp
    from {NAME}.propagation.installed import AsBefore, Eagerly
    from {NAME}.propagation.observers import Observer
    from {NAME}.propagation.rules.linear_map import Mergeable
    import {NAME}.propagation.trace
import {NAME}, {NAME}.composites, {NAME}._nested
assert Rule is {NAME}.rules.Rule and rules.Epsilon is {NAME}.rules.Epsilon
assert COMPOSITES is {NAME}.composites.COMPOSITES
assert epsilon_lrp is {NAME}.composites.epsilon_lrp
assert map_tensors is {NAME}._nested.map_tensors
assert registry is {NAME}.registry and Observer is {NAME}.observers.Observer
assert {NAME}.propagation.trace.Trace is {NAME}.observers.trace.Trace
assert not hasattr(rules, "NoSuchRule")
(warning,) = (w for w in caught if w.category is DeprecationWarning)
print(warning.message)
from {NAME}.propagation import MOVED
print(*MOVED.values())
"""
    message, moved = run_python(program).splitlines()
    assert message.startswith(f"{NAME}.propagation has moved, and this path will go")
    assert set(moved.split()) <= set(MODULES)


def test_what_was_interrupted_is_plugged_in_again():
    """Ctrl-C in the first call must not leave an engine that knows half."""
    program = f"""
import importlib, sys
from {NAME}.core import ATTN_LRP, Engine
from {NAME}.core.plugins import plugins
usual, calls = importlib.import_module, []

def interrupted(name):
    calls.append(name)
    if len(calls) == 1:
        sys.modules["{NAME}.known.scans"] = None  # fails in the middle of the room
        try:
            return usual(name)
        finally:
            del sys.modules["{NAME}.known.scans"]
            raise KeyboardInterrupt
    return usual(name)

importlib.import_module = interrupted
try:
    Engine(ATTN_LRP)
except KeyboardInterrupt:
    print(plugins.complete)
engine = Engine(ATTN_LRP)
print(plugins.complete, len(plugins.installed), len(calls))
print(engine.table.operator(__import__("torch").addmm).special is not None)
"""
    assert run_python(program) == "False\nTrue 4 3\nTrue\n"


def test_no_import_cycle():
    assert find_cycle(import_graph()) is None


@pytest.mark.parametrize(
    ("module", "source", "imported"),
    [
        ("errors", f"import {NAME}.cli", "cli"),
        ("errors", f"from {NAME}.core.engine import Engine", "engine"),
        ("errors", "def late():\n    from .core.rules import linear", "rules"),
        ("core.rules.linear", "from ...known import joins", "joins"),
        ("core.engine", "from ..carried.passes import Switch", "passes"),
        ("known.joins", "from ..carried import convert", "convert"),
        ("carried.convert", "from ..classic.linear_map import LinearMap", "linear_map"),
        ("observers.trace", f"import {NAME}", ""),
        ("metrics.flipping", "from ..core.gradients import ratio", "gradients"),
        ("diffmask.gates", "from ..attribution import AttnLRP", "attribution"),
        ("core.engine", "from ..metrics import flipping", "metrics"),
    ],
)
def test_an_import_in_the_wrong_direction_is_found(module, source, imported):
    imports = imports_of(source, module)
    assert any(imported in name for name in imports)
    assert any(objection(module, name) for name in imports)


def test_a_cycle_is_found():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def run_python(program: str, **environment: str) -> str:
    """What a fresh interpreter prints, away from the checkout's folder."""
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=PACKAGE.anchor,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def test_import_works_without_any_extra():
    program = f"""
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OF_EXTRAS}:
            raise ModuleNotFoundError(f"blocked by the test: {{name}}", name=name)

sys.meta_path.insert(0, NotInstalled())
import {NAME}
print({NAME}.__name__)
"""
    assert run_python(program) == f"{NAME}\n"


def test_import_adds_nothing_heavy_to_what_captum_loads():
    # captum.attr loads matplotlib and PIL itself. To see whether the package asks for
    # them once more, the lookup of every import statement is recorded, not sys.modules.
    heavy = (*OF_EXTRAS, "matplotlib", "pandas", "PIL")
    program = f"""
import builtins
import captum.attr, torch

asked = []
original = builtins.__import__

def recording(name, globals=None, locals=None, fromlist=(), level=0):
    if (globals or {{}}).get("__name__", "").partition(".")[0] == {NAME!r}:
        asked.append(name.partition(".")[0])
    return original(name, globals, locals, fromlist, level)

import sys
before = set(sys.modules)
builtins.__import__ = recording
import {NAME}
for public in {NAME}.__all__:
    getattr({NAME}, public)
builtins.__import__ = original
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
assert "torch" in asked, "the recorder saw nothing"
print(sorted((loaded | set(asked)) & set({heavy})))
"""
    assert run_python(program) == "[]\n"


def test_public_names_load_when_they_are_asked_for():
    program = f"""
import sys
import {NAME}
assert not {{"torch", "captum"}} & set(sys.modules)
{NAME}.AttnLRP
assert "torch" in sys.modules and "{NAME}.insights" not in sys.modules
print({NAME}.metrics.__name__, hasattr({NAME}, "no_such_name"))
"""
    assert run_python(program) == f"{NAME}.metrics False\n"


def test_type_checkers_know_the_public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    modules = ("errors", "rules", "targets")
    assert [imported.pop(name) for name in modules] == [None] * 3
    assert imported == captum_transformer_lrp._HOME_OF
    assert set(captum_transformer_lrp.__all__) == {*imported, *modules}
    assert set(captum_transformer_lrp.__all__) <= set(dir(captum_transformer_lrp))


def test_types_are_announced():
    assert (PACKAGE / "py.typed").is_file()


def test_version_is_that_of_the_installed_metadata():
    assert captum_transformer_lrp.__version__ == importlib.metadata.version(NAME)


def test_torch_and_captum_are_the_only_hard_dependencies():
    requirements = importlib.metadata.requires(NAME)
    assert requirements is not None
    hard = {
        requirement.split(">")[0].split("<")[0].strip()
        for requirement in requirements
        if "extra ==" not in requirement
    }
    assert hard == {"captum", "torch"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout with the tools of this environment."""
    if not (PROJECT / "pyproject.toml").is_file():
        pytest.skip("the package was imported from an installation, not a checkout")
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=PROJECT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_contains_the_whole_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    present = {
        str(path.relative_to(PROJECT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == present


def test_wheel_contains_the_built_in_models(wheel):
    built_in = f"{NAME}/models/built_in/"
    with zipfile.ZipFile(wheel) as archive:
        sizes = {
            entry.filename.removeprefix(built_in): entry.file_size
            for entry in archive.infolist()
            if entry.filename.startswith(built_in)
        }
    weights = [name for name in sizes if name.endswith(".safetensors")]
    assert len(weights) >= 2, sorted(sizes)
    for name in weights:
        assert sizes[name] <= 5_000_000
        assert f"{name.rpartition('/')[0]}/README.md" in sizes, f"{name} has no card"


@pytest.mark.slow
def test_wheel_works_where_only_the_wheel_is(wheel, tmp_path):
    install = ["pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", *install, "--target", str(tmp_path), str(wheel)],
        check=True,
    )
    where = f"import {NAME}; print({NAME}.__file__)"
    location = run_python(where, PYTHONPATH=str(tmp_path)).strip()
    assert Path(location).is_relative_to(tmp_path)
    completed = subprocess.run(
        [sys.executable, str(tmp_path / "bin" / "captum-transformer-lrp"), "methods"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert completed.returncode == 0, completed.stderr
    assert "AttnLRP" in completed.stdout

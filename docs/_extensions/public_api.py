"""Writes the pages of the API reference, and finds what docstrings refer to.

A module of `PAGES` gets a page that lists the names of its `__all__`, each under the
shortest path from which it can be imported, and each only once. Modules that this
version of the package does not have are left out.

A docstring may name an object as its own module sees it (:class:`Layers`, or
:class:`~.registry.Layers`); the reference is found by asking Python what the name is.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer

PACKAGE = "captum_transformer_lrp"

#: module -> title of its page, in the order of the index
PAGES = {
    f"{PACKAGE}.explaining": "From a text or picture to an explanation",
    f"{PACKAGE}.explanation": "Explanations",
    f"{PACKAGE}.explanations": "Explanations of a data set",
    f"{PACKAGE}.joint": "Explanations of several inputs at once",
    f"{PACKAGE}.sound": "Explanations of sounds",
    f"{PACKAGE}.targets": "Targets",
    f"{PACKAGE}.tasks": "Tasks",
    f"{PACKAGE}.comparison": "Comparing methods",
    f"{PACKAGE}.keeping": "Saving and loading",
    f"{PACKAGE}.attribution": "Attribution methods",
    f"{PACKAGE}.attribution.units": "Heads, neurons, experts",
    f"{PACKAGE}.language": "Language models",
    f"{PACKAGE}.diffmask": "DiffMask",
    f"{PACKAGE}.masking": "DiffMask for texts, by name",
    f"{PACKAGE}.core": "Engine, registry and tables",
    f"{PACKAGE}.rules": "Rules",
    f"{PACKAGE}.composites": "Composites",
    f"{PACKAGE}.classic.layers": "Layers by depth",
    f"{PACKAGE}.observers": "Observers",
    f"{PACKAGE}.observers.trace": "Traces",
    f"{PACKAGE}.checking": "Checking a model",
    f"{PACKAGE}.metrics": "Metrics",
    f"{PACKAGE}.influence": "Influence of training examples",
    f"{PACKAGE}.visualization": "Pictures",
    f"{PACKAGE}.visualization.states": "Pictures of masks",
    f"{PACKAGE}.report.shown": "What shows itself",
    f"{PACKAGE}.report.blocks": "Blocks",
    f"{PACKAGE}.insights": "The Insights app",
    f"{PACKAGE}.models": "Models by name",
    f"{PACKAGE}.errors": "Errors and warnings",
}


def public_names(module: ModuleType) -> list[str]:
    """Names of `__all__`; without one the module's classes, and what is exported."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    exported = importlib.import_module(PACKAGE).__all__
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or name in exported)
        and getattr(value, "__module__", None) == module.__name__
    ]


@functools.cache
def documented() -> dict[str, list[tuple[str, Any]]]:
    """Module -> what its page lists: pairs of full name and object, each once."""
    package = importlib.import_module(PACKAGE)
    found: dict[str, list[tuple[str, Any]]] = {}
    seen: set[int] = set()
    for name in PAGES:
        if importlib.util.find_spec(name) is None:
            continue
        module = importlib.import_module(name)
        found[name] = []
        for member in public_names(module):
            value = getattr(module, member)
            if inspect.ismodule(value) or id(value) in seen:
                continue
            seen.add(id(value))
            shortest = getattr(package, member, None) is value
            found[name].append((f"{PACKAGE if shortest else name}.{member}", value))
    return found


def comment_on(full: str) -> str:
    """What the `#:` comment on a value says, in whichever module assigns it."""
    member = full.rpartition(".")[2]
    value = import_dotted(full)
    for name in sorted(n for n in sys.modules if n.startswith(PACKAGE)):
        if vars(sys.modules[name]).get(member) is value:
            docs = ModuleAnalyzer.for_module(name).find_attr_docs()
            if ("", member) in docs:
                return " ".join(docs["", member]).strip()
    kind = type(value)
    return f"An instance of :class:`~{kind.__module__}.{kind.__qualname__}`."


def page(name: str, members: list[tuple[str, Any]]) -> str:
    """The reStructuredText of one module's page."""
    title = PAGES[name]
    lines = [title, "=" * len(title), "", f"``{name}``", ""]
    lines += [f".. automodule:: {name}", "   :no-members:", "   :no-index:", ""]
    lines += [f".. currentmodule:: {PACKAGE}", ""]
    tables = {
        "Classes": [n for n, value in members if inspect.isclass(value)],
        "Functions": [n for n, value in members if inspect.isroutine(value)],
    }
    for heading, names in tables.items():
        if names:
            lines += [".. rubric:: " + heading, "", ".. autosummary::"]
            lines += ["   :toctree: generated", "   :nosignatures:", ""]
            lines += [f"   {full.removeprefix(PACKAGE + '.')}" for full in names] + [""]
    data = [
        n for n, v in members if not inspect.isclass(v) and not inspect.isroutine(v)
    ]
    if data:
        lines += [".. rubric:: Values", ""]
        for full in data:
            lines += [f".. py:data:: {full}", "", f"   {comment_on(full)}", ""]
    return "\n".join(lines)


def write_pages(folder: Path) -> None:
    """Write `api/*.rst` where they have changed, and remove those of other versions."""
    folder.mkdir(exist_ok=True)
    pages = {f"{n.rpartition('.')[2]}.rst": page(n, m) for n, m in documented().items()}
    entries = "".join(f"   {name.removesuffix('.rst')}\n" for name in pages)
    pages["index.rst"] = (
        "API reference\n=============\n\n"
        "What ``captum_transformer_lrp`` itself exports is shown under that name; the "
        "rest under the module to import it from.\n\n"
        f".. toctree::\n   :maxdepth: 1\n\n{entries}"
    )
    for stale in folder.glob("*.rst"):
        if stale.name not in pages:
            stale.unlink()
    listed = {full for members in documented().values() for full, _ in members}
    for stub in (folder / "generated").glob("*.rst"):
        if stub.stem not in listed:
            stub.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def import_dotted(path: str) -> Any:
    """The object of a dotted path; None if there is none."""
    parts = path.split(".")
    for split in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[split:]:
            value = inspect.getattr_static(value, attribute, None)
            if value is None:
                return None
        return value
    return None


def candidates(node: pending_xref) -> Iterator[str]:
    """Dotted paths that the target of a reference may stand for, nearest first."""
    target: str = node["reftarget"].lstrip("~.")
    yield target
    scope, cls = node.get("py:module"), node.get("py:class")
    owner = import_dotted(f"{scope}.{cls}") if scope and cls else None
    for home in (owner, import_dotted(scope) if scope else None):
        if inspect.isclass(home):
            for base in home.__mro__:
                yield f"{base.__module__}.{base.__qualname__}.{target}"
            home = inspect.getmodule(home)
        if inspect.ismodule(home):
            name = home.__name__
            while name.startswith(PACKAGE):
                yield f"{name}.{target}"
                name = name.rpartition(".")[0]
    # In a table of contents all is seen from the package.
    listed = [full for members in documented().values() for full, _ in members]
    named = [full for full in listed if full.endswith(f".{target}")]
    if len(named) == 1:
        yield named[0]
    # What a module keeps to itself is still a name that exists.
    yield from (f"{n}.{target}" for n in sorted(sys.modules) if n.startswith(PACKAGE))


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
) -> nodes.Element | None:
    """Link a reference that Sphinx did not find to where its object is documented.

    Names of this package that have no page (the reference covers what is public) stay
    text. Others are left to Sphinx, which warns.
    """
    if node.get("refdomain") != "py":
        return None
    domain = env.domains.python_domain
    places = {
        id(value): full for members in documented().values() for full, value in members
    }
    known = False
    for path in candidates(node):
        value = import_dotted(path) if path.startswith(PACKAGE) else None
        if value is None:
            continue
        known = True
        parent, _, member = path.rpartition(".")
        owner = places.get(id(import_dotted(parent)))
        for full in (path, places.get(id(value)), f"{owner}.{member}"):
            entry = domain.objects.get(full or "")
            if entry is not None:
                uri = app.builder.get_relative_uri(node["refdoc"], entry.docname)
                link = nodes.reference(
                    "", "", contnode, internal=True, refuri=f"{uri}#{entry.node_id}"
                )
                return link
    return contnode if known else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages now, before Sphinx looks for what there is to read."""
    write_pages(Path(app.srcdir) / "api")
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""How Sphinx builds the site: `make docs`, or `sphinx-build -W docs docs/_build/html`.

Nothing is fetched: no inventories of other projects, no fonts, no scripts. Pages that
other parts of the repository write (notebooks, the zoos, faithfulness) are taken when
they are there.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).parent
PROJECT = HERE.parent
sys.path[:0] = [str(PROJECT), str(HERE / "_extensions")]

import captum_transformer_lrp

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "captum_transformer_lrp"
author = "the captum_transformer_lrp authors"
project_copyright = author
version = release = captum_transformer_lrp.__version__

extensions = [
    "mathml",
    "myst_nb",
    "public_api",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
nitpicky = True
# What `nitpicky` asks for beyond this package (torch.Tensor, "optional", "Callable")
# is not resolved, since no inventories are fetched.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!captum_transformer_lrp|(?!Module$)[A-Z_a-z]+$|[.~]).*")
]

# --------------------------------------------------------------------------- pages
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are executed by their own tests

# ----------------------------------------------------------------------- reference
autosummary_generate = True
autosummary_imported_members = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings name the types
autodoc_inherit_docstrings = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_param = False  # types of arguments are text, not references
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 72

# ------------------------------------------------------------------------ the look
html_theme = "furo"
html_math_renderer = "mathml"
html_title = "captum_transformer_lrp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "tango"
pygments_dark_style = "monokai"


#: pages that are generated, and may not be there
GENERATED_PAGES = ("faithfulness", "zoo", "third_party")


def copy_notebooks() -> None:
    """Put the notebooks of `tutorials/` beside their index, where Sphinx reads them."""
    folder = HERE / "tutorials"
    there = {path.name: path for path in (PROJECT / "tutorials").glob("*.ipynb")}
    for stale in folder.glob("*.ipynb"):
        if stale.name not in there:
            stale.unlink()
    for name, path in there.items():
        copy = folder / name
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            shutil.copyfile(path, copy)


def leave_out_missing_pages(app: Sphinx, docname: str, source: list[str]) -> None:
    """Take pages that are not there out of the table of contents."""
    if docname == "index":
        missing = [p for p in GENERATED_PAGES if not (HERE / f"{p}.md").exists()]
        lines = source[0].splitlines(keepends=True)
        source[0] = "".join(line for line in lines if line.strip() not in missing)


def keep_whole(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Stop Napoleon from reading ``True: because ...`` as a type and a description."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]


def setup(app: Sphinx) -> None:
    """Prepare what is not written by hand."""
    copy_notebooks()
    app.connect("autodoc-process-docstring", keep_whole, priority=100)
    app.connect("source-read", leave_out_missing_pages)

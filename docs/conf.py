"""The documentation site: `sphinx-build -W -b html docs build/site`, with the extra `docs`.

Whoever looks at the pages needs no network: mathematics, styles and scripts come with them.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import musc_jax

project = "musc-jax"
copyright = "the musc-jax authors, Apache-2.0"
release = version = musc_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
# Notebooks are kept with what they gave; a test runs them.
nb_execution_mode = "off"

# Signatures have the shapes, sections of the docstrings say the rest; single backticks are code there, as in Markdown.
autodoc_typehints = "signature"
default_role = "code"
maximum_signature_line_length = 90
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "sphinx_book_theme"
html_title = "musc-jax"
html_static_path = ["_static"]
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    # No picture of a package index or badge from elsewhere.
    "icon_links": [],
}
html_css_files = ["site.css"]
html_show_sourcelink = False


def setup(app):
    """An array is one, whether JAX's or NumPy's: each shape stands once."""

    def shorter(text: str | None) -> str | None:
        if text is None:
            return None
        text = text.replace("jaxlib._jax.Array", "Array").replace("~jaxtyping.", "")
        return re.sub(r"(\w+)\[Array, ('[^']*')\] \| \1\[ndarray, \2\]", r"\1[Array, \2]", text)

    app.connect("autodoc-process-signature", lambda *a: (shorter(a[5]), shorter(a[6])))

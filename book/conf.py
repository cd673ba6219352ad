"""Sphinx's settings for the book; build.py calls it."""

import os

project = "mnistq"
html_title = "mnistq"
author = "the authors of mnistq"
extensions = ["myst_nb", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
myst_heading_slug_func = (
    "book.slug.slug"  # notebooks link to headings as Jupyter names them
)
nb_execution_mode = "off"  # the pages are the stored notebooks
nb_ipywidgets_js = {}  # nothing is fetched from elsewhere
mathjax_path = "mathjax.js"
suppress_warnings = ["myst.header", "mystnb.mime_priority", "mystnb.unknown_mime_type"]
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"  # else a browser asks for one
html_css_files = ["player.css"]
html_js_files = ["player.js"]
html_copy_source = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_persistent": [],  # a second field for the search
    "repository_url": f"https://github.com/{os.environ['MNISTQ_REPOSITORY']}",
    "repository_branch": "main",
    "use_repository_button": True,
    "use_download_button": False,
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    "show_navbar_depth": 1,
    "show_toc_level": 1,
}

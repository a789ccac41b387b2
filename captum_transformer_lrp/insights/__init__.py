"""A browser of predictions and their explanations, on the reader's own machine.

What Captum Insights was until captum 0.8: a model and a data set, a method, a target
and a filter, and the maps of the examples, the wrong predictions first.

    >>> from captum_transformer_lrp import insights
    >>> insights.serve("built-in", "reviews.csv")

It is made with Panel, which can be started from Python with a loaded model, shows the
same page in a notebook and writes what is chosen into the address. Streamlit owns the
process and runs the script anew for every change, and Gradio 6 does not admit Pillow
13.
"""

from __future__ import annotations

from .app import App, serve
from .data import Data, Example, read_data
from .server import Server

__all__ = ["App", "Data", "Example", "Server", "read_data", "serve"]

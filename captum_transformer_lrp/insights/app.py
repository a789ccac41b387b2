"""The app: a model and a data set, shown in a browser or in a notebook."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import attribution
from .._packages import require
from ..errors import InputError
from ..explaining import Explainer
from ..explanation import Explanation
from ..models.loading import ImageModel, TextModel
from ..tasks import is_pipeline, task_named
from ..tasks.classes import Classification
from .cache import ExplanationCache
from .data import LIMIT, Data, Kind, read_data
from .page import AppPage
from .predictions import Predictions
from .server import HOST, PORT, Server
from .view import LABEL, PREDICTION, ViewReader


class App:
    """A browser of a model's predictions on a data set, with their explanations.

    In a notebook, an ``App`` at the end of a cell shows itself;
    ``captum_transformer_lrp.insights.serve`` opens it in a browser, and
    :meth:`servable` adds it to a program of ``panel serve``.

    Args:
        model (str, Path, nn.Module, TextModel, ImageModel or Pipeline, optional): What
            :func:`captum_transformer_lrp.explain` takes; ``"built-in"`` or None is the
            built-in model for the kind of the data. Of pipelines of ``transformers``
            those for ``text-classification``, ``text-generation`` and
            ``image-classification``. Default: None
        data (str, Path or iterable): A file of texts, a folder of pictures, or texts or
            PIL pictures with or without labels; see
            :func:`captum_transformer_lrp.insights.read_data`.
        text_column (str, optional): In a table, the column of the texts.
            Default: None, ``text`` or ``sentence``
        label_column (str, optional): The column of the labels.
            Default: None, ``label`` or ``labels`` if there is one
        tokenizer (Any, optional): The tokenizer of a loaded model. Default: None
        transform (Callable, optional): From a PIL image to the pixels of a loaded
            model. Default: None
        methods (Sequence[str], optional): The methods on offer, by name; the first is
            chosen. Default: None, all
        device (str, optional): Where to put a model that is loaded by name.
            Default: None, the CPU
        limit (int, optional): How many examples are shown at most. Default: 2000
        batch_size (int, optional): How many examples are predicted at once.
            Default: 16

    Raises:
        InputError: The data cannot be read, or does not fit the model.
        LoadingError: No model is found under this name.
        ModelStateError: A loaded model is in training mode.
        UnknownNameError: There is no such method.
        MissingPackageError: panel, or what loads the model, is not installed.

    Examples::

        >>> from captum_transformer_lrp import insights
        >>> insights.App("built-in", [("A warm film.", "positive"), ("Dull.", 0)])
    """

    def __init__(
        self,
        model: str | Path | nn.Module | TextModel | ImageModel | None,
        data: str | Path | Iterable[Any],
        *,
        text_column: str | None = None,
        label_column: str | None = None,
        tokenizer: Any = None,
        transform: Any = None,
        methods: Sequence[str] | None = None,
        device: str | torch.device | None = None,
        limit: int = LIMIT,
        batch_size: int = 16,
    ) -> None:
        require("panel")
        require("jinja2")
        if batch_size < 1:
            raise InputError(f"expected batch_size of at least 1, got {batch_size}")
        self.methods = _methods(methods)
        self.data: Data = read_data(
            data, text_column=text_column, label_column=label_column, limit=limit
        )
        self.source = _load(self.data.kind, model, tokenizer, transform, device)
        self._model_lock = threading.RLock()
        self.predictions = Predictions(
            self.source, self.data, self._model_lock, batch_size=batch_size
        )
        self.explanations = ExplanationCache(self.source, self._model_lock)
        #: where each example stands, by its number
        self.places = {e.number: i for i, e in enumerate(self.data.examples)}
        self.reader = ViewReader(
            methods=self.methods,
            numbers=tuple(self.places),
            class_names=self.class_names,
        )

    @property
    def is_language_model(self) -> bool:
        """Whether the model predicts the next token, and not a class."""
        return (
            isinstance(self.source, TextModel)
            and self.source.task == "causal-language-model"
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The model's classes, in the order of the logits; maybe none."""
        return self.source.class_names

    @property
    def unlabelled(self) -> bool:
        """Whether no example has a true class."""
        return all(index is None for index in self.predictions.labels.indices)

    @property
    def title(self) -> str:
        """What stands above the page."""
        return f"{self.source.name} on {self.data.name}"

    @property
    def subtitle(self) -> str:
        """What stands below the title."""
        kind = {"text": "texts", "image": "pictures"}[self.data.kind]
        return f"{self.data.total:,} {kind}: what the model predicts, and why."

    def summary(self) -> str:
        """Return how often the model is right, in one sentence."""
        found = [self.predictions[place] for place in range(len(self.predictions))]
        judged = [p for p in found if p is not None and p.right is not None]
        failed = sum(1 for p in found if p is not None and p.best is None)
        right = sum(1 for p in judged if p.right)
        parts = [f"{len(found):,} examples"]
        if judged:
            share = 100 * right / len(judged)
            parts.append(
                f"{right:,} predictions correct, {len(judged) - right:,} wrong "
                f"({share:.1f} % correct)"
            )
        if 0 < len(judged) < len(found) - failed:
            parts.append(f"{len(found) - failed - len(judged):,} without a true class")
        if failed:
            parts.append(f"{failed:,} could not be read")
        return "; ".join(parts) + "."

    def explain(self, place: int, method: str, target: str) -> Explanation:
        """Return the explanation of one example.

        Args:
            place (int): Where it stands in the data, from 0.
            method (str): The name of a method.
            target (str): As in :class:`~captum_transformer_lrp.insights.view.View`.

        Raises:
            InputError: The example cannot be read, or has no true class to explain.
            LRPError: What :func:`captum_transformer_lrp.explain` raises.
        """
        prediction = self.predictions.ensure(place)
        if prediction.best is None:
            raise InputError(prediction.failure)
        if target == PREDICTION:
            index = prediction.best.index
        elif target == LABEL:
            if prediction.label is None:
                raise InputError(
                    "this example has no true class: explain the prediction or choose "
                    "a class"
                )
            index = prediction.label.index
        else:
            index = int(target)
        example = self.data.examples[place]
        value = self.data.open(example)
        return self.explanations.get(value, method, index, number=example.number)

    def token_text(self, target: str) -> str:
        """Return the text of a target of a language model; none for the prediction."""
        if target in (PREDICTION, LABEL):
            return ""
        assert isinstance(self.source, TextModel)
        return str(self.source.tokenizer.decode([int(target)]))

    def panel(self) -> Any:
        """Return the app as an object of Panel, for a notebook or a larger page."""
        pn = require("panel")
        page = AppPage(self)
        pn.state.execute(page.open)
        return page.layout

    def servable(self, **options: Any) -> Any:
        """Add the app to a program that ``panel serve`` runs, as Panel's own objects.

        Args:
            options (Any): What ``servable`` of Panel takes, such as ``title``.
        """
        return self.panel().servable(**options)

    def start(
        self,
        *,
        host: str = HOST,
        port: int = PORT,
        origins: Sequence[str] = (),
        **options: Any,
    ) -> Server:
        """Serve the app in a thread of its own; see :func:`serve`.

        Returns:
            *Server*: Its ``url``, and ``stop()``.
        """
        return Server(self, host=host, port=port, origins=origins, **options)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        require("panel").extension()
        return self.panel()._repr_mimebundle_(include, exclude)


def serve(
    model: str | Path | nn.Module | TextModel | ImageModel | None,
    data: str | Path | Iterable[Any],
    *,
    host: str = HOST,
    port: int = PORT,
    origins: Sequence[str] = (),
    open_browser: bool = False,
    block: bool = True,
    **options: Any,
) -> Server:
    """Show a model's predictions on a data set in a browser, with their explanations.

    Whoever reaches the port can use the app: there is no authentication. By default
    only this machine reaches it.

    Args:
        model (str, Path, nn.Module, TextModel or ImageModel, optional): As for
            :class:`App`.
        data (str, Path or iterable): As for :class:`App`.
        host (str, optional): The address to listen on. Default: ``"127.0.0.1"``
        port (int, optional): The port; 0 takes a free one. Default: 5006
        origins (Sequence[str], optional): Further addresses, as ``"host:port"``, under
            which browsers may reach the app, such as that of a proxy. Default: ()
        open_browser (bool, optional): Whether to open the page in a browser.
            Default: False
        block (bool, optional): Whether to return only when the app is stopped.
            Default: True
        options (Any): What :class:`App` takes.

    Returns:
        *Server*: Its ``url``, and ``stop()``.

    Raises:
        InputError: The port is taken, or there is no such host.
        LRPError: What :class:`App` raises.
    """
    # Bokeh says this of each click on a button that was added after the page was made.
    warnings.filterwarnings("ignore", message="reference already known")
    server = App(model, data, **options).start(host=host, port=port, origins=origins)
    print(f"Insights is at {server.url}", flush=True)
    if open_browser:
        server.show()
    if block:
        server.wait()
    return server


def _methods(names: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(names, str):
        raise InputError(f"expected methods= to be a list of names, got {names!r}")
    if names is None:
        return tuple(attribution.methods)
    if not names:
        raise InputError("expected at least one method in methods=, got none")
    return tuple(dict.fromkeys(attribution.methods[name].name for name in names))


def _load(
    kind: Kind, model: Any, tokenizer: Any, transform: Any, device: Any
) -> TextModel | ImageModel:
    """Return the model of the kind of the data."""
    of_text = kind == "text"
    keyword, wrong = "tokenizer", "transform"
    if not of_text:
        keyword, wrong = wrong, keyword
    if (transform if of_text else tokenizer) is not None:
        raise InputError(
            f"{wrong}= does not belong to data of kind {kind!r}; expected {keyword}="
        )
    if isinstance(model, ImageModel if of_text else TextModel):
        raise InputError(
            f"the data are of kind {kind!r}, and the model is a {type(model).__name__}"
        )
    activation = None
    if is_pipeline(model):
        if tokenizer is not None or transform is not None or device is not None:
            raise InputError(
                "tokenizer=, transform= and device= belong to a model: the pipeline "
                "brings its own"
            )
        model, tokenizer, transform, activation = _of_pipeline(kind, model)
    explainer = Explainer(
        model, tokenizer=tokenizer, transform=transform, device=device
    )
    found = explainer.text_model if of_text else explainer.image_model
    return found if activation is None else replace(found, activation=activation)


#: tasks of pipelines whose answers are classes -> the kind of their data
_OF_CLASSES: dict[str, Kind] = {
    "text-classification": "text",
    "text-generation": "text",
    "image-classification": "image",
}


def _of_pipeline(kind: Kind, pipe: Any) -> tuple[Any, Any, Any, str | None]:
    """Return model, tokenizer, transform and activation of a pipeline."""
    task = task_named(pipe.task)
    if _OF_CLASSES.get(task.name) != kind:
        fitting = " or ".join(name for name, of in _OF_CLASSES.items() if of == kind)
        raise InputError(
            f"the data are of kind {kind!r}, and the pipeline is for {task.name}; "
            f"expected one for {fitting}. What others answer is explained by "
            "Explainer(pipe)(inputs)"
        )
    activation = None
    if isinstance(task, Classification):
        made = pipe._postprocess_params.get("function_to_apply")
        activation = task.activation(made, pipe.model.config)
    if kind == "text":
        return pipe.model, pipe.tokenizer, None, activation
    return pipe.model, None, pipe.image_processor, activation

"""The page: widgets on the left, examples on the right, one object for each visitor.

Every change goes the same way: the widgets make a new
:class:`~captum_transformer_lrp.insights.view.View`, the view is written into the
address, and the list is drawn from it. What runs the model runs in another thread, so
that the server answers in the meantime.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._packages import require
from ..errors import InputError, LRPError
from ..models.inputs import MAX_PIXELS
from ..models.loading import TextModel
from ..models.prediction import token_target
from .cards import render_example
from .uploads import MAX_BYTES, MAX_CHARACTERS, check_text, open_upload
from .view import LABEL, OUTCOMES, PREDICTION, SIZES, SORTS, View, select

if TYPE_CHECKING:
    from .app import App

_LOG = logging.getLogger(__name__)
_TEMPLATES = Path(__file__).parent / "templates"
_ANY = -1  # the option of a menu that chooses nothing
_TICK = 500  # milliseconds between two looks at the progress
_WIDE: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": 0}


class AppPage:
    """What one visitor sees.

    Args:
        app (App): The model, the data and what is known of them, shared by all.
        query (str): The address from its ``?`` on. Default: ``""``
        write_address (Callable, optional): Takes the address of each view; None where
            there is none, as in a notebook. Default: None
    """

    def __init__(
        self,
        app: App,
        query: str = "",
        write_address: Callable[[str], None] | None = None,
    ) -> None:
        self.app = app
        self.view, self._problems = app.reader.read(query)
        self._write_address = write_address
        self._closed = False
        self._round = 0
        self._shown_complete = False
        self._own: Any = None
        self._order: list[int] = []
        self._ticking: Any = None
        self._pn: Any = require("panel")
        self._make_widgets()
        self.layout = self._lay_out()
        self._fill_widgets()
        for widget in self._widgets():
            widget.param.watch(self._changed, "value")

    async def open(self) -> None:
        """Begin: predict in the background, and show what the address asks for."""
        self.app.predictions.start()
        if not self.app.predictions.finished:
            self._ticking = self._pn.state.add_periodic_callback(
                self._tick, period=_TICK
            )
        await self._draw()

    def close(self) -> None:
        """Let go: nothing more is computed for this visitor."""
        self._closed = True
        self._round += 1
        if self._ticking is not None:
            self._ticking.stop()
            self._ticking = None

    # --- widgets -----------------------------------------------------------------

    def _make_widgets(self) -> None:
        pn, app = self._pn, self.app
        look: dict[str, Any] = {
            "stylesheets": [_css("widget.css")],
            **_WIDE,
        }
        select_one = pn.widgets.Select
        self.method = select_one(label="Method", options=list(app.methods), **look)
        self.target: Any
        if app.is_language_model:
            self.target = pn.widgets.TextInput(
                label="Explain the next token",
                placeholder="the prediction",
                max_length=100,
                **look,
            )
        else:
            self.target = select_one(
                label="Explain",
                options={
                    "The prediction": PREDICTION,
                    "The true class": LABEL,
                    **_unique({str(i): n for i, n in enumerate(app.class_names)}),
                },
                **look,
            )
        self.outcome = select_one(
            label="Show", options={v: k for k, v in OUTCOMES.items()}, **look
        )
        classes = {"Any": _ANY, **_unique(dict(enumerate(app.class_names)))}
        self.label = select_one(label="True class", options=classes, **look)
        self.predicted = select_one(label="Predicted class", options=classes, **look)
        self.search = pn.widgets.TextInput(
            label="Texts with" if app.data.kind == "text" else "File names with",
            placeholder="any",
            max_length=200,
            **look,
        )
        self.sort = select_one(
            label="Order", options={v: k for k, v in SORTS.items()}, **look
        )
        self.size = select_one(label="Examples per page", options=list(SIZES), **look)

        small = look | {"sizing_mode": None}
        self.previous = pn.widgets.Button(label="← Previous", **small)
        self.next = pn.widgets.Button(label="Next →", **small)
        self.back = pn.widgets.Button(label="Back to the list", **small)
        self.previous.on_click(self._step(-1))
        self.next.on_click(self._step(1))
        self.back.on_click(self._back)

        self.own_input: Any
        if app.data.kind == "text":
            self.own_input = pn.widgets.TextAreaInput(
                placeholder="A text of your own",
                max_length=MAX_CHARACTERS,
                rows=3,
                css_classes=["wide"],
                auto_grow=True,
                max_rows=10,
                **look,
            )
        else:
            self.own_input = pn.widgets.FileInput(
                accept=".png,.jpg,.jpeg,.webp,.bmp,.gif", css_classes=["wide"], **look
            )
        self.own_button = pn.widgets.Button(label="Explain it", **small)
        self.own_close = pn.widgets.Button(label="Close", **small)
        self.own_button.on_click(self._explain_own)
        self.own_close.on_click(self._close_own)

    def _widgets(self) -> list[Any]:
        return [
            self.method,
            self.target,
            self.outcome,
            self.label,
            self.predicted,
            self.search,
            self.sort,
            self.size,
        ]

    def _lay_out(self) -> Any:
        app = self.app
        self.status = self._html("")
        self.problems = self._html("")
        self.place = self._html("", short=True)
        self.link = self._html("", short=True)
        self.bar = self._box([], "bar")
        self.own = self._box([], "cards", visible=False)
        self.cards = self._box([], "cards")
        kind = "text" if app.data.kind == "text" else "picture"
        limits = (
            f"At most {MAX_CHARACTERS:,} characters."
            if kind == "text"
            else f"At most {MAX_BYTES / 2**20:.0f} MiB and "
            f"{MAX_PIXELS / 10**6:.0f} million pixels."
        )
        filters = [self.outcome, self.label, self.predicted, self.search]
        if app.is_language_model:
            filters = [self.search]
        elif app.unlabelled:
            filters = [self.predicted, self.search]
        side = self._box(
            [
                self.method,
                self.target,
                self._html('<h2 class="group">Which examples</h2>', wide=True),
                *filters,
                self.sort,
                self.size,
                self._html(
                    f'<h2 class="group">Your own {kind}</h2>'
                    + _soft(f"{limits} It is not kept."),
                    wide=True,
                ),
                self.own_input,
                self.own_button,
            ],
            "side",
        )
        main = self._box(
            [self.status, self.problems, self.own, self.bar, self.cards], "main"
        )
        title = self._html(f"<h1>{escape(app.title)}</h1>{_soft(app.subtitle)}")
        place = "served" if self._write_address else "notebook"
        columns = self._box([side, main], "columns")
        return self._box([title, columns], "insights", place)

    def _html(self, html: str, *, wide: bool = False, short: bool = False) -> Any:
        """Return a piece of HTML; what comes from outside is escaped by then."""
        return self._pn.pane.HTML(
            html,
            css_classes=["wide"] if wide else [],
            stylesheets=[_css("text.css")],
            **_WIDE | {"sizing_mode": None if short else "stretch_width"},
        )

    def _box(self, inner: list[Any], *kinds: str, **options: Any) -> Any:
        """Return what stands below each other, with the kinds that give it its look."""
        look = {"css_classes": [*kinds], "stylesheets": [_css("layout.css")], **_WIDE}
        return self._pn.Column(*inner, **look, **options)

    def _row(self, *inner: Any) -> Any:
        """Return what stands beside each other."""
        look = {"css_classes": ["bar"], "stylesheets": [_css("layout.css")], **_WIDE}
        return self._pn.Row(*inner, **look)

    def _fill_widgets(self) -> None:
        """Let the widgets say what the view is."""
        view = self.view
        self.method.value = view.method
        if self.app.is_language_model:
            self.target.value = self.app.token_text(view.target)
        else:
            _choose(self.target, view.target)
        self.outcome.value = view.outcome
        _choose(self.label, _ANY if view.label is None else view.label)
        _choose(self.predicted, _ANY if view.predicted is None else view.predicted)
        self.search.value = view.search
        self.sort.value = view.sort
        self.size.value = view.size

    # --- what visitors do --------------------------------------------------------

    async def _changed(self, event: Any) -> None:
        try:
            target = self._chosen_target()
        except LRPError as error:
            self._problems = (str(error),)
            self._say_problems()
            return
        how = replace(self.view, method=self.method.value, target=target)
        which = replace(
            how,
            outcome=self.outcome.value,
            label=None if self.label.value == _ANY else self.label.value,
            predicted=None if self.predicted.value == _ANY else self.predicted.value,
            search=self.search.value.strip(),
            sort=self.sort.value,
            size=self.size.value,
        )
        if which == self.view:
            return  # the widget follows the view, not the other way round
        self._problems = ()
        before = self.view
        if which != how:
            which = replace(which, example=None, page=1)
        await self.show(which)
        asked = (which.method, which.target) != (before.method, before.target)
        if asked and self._own is not None:
            await self._draw_own()

    def _chosen_target(self) -> str:
        """Return what the widget of the target means, as a view writes it."""
        given = str(self.target.value)
        if not self.app.is_language_model:
            return given
        if not given:
            return PREDICTION
        source = self.app.source
        assert isinstance(source, TextModel)
        index = token_target(source, given, len(source.tokenizer))
        return str(index)

    async def show(self, view: View) -> None:
        """Show another view, and write it into the address."""
        self.view = view
        self._fill_widgets()
        if self._write_address is not None:
            self._write_address(view.query())
        await self._draw()

    def _step(self, by: int) -> Callable[[Any], Coroutine[Any, Any, None]]:
        async def step(_: Any) -> None:
            self._problems = ()
            if self.view.example is None:
                await self.show(replace(self.view, page=self.view.page + by))
                return
            numbers = [self.app.data.examples[p].number for p in self._order]
            if self.view.example in numbers:
                place = numbers.index(self.view.example) + by
                if 0 <= place < len(numbers):
                    await self.show(replace(self.view, example=numbers[place]))

        return step

    async def _back(self, _: Any) -> None:
        self._problems = ()
        await self.show(replace(self.view, example=None))

    def _opener(self, number: int) -> Callable[[Any], Coroutine[Any, Any, None]]:
        async def open_example(_: Any) -> None:
            self._problems = ()
            await self.show(replace(self.view, example=number))

        return open_example

    async def _explain_own(self, _: Any) -> None:
        self._problems = ()
        given = self.own_input.value
        try:
            if self.app.data.kind == "text":
                self._own = check_text(given or "")
            else:
                self._own = await asyncio.to_thread(open_upload, given or b"")
        except LRPError as error:
            self._problems = (str(error),)
            self._say_problems()
            return
        self._say_problems()
        await self._draw_own()

    async def _close_own(self, _: Any) -> None:
        self._own = None
        self.own.objects = []
        self.own.visible = False

    async def _tick(self) -> None:
        """Look at the progress, and draw the list anew when it is complete."""
        if self._closed:
            return
        finished = self.app.predictions.finished
        self._say_status()
        if finished and self._ticking is not None:
            self._ticking.stop()
            self._ticking = None
        if self.view.example is not None:
            return
        enough = len(self._order) < self.view.size and self.app.predictions.done > len(
            self._order
        )
        if finished and not self._shown_complete:
            await self._draw()
        elif not finished and not self._order and enough:
            await self._draw()

    # --- what they see -----------------------------------------------------------

    async def _draw(self) -> None:
        self._round += 1
        this_round = self._round
        self._shown_complete = self.app.predictions.finished
        self._order = select(self.view, self.app.data, self.app.predictions)
        if self.view.example is None:
            await self._draw_list(this_round)
        else:
            await self._draw_example(this_round)

    async def _draw_list(self, this_round: int) -> None:
        size, count = self.view.size, len(self._order)
        pages = max(1, -(-count // size))
        if self.view.page > pages and self._shown_complete:
            self._problems = (
                *self._problems,
                f"There is no page {self.view.page}: the last one is {pages}.",
            )
        page = min(self.view.page, pages)
        if page != self.view.page and self._shown_complete:
            self.view = replace(self.view, page=page)
        first = (page - 1) * size
        places = self._order[first : first + size]
        self._say_status()
        self._say_problems()
        self.previous.disabled = page == 1
        self.next.disabled = page == pages
        said = "Nothing is predicted yet."
        if places:
            said = f"{first + 1:,} to {first + len(places):,} of {count:,}"
        elif self.app.predictions.done:
            said = "No example is like that."
        self.place.object = _soft(said)
        self.bar.objects = [self._row(self.previous, self.next, self.place)]
        bodies = {place: self._html(self._card(place)) for place in places}
        self.cards.objects = [
            self._box([body, self._open_button(place)], "card")
            for place, body in bodies.items()
        ]
        for place, body in bodies.items():
            html = await asyncio.to_thread(self._explained_card, place, self.view)
            if self._round != this_round:
                return  # the visitor has gone on
            body.object = html

    def _open_button(self, place: int) -> Any:
        number = self.app.data.examples[place].number
        corner = "position: absolute; top: .9rem; inset-inline-end: 1.1rem;"
        button = self._pn.widgets.Button(
            label="Open",
            stylesheets=[_css("widget.css"), f":host {{ {corner} }}"],
            margin=0,
            css_classes=[f"open-{number}"],
        )
        button.on_click(self._opener(number))
        return button

    async def _draw_example(self, this_round: int) -> None:
        app, view = self.app, self.view
        assert view.example is not None
        place = app.places[view.example]
        self._say_status()
        self._say_problems()
        among = self._order.index(place) if place in self._order else None
        self.previous.disabled = among in (None, 0)
        self.next.disabled = among is None or among == len(self._order) - 1
        said = f"{(among or 0) + 1:,} of {len(self._order):,}"
        self.place.object = "" if among is None else _soft(said)
        self.link.object = (
            f'<p><a href="{escape(view.query())}">Permanent link</a></p>'
            if self._write_address is not None
            else ""
        )
        self.bar.objects = [
            self._row(self.back, self.previous, self.next, self.place, self.link)
        ]
        above, below = self._html(""), self._html(_soft("Explaining …"))
        self.cards.objects = [above, below]
        await asyncio.to_thread(app.predictions.ensure, place)
        if self._round != this_round:
            return
        above.object = self._card(place, classes=10, with_value=False)
        html = await asyncio.to_thread(self._full_card, place, view)
        if self._round == this_round:
            below.object = html

    async def _draw_own(self) -> None:
        value, view = self._own, self.view
        result = self._html(_soft("Explaining …"))
        kind = self.app.data.kind
        name = "Your own text" if kind == "text" else "Your own picture"
        self.own.visible = True
        self.own.objects = [
            self._row(
                self._html(f'<h2 class="group">{name}</h2>', short=True),
                self.own_close,
            ),
            result,
        ]

        def explained() -> str:
            if view.target == LABEL:
                raise InputError(
                    "what you enter yourself has no true class: explain the prediction "
                    "or choose a class"
                )
            target = None if view.target == PREDICTION else int(view.target)
            found = self.app.explanations.get(value, view.method, target)
            return found._repr_html_()

        html = await asyncio.to_thread(_or_failure, explained)
        if not self._closed:
            result.object = html

    def _title(self, place: int) -> str:
        example = self.app.data.examples[place]
        return f"Example {example.number:,}" + (
            f": {example.name}" if example.name else ""
        )

    def _card(self, place: int, *, classes: int = 3, with_value: bool = True) -> str:
        """Return an example without its map."""
        example = self.app.data.examples[place]
        text = example.value if isinstance(example.value, str) else None
        return render_example(
            self._title(place),
            self.app.predictions[place],
            value=text if with_value else None,
            given_label=example.label,
            classes=classes,
        )

    def _explained_card(self, place: int, view: View) -> str:
        """Return an example with its map, or with why there is none."""
        example = self.app.data.examples[place]
        explanation, failure = None, ""
        try:
            explanation = self.app.explain(place, view.method, view.target)
        except LRPError as error:
            failure = str(error)
        except Exception as error:
            failure = _unexpected(error)
        prediction = self.app.predictions.ensure(place)
        return render_example(
            self._title(place),
            prediction,
            value=example.value if isinstance(example.value, str) else None,
            explanation=explanation,
            failure="" if prediction.failure else failure,
            given_label=example.label,
        )

    def _full_card(self, place: int, view: View) -> str:
        def explained() -> str:
            return self.app.explain(place, view.method, view.target)._repr_html_()

        return _or_failure(explained)

    def _say_problems(self) -> None:
        self.problems.visible = bool(self._problems)
        self.problems.object = "".join(map(_alert, self._problems))

    def _say_status(self) -> None:
        found, data = self.app.predictions, self.app.data
        done, count = found.done, len(found)
        parts = []
        if found.failure:
            said = f"The predictions ended after {done:,} of {count:,} examples"
            parts.append(_alert(f"{said}: {found.failure}"))
        elif done < count:
            so_far = (
                " The list is of these and is renewed at the end."
                if self.view.example is None and done
                else ""
            )
            parts.append(
                f"<p>Predicted {done:,} of {count:,} examples.{so_far}</p>"
                f"<progress value='{done}' max='{count}' aria-label='Predictions'>"
                "</progress>"
            )
        else:
            parts.append(f"<p>{escape(self.app.summary())}</p>")
        for note in (*data.notes, *found.labels.notes):
            parts.append(f"<p class='note'>{escape(note)}</p>")
        html = "".join(parts)
        if html != self.status.object:
            self.status.object = html


def _choose(menu: Any, value: Any) -> None:
    """Choose in a menu, to which a class without a name is added."""
    if value not in menu.options.values():
        menu.options = menu.options | {f"class {value}": value}
    menu.value = value


def _or_failure(explained: Callable[[], str]) -> str:
    """Return the HTML of an explanation, or why there is none."""
    try:
        return explained()
    except LRPError as error:
        return _alert(str(error))
    except Exception as error:
        return _alert(_unexpected(error))


def _soft(text: str) -> str:
    return f"<p class='soft'>{escape(text)}</p>"


def _alert(text: str) -> str:
    return f"<p class='error' role='alert'>{escape(text)}</p>"


def _unexpected(error: Exception) -> str:
    """Log an error that is not ours, and return what a visitor reads of it."""
    _LOG.error("an explanation failed", exc_info=error)
    reason = str(error).split("\n")[0][:300]
    return f"This cannot be explained: {type(error).__name__}: {reason}"


def _unique(names: dict[Any, str]) -> dict[str, Any]:
    """Return a menu; a name that stands for several classes gets their numbers."""
    counts: dict[str, int] = {}
    for name in names.values():
        counts[name] = counts.get(name, 0) + 1
    taken = {"Any", "The prediction", "The true class"}
    return {
        f"{name} ({key})" if counts[name] > 1 or name in taken else name: key
        for key, name in names.items()
    }


def _css(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")

"""The command ``captum-transformer-lrp``: explain, compare, check, diffmask, ...

Exit codes: 0; 1 where ``check`` finds that something does not hold, or ``explain`` left
out some of several inputs; 2 for anything that the caller can mend (a wrong option, an
unknown name, a missing file), with one line on stderr; 130 when interrupted. Results go
to stdout, progress and warnings to stderr.
``NO_COLOR`` is honoured (https://no-color.org).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ._listing import check_method_names, listed, table
from .errors import InputError, LRPError, suggestion

if TYPE_CHECKING:
    from rich.console import Console

    from .explaining import Failure
    from .explanation import Explanation
    from .models.texts import Text, Texts
    from .visualization.states import KeptMap, KeptTable

PROGRAM = "captum-transformer-lrp"

_EPILOG = """\
examples:
  %(prog)s explain "A warm and funny film."
  %(prog)s explain "A dull film." --target positive --output report.html
  %(prog)s explain ship.jpg --model vit_small_patch16_224 --output ship.png
  %(prog)s explain reviews.csv --model ./my-model --output all.json
  %(prog)s explain pictures/ --method chefer --output pictures.html
  %(prog)s explain --task question-answering --model ./my-reader \\
      --with question="Who sings?" --with context=@article.txt
  %(prog)s compare --text "A dull film." --methods attnlrp,saliency --output c.html
  %(prog)s check ./my-model --text "A warm and funny film."
  %(prog)s diffmask fit --data sentences.txt --output masks
  %(prog)s insights built-in reviews.csv
  %(prog)s diffmask explain --masks masks --text "A dull film." --output map.html
"""

_DIFFMASK = """\
DiffMask (arXiv 2004.14992) trains small networks that say, for each hidden state of a
model, which tokens can be replaced without changing the prediction. "fit" trains them
once for a model; "explain" then shows for any text what is kept, layer by layer.
"""

_DEMO_SENTENCES = (
    "The story is a little long, but the film is warm, clever and very funny.",
    "The camera is stunning, yet the dialogue is lifeless.",
    "The story is predictable and far too long.",
    "It is not a bad film, but I would not watch it again.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments (Sequence[str], optional): The arguments after the program's name.
            Default: those of the process

    Returns:
        *int*: The exit code.
    """
    parser = _parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help()
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without, say, Chinese
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has said what is wrong, or printed the help
        return stop.code if isinstance(stop.code, int) else 2
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = options.run(options)
    except (LRPError, OSError) as error:
        print(f"{PROGRAM}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 130
    return int(code or 0)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, and what may be meant."""

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse what is not known here, where the command's options are known."""
        found, rest = super().parse_known_args(*args, **kwargs)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        wrong = re.search(
            r"invalid choice: '(\S+)'|unrecognized arguments: (\S+)", message
        )
        if wrong is not None:
            name = wrong[1] or wrong[2]
            known = self._options() if name[0] == "-" else self._choices()
            near = suggestion(name.partition("=")[0], known)
            if near.startswith(" Did you mean"):
                message = message.partition(" (choose from")[0] + "." + near
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def _options(self) -> set[str]:
        return {word for action in self._actions for word in action.option_strings}

    def _choices(self) -> set[str]:
        return {word for action in self._actions for word in action.choices or ()}


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        from . import __version__

        print(f"{PROGRAM} {__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Explain what a transformer predicts, with layer-wise relevance "
        "propagation and attention.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the version and stop"
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    explain = commands.add_parser(
        "explain",
        help="explain a prediction for a text or a picture",
        description="Explain a prediction for texts or pictures. Of several, those "
        "that cannot be explained are named in the end, and the exit code is 1.",
    )
    explain.set_defaults(run=_explain)
    explain.add_argument(
        "given",
        nargs="*",
        metavar="INPUT",
        help="a text; a file of texts: one per line, or .csv, .tsv, .jsonl, .parquet; "
        "a picture; or a folder of pictures",
    )
    given = explain.add_mutually_exclusive_group()
    given.add_argument(
        "--text",
        action="append",
        help="the text; may be repeated; @FILE reads the texts of a file, and @@ "
        "stands for a text that starts with @",
    )
    given.add_argument(
        "--image",
        type=Path,
        action="append",
        metavar="FILE",
        help="the picture, or a folder of pictures; may be repeated",
    )
    _add_text_column(explain)
    explain.add_argument(
        "--label-column",
        metavar="NAME",
        help="the column of the true classes in a table (default: label or labels, if "
        "there is one)",
    )
    explain.add_argument(
        "--show",
        type=_count,
        default=20,
        metavar="N",
        help="how many explanations to print (default: %(default)s)",
    )
    explain.add_argument(
        "--method",
        default="attnlrp",
        metavar="NAME",
        help="what the command methods lists (default: %(default)s)",
    )
    explain.add_argument(
        "--top",
        type=_count,
        default=10,
        metavar="N",
        help="how many words or patches to list (default: %(default)s)",
    )
    explain.add_argument(
        "--task",
        metavar="NAME",
        help="what the model does, such as token-classification or question-answering "
        "(default: what its class says)",
    )
    explain.add_argument(
        "--with",
        dest="further",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a further input or option of the task, such as question='Who?', "
        "context=@FILE or candidate_labels='sport, music'; may be repeated",
    )
    explain.add_argument(
        "--option",
        dest="of_method",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the method, such as n_samples=500 or seed=1 of kernel-shap; "
        "may be repeated",
    )
    _add_common(explain)

    _add_compare(commands)
    _add_check(commands)
    _add_diffmask(commands)
    _add_insights(commands)

    methods = commands.add_parser("methods", help="list the methods")
    methods.set_defaults(run=_methods)

    rules = commands.add_parser(
        "rules", help="print the rule of each kind of operator in a method"
    )
    rules.set_defaults(run=_rules)
    rules.add_argument("--method", metavar="NAME", help="only this one (default: all)")

    demo = commands.add_parser(
        "demo", help="explain four sentences and a picture with the built-in models"
    )
    demo.set_defaults(run=_demo)
    demo.add_argument(
        "--output-dir", type=Path, default=Path("demo_output"), metavar="FOLDER"
    )
    return parser


def _add_text_column(command: argparse.ArgumentParser, *old: str) -> None:
    command.add_argument(
        "--text-column",
        *old,
        metavar="NAME",
        help="the column of the texts in a table; its number, from 1, if there is no "
        "header (default: text or sentence)",
    )


def _add_common(command: argparse.ArgumentParser) -> None:
    """Add what ``explain`` and ``compare`` have in common."""
    command.add_argument(
        "--model",
        metavar="NAME_OR_FOLDER",
        help="a Hugging Face or timm name, a local folder, or 'built-in' (the default)",
    )
    command.add_argument(
        "--target",
        help="the class to explain, by name or index; for a language model the next "
        "token, as text or id (default: the prediction)",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="also write a report: .html, .png, .pdf or .svg; or what Python's load() "
        "reads: .json, .safetensors or .parquet",
    )
    command.add_argument("--device", help="such as cpu or cuda (default: cpu)")
    command.add_argument("--no-color", action="store_true", help="print without colour")


def _add_compare(commands: Any) -> None:
    """Add ``compare``."""
    compare = commands.add_parser(
        "compare",
        help="explain one prediction with several methods, side by side",
        description="Explain one prediction with several methods and print how far "
        "their rankings agree, and what became of the score.",
    )
    compare.set_defaults(run=_compare)
    given = compare.add_mutually_exclusive_group(required=True)
    given.add_argument(
        "--text",
        help="the text; @FILE reads it from a file, and @@ stands for a text that "
        "starts with @",
    )
    given.add_argument("--image", type=Path, metavar="FILE", help="the picture")
    compare.add_argument(
        "--methods",
        metavar="NAMES",
        help="with commas between them, of what the command methods lists "
        "(default: attnlrp,cp-lrp,integrated-gradients,saliency,occlusion)",
    )
    _add_common(compare)


def _add_check(commands: Any) -> None:
    """Add ``check``."""
    check = commands.add_parser(
        "check",
        help="verify that the rules hold for a model",
        description="Verify that relevance propagation holds for a model: its scores "
        "are unchanged, relevance is conserved, batch and padding do not matter, and "
        "what does not hold is named. The exit code is 1 if something fails.",
    )
    check.set_defaults(run=_check)
    check.add_argument(
        "model",
        metavar="MODEL",
        help="a Hugging Face or timm name, a local folder, or 'built-in'",
    )
    check.add_argument("--text", help="what the model reads (default: a sentence)")
    check.add_argument(
        "--image", type=Path, metavar="FILE", help="what it sees (default: a drawing)"
    )
    check.add_argument("--device", help="such as cpu or cuda (default: cpu)")
    check.add_argument(
        "--trace",
        action="store_true",
        help="also print what every operator received and passed on",
    )


def _add_insights(commands: Any) -> None:
    """Add ``insights``."""
    insights = commands.add_parser(
        "insights",
        help="browse a model's predictions on a data set, with their explanations",
        description="Show the predictions for a file of texts or a folder of pictures "
        "in a browser, the wrong ones first, with their explanations. Only this "
        "machine reaches the page, unless --host says otherwise.",
    )
    insights.set_defaults(run=_insights)
    insights.add_argument(
        "model",
        metavar="MODEL",
        help="a Hugging Face or timm name, a local folder, or 'built-in'",
    )
    insights.add_argument(
        "data",
        type=Path,
        metavar="DATA",
        help="texts: one per line, or .csv, .tsv, .jsonl or .parquet; or a folder of "
        "pictures, in which the sub-folders are the classes",
    )
    _add_text_column(insights)
    insights.add_argument(
        "--label-column",
        metavar="NAME",
        help="the column of the true classes (default: label or labels, if any)",
    )
    insights.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="the methods on offer; the first one is chosen (default: all)",
    )
    insights.add_argument(
        "--limit",
        type=_at_least_one,
        default=2000,
        metavar="N",
        help="how many examples to show at most (default: %(default)s)",
    )
    insights.add_argument(
        "--batch-size",
        type=_at_least_one,
        default=16,
        metavar="N",
        help="how many examples to predict at once (default: %(default)s)",
    )
    insights.add_argument("--device", help="such as cpu or cuda (default: cpu)")
    insights.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on; there is no authentication "
        "(default: %(default)s)",
    )
    insights.add_argument(
        "--port",
        type=_count,
        default=5006,
        metavar="N",
        help="the port; 0 takes a free one (default: %(default)s)",
    )
    insights.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="a further address under which browsers reach the page, such as that of "
        "a proxy; may be repeated",
    )
    insights.add_argument(
        "--open", action="store_true", help="open the page in a browser"
    )


def _insights(options: argparse.Namespace) -> None:
    """Run ``insights`` until it is interrupted."""
    check_method_names(options.methods or ())
    from .insights import serve

    serve(
        options.model,
        options.data,
        text_column=options.text_column,
        label_column=options.label_column,
        methods=options.methods,
        limit=options.limit,
        batch_size=options.batch_size,
        device=options.device,
        host=options.host,
        port=options.port,
        origins=options.origin,
        open_browser=options.open,
    )


def _add_diffmask(commands: Any) -> None:
    """Add ``diffmask fit`` and ``diffmask explain``."""
    diffmask = commands.add_parser(
        "diffmask",
        help="train masks for a model and show which tokens each layer needs",
        description=_DIFFMASK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    diffmask_commands = diffmask.add_subparsers(required=True, metavar="command")

    fit = diffmask_commands.add_parser(
        "fit",
        help="train masks on texts",
        description="Train masks for a model on texts, without labels, and print how "
        "well they keep its predictions.",
    )
    fit.set_defaults(run=_fit_masks)
    fit.add_argument(
        "--model",
        metavar="NAME_OR_FOLDER",
        help="a Hugging Face name, a local folder, or 'built-in' (the default)",
    )
    fit.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="FILE",
        help="one text per line, or .tsv, .csv, .jsonl (also with a further .gz) or "
        ".parquet",
    )
    _add_text_column(fit, "--column")
    fit.add_argument(
        "--validation",
        type=Path,
        metavar="FILE",
        help="the texts that the report is made on (default: 512 of the data)",
    )
    fit.add_argument(
        "--output", required=True, type=Path, metavar="FOLDER", help="for the masks"
    )
    fit.add_argument(
        "--mode",
        choices=("hidden", "input"),
        default="hidden",
        help="mask each hidden state by itself, or the input by what the states up to "
        "one allow to know (default: %(default)s)",
    )
    fit.add_argument(
        "--recipe",
        choices=("fast", "paper"),
        default="fast",
        help="'paper' is the authors' own, which takes longer (default: %(default)s)",
    )
    fit.add_argument(
        "--steps", type=_at_least_one, metavar="N", help="(default: the recipe's)"
    )
    fit.add_argument(
        "--batch-size",
        type=_at_least_one,
        default=24,
        metavar="N",
        help="texts in each step (default: %(default)s)",
    )
    fit.add_argument(
        "--margin",
        type=_positive,
        metavar="NATS",
        help="what masks may cost on average (default: a few per cent of what "
        "masking everything costs)",
    )
    fit.add_argument(
        "--keep-special-tokens",
        action="store_true",
        help="never mask what the tokenizer adds, such as [CLS]",
    )
    fit.add_argument(
        "--seed", type=_count, default=0, metavar="N", help="(default: %(default)s)"
    )
    fit.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="write the training to this file, and go on from it if it is there",
    )
    fit.add_argument("--device", help="such as cpu or cuda (default: cpu)")

    explain = diffmask_commands.add_parser(
        "explain",
        help="show what is kept of texts",
        description="Show the probability that each token is kept, layer by layer; "
        "for several texts also the means over groups of tokens.",
    )
    explain.set_defaults(run=_explain_masks)
    explain.add_argument(
        "--masks", required=True, type=Path, metavar="FOLDER", help="written by 'fit'"
    )
    explain.add_argument(
        "--model",
        metavar="NAME_OR_FOLDER",
        help="the model of the masks (default: the one that 'fit' was given)",
    )
    explain.add_argument(
        "--text",
        action="append",
        required=True,
        help="the text; may be repeated; @FILE reads the texts of a file: one per "
        "line, or .csv, .tsv, .jsonl, .parquet; @@ stands for a text that starts "
        "with @",
    )
    explain.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="also write the maps: .html, .png, .pdf, .svg or .json",
    )
    explain.add_argument(
        "--groups",
        type=Path,
        metavar="FILE",
        help="groups of tokens for the means: a word, a tab and its group in each line "
        "(default: words, punctuation and special tokens)",
    )
    explain.add_argument(
        "--chart",
        type=Path,
        metavar="FILE",
        help="also write the means by group and layer: .html, .png, .pdf, .svg, .csv "
        "or .json",
    )
    explain.add_argument(
        "--show",
        type=_count,
        default=10,
        metavar="N",
        help="how many maps to print at most (default: %(default)s)",
    )
    explain.add_argument("--device", help="such as cpu or cuda (default: cpu)")
    explain.add_argument("--no-color", action="store_true", help="print without colour")


def _fit_masks(options: argparse.Namespace) -> None:
    """Run ``diffmask fit``."""
    from .masking import TextMasks, check_can_save, read_texts

    check_can_save()
    if options.output.exists() and not options.output.is_dir():
        raise InputError(f"{str(options.output)!r} is a file; expected a folder")
    if options.checkpoint is not None:
        _check_folder(options.checkpoint)
    texts = read_texts(options.data, options.text_column)
    validation = None
    if options.validation is not None:
        validation = read_texts(options.validation, options.text_column)
    options.output.mkdir(parents=True, exist_ok=True)  # fails now, not in the end
    masks = TextMasks.fit(
        texts,
        options.model,
        validation=validation,
        steps=options.steps,
        batch_size=options.batch_size,
        mode=options.mode,
        recipe=options.recipe,
        margin=options.margin,
        keep_special_tokens=options.keep_special_tokens,
        seed=options.seed,
        checkpoint=options.checkpoint,
        device=options.device,
    )
    folder = masks.save(options.output)
    print(masks.mask.history)
    print(f"Wrote {folder}")


def _explain_masks(options: argparse.Namespace) -> None:
    """Run ``diffmask explain``."""
    from .masking import TextMasks, read_groups
    from .report.saving import check_suffix
    from .report.terminal import print_blocks
    from .visualization.states import kept_by_group, save_maps
    from .visualization.states.groups import SUFFIXES as CHART_SUFFIXES
    from .visualization.states.maps import SUFFIXES as MAP_SUFFIXES

    for path, suffixes in (
        (options.output, MAP_SUFFIXES),
        (options.chart, CHART_SUFFIXES),
    ):
        if path is not None:
            check_suffix(path, suffixes)
            _check_folder(path)
    console = _console(color=not options.no_color)
    texts = [row.text for row in _texts(options.text).rows]
    groups = None if options.groups is None else read_groups(options.groups)
    masks = TextMasks.load(options.masks, options.model, device=options.device)
    maps: list[KeptMap] = masks.maps(texts)
    table: KeptTable | None = None
    if groups is not None:
        name = options.groups.stem.replace("_", " ")
        table = kept_by_group(maps, groups, name=name)
    elif len(maps) > 1 or options.chart is not None:
        table = kept_by_group(maps)
    for number, one in enumerate(maps[: options.show]):
        if number:
            console.rule(style="dim")
        print_blocks(one.blocks(), console)
    if len(maps) > options.show:
        print(f"{options.show} of {len(maps)} maps are printed; see --show")
    if table is not None:
        print(f"\n{table.title}\n{table}")
    if options.output is not None:
        print(f"Wrote {save_maps(maps, options.output, table=table)}")
    if options.chart is not None and table is not None:
        print(f"Wrote {table.save(options.chart)}")


def _explain(options: argparse.Namespace) -> int:
    """Run ``explain``; 1 if some of several inputs cannot be explained."""
    check_method_names([options.method])
    from .explaining import explain
    from .explanation import Explanation, check_suffix
    from .explanations import Explanations
    from .keeping import save
    from .report.terminal import print_blocks

    if options.output is not None:
        check_suffix(options.output)
        _check_folder(options.output)
    console = _console(color=not options.no_color)
    failures: list[Failure] = []
    if options.task is not None or options.further:
        found, count = _answers(options, failures)
    else:
        texts, images = _inputs(options)
        given: dict[str, Any] = {"image": images} if images else {"text": texts}
        count = len(images or texts.rows)
        found = explain(
            **given,
            model=options.model,
            method=options.method,
            target=_target(options.target),
            device=options.device,
            options=_named(options.of_method, "--option"),
            on_error=failures.append if count > 1 else None,
        )
        found = found if isinstance(found, Explanations) else _flat(found)
    for number, explanation in enumerate(found[: options.show]):
        if number:
            console.rule(style="dim")
        top = {"top": options.top} if isinstance(explanation, Explanation) else {}
        print_blocks(explanation.blocks(**top), console)
    alike = isinstance(found, Explanations)
    if alike and (len(found) > options.show or found.accuracy is not None):
        console.rule(style="dim")
        print_blocks(found.blocks(), console)
    if len(found) > options.show:
        print(f"{options.show} of {len(found):,} explanations are printed; see --show")
    if options.output is not None and found:
        one = len(found) == count == 1
        written = save(found[0] if one else found, options.output)
        print(f"Wrote {written}")
    for failure in failures:
        print(f"{PROGRAM}: error: input {failure}", file=sys.stderr)
    if failures:
        left_out = f"{len(failures)} of {count} inputs could not be explained"
        print(f"{PROGRAM}: {left_out}", file=sys.stderr)
    return 1 if failures else 0


def _answers(options: argparse.Namespace, failures: list[Failure]) -> tuple[Any, int]:
    """Explain what a pipeline answers; return that, and how many inputs there were."""
    from .explaining import Explainer, Failure

    explainer = Explainer(
        options.model,
        options.method,
        task=options.task,
        device=options.device,
        options=_named(options.of_method, "--option"),
    )
    further = _named(options.further, "--with")
    inputs: list[dict[str, Any]] = [{}]
    if options.given or options.text or options.image:
        texts, images = _inputs(options)
        inputs = [{"image": str(path)} for path in images]
        inputs = inputs or [{"text": row.text} for row in texts.rows]
    found = []
    for number, given in enumerate(inputs, 1):
        try:
            answer = explainer(**given, target=_target(options.target), **further)
        except InputError as error:
            if len(inputs) == 1:
                raise
            what = next(iter(given.values()))
            failures.append(Failure(number=number, given=what, error=error))
            continue
        for note in getattr(answer, "notes", ()) if answer == [] else ():
            print(note)
        found += _flat(answer)
    return found, len(inputs)


def _flat(found: Any) -> list[Any]:
    """Return results in one list, however they were nested."""
    if isinstance(found, list):
        return [one for each in found for one in _flat(each)]
    return [found]


def _named(given: Sequence[str], flag: str) -> dict[str, Any]:
    """Return what was given as ``NAME=VALUE`` behind a flag, each by its name."""
    return dict(_name_and_value(one, flag) for one in given)


def _name_and_value(given: str, flag: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    if not (equals and name.strip().isidentifier()):
        raise InputError(f"expected {flag} NAME=VALUE, got {given!r}")
    if value.startswith("@") and not value.startswith("@@"):
        path = Path(value[1:])
        if not path.is_file():
            raise InputError(f"there is no file {str(path)!r} to read {name} from")
        return name.strip(), path.read_text(encoding="utf-8")
    value = value.removeprefix("@")
    try:
        return name.strip(), json.loads(value)  # a number, a list, true
    except ValueError:
        return name.strip(), value


def _compare(options: argparse.Namespace) -> None:
    """Run ``compare``."""
    given = (options.methods or "").split(",")
    methods: Sequence[str] = [name.strip() for name in given if name.strip()]
    check_method_names(methods)
    from .comparison import DEFAULT_METHODS, compare
    from .explanation import check_suffix
    from .report.terminal import print_blocks

    if options.output is not None:
        check_suffix(options.output)
        _check_folder(options.output)
    if options.methods is None:
        methods = DEFAULT_METHODS
    console = _console(color=not options.no_color)
    found = compare(
        None if options.text is None else _one_text(options.text),
        options.image,
        methods=methods,
        model=options.model,
        target=_target(options.target),
        device=options.device,
    )
    print_blocks(found.blocks(), console)
    if options.output is not None:
        print(f"Wrote {found.save(options.output)}")


def _check(options: argparse.Namespace) -> int:
    """Run ``check``; 0 if everything holds, 1 if not."""
    from .checking import check
    from .models.any_model import load_any_model

    loaded = load_any_model(
        options.model, text=options.text, image=options.image, device=options.device
    )
    report = check(loaded.module, loaded.inputs)
    print(f"{loaded.name}, explained for {loaded.shown}")
    if options.trace and report.trace is not None:
        print(report.trace)
    print(report)
    return 0 if report.passed else 1


def _methods(options: argparse.Namespace) -> None:
    """Run ``methods``."""
    print(table(listed()))


def _rules(options: argparse.Namespace) -> None:
    """Run ``rules``."""
    if options.method is not None:
        check_method_names([options.method])
    from .attribution import methods
    from .core.composites import Composite

    if options.method is None:
        users: dict[Composite, list[str]] = {}
        for name in methods:
            table = methods[name].composite
            if table is not None:
                users.setdefault(table, []).append(name)
        print("\n\n".join(f"Methods: {', '.join(u)}\n{t}" for t, u in users.items()))
        return
    method = methods[options.method]
    table, weights = method.composite, "attention" in method.description.needs
    if weights or table is None:
        print(method.summary)
    if weights and table is not None and table.rows:
        print("The relevance of attention maps is found with this table:")
    elif weights or table is None:
        other = "attention maps and torch's own gradient"
        alone = "torch's own gradient, the model alone, or not known without a model"
        print(f"  (no rules: {other if weights else alone})")
        return
    print(table)


def _demo(options: argparse.Namespace) -> None:
    """Run ``demo``: two built-in models, one report."""
    from .explaining import explain
    from .explanation import save_explanations
    from .models.pictures import draw_ship
    from .report.terminal import print_blocks

    folder: Path = options.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    console = _console(color=True)
    picture = draw_ship()
    picture.save(folder / "ship.png")
    texts = explain(_DEMO_SENTENCES)
    image = explain(image=picture)
    found: list[Explanation] = [*texts, image]
    for explanation in found:
        print_blocks(explanation.blocks(top=5), console)
        console.rule(style="dim")
    save_explanations(
        found,
        folder / "index.html",
        title="What two small transformers look at",
        lead="Four sentences and a drawn ship, explained with AttnLRP by the models "
        "that come with captum_transformer_lrp. They are small and make mistakes; an "
        "explanation shows why a model answers as it does, right or wrong.",
    )
    save_explanations([texts[0], image], folder / "explanation.png")
    save_explanations(found, folder / "explanations.json")
    for name in ("explanation.png", "explanations.json"):
        print(f"Wrote {folder / name}")
    print(f"Open  {folder / 'index.html'}")


def _inputs(options: argparse.Namespace) -> tuple[Texts, list[Path]]:
    """Return the texts or the pictures that ``explain`` was given."""
    from .models.pictures import is_picture, pictures_in

    texts: list[str] = list(options.text or ())
    images: list[Path] = list(options.image or ())
    for given in options.given:
        path = Path(given)
        named = os.path.exists(given)  # False for what is too long for a name
        if named and (path.is_dir() or is_picture(path)):
            images.append(path)
        else:
            texts.append(f"@{given}" if named else given)
    if texts and images:
        raise InputError("explain takes texts or pictures, and was given both")
    if not texts and not images:
        raise InputError(
            'expected a text, a file of texts or a picture, got none: explain "A warm '
            'and funny film."'
        )
    found = _texts(texts, options.text_column, options.label_column)
    expanded = [pictures_in(p) if p.is_dir() else [p] for p in images]
    return found, [p for each in expanded for p in each]


def _texts(
    given: Sequence[str], column: str | None = None, label: str | None = None
) -> Texts:
    """Return the texts that ``--text`` names, reading ``@FILE``."""
    from .models.texts import Text, Texts

    rows: list[Text] = []
    said: list[str] = []
    for text in given:
        if text.startswith("@") and not text.startswith("@@"):
            found = _read_file(Path(text[1:]), column, label)
            rows += found.rows
            said.append(found.said)
        else:
            rows.append(Text(number=1, text=text.removeprefix("@")))
    for option, name in (("--text-column", column), ("--label-column", label)):
        if name is not None and not said:
            raise InputError(f"{option} belongs to a table of texts")
    return Texts(name="texts", rows=tuple(rows), said="; ".join(said))


def _read_file(path: Path, column: str | None, label: str | None) -> Texts:
    """Return the texts of a file, and say which they are."""
    from .models.texts import read_texts

    if not path.is_file():
        raise InputError(
            f"there is no file {str(path)!r} to read texts from; write '@@' for a text "
            "that starts with '@'"
        )
    found = read_texts(path, text_column=column, label_column=label)
    print(found.said, file=sys.stderr)
    return found


def _one_text(given: str) -> str:
    """Return the text that ``--text`` of ``compare`` names."""
    rows = _texts([given]).rows
    if len(rows) > 1:
        raise InputError(
            f"compare explains one text, and {given[1:]!r} holds {len(rows)}; pass "
            "one of them, or use the command explain"
        )
    return rows[0].text


def _check_folder(path: Path) -> None:
    """Raise unless a file can be written at this path; now, not after the work."""
    folder = path.resolve().parent
    if not folder.is_dir():
        raise InputError(f"there is no folder {str(path.parent)!r}")
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; expected a file")
    if not os.access(folder, os.W_OK):
        raise InputError(f"nothing can be written into the folder {str(folder)!r}")


def _target(given: str | None) -> int | str | None:
    """Return an index for digits, else the name itself."""
    if given is not None and given.isascii() and given.isdigit():
        return int(given)
    return given


def _count(given: str) -> int:
    """Return a whole number of at least 0, for argparse."""
    number = int(given)
    if number < 0:
        raise argparse.ArgumentTypeError("expected 0 or more")
    return number


def _at_least_one(given: str) -> int:
    """Return a whole number of at least 1, for argparse."""
    number = int(given)
    if number < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


def _positive(given: str) -> float:
    """Return a finite number above 0, for argparse."""
    number = float(given)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("expected a number above 0")
    return number


def _console(*, color: bool) -> Console:
    """Return a console on stdout; colour needs a terminal and no ``NO_COLOR``."""
    from ._packages import require

    require("rich")
    from rich.console import Console

    wanted = color and not os.environ.get("NO_COLOR")
    return Console(
        file=sys.stdout,
        no_color=not wanted,
        color_system="auto" if wanted else None,
        highlight=False,
        width=None if sys.stdout.isatty() else 88,
    )


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line, without a place in the code."""
    print(f"{PROGRAM}: warning: {' '.join(str(message).split())}", file=sys.stderr)

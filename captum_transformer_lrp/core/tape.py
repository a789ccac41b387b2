"""The engine's memory of one forward pass: what made each tensor that matters.

Each tensor that carries relevance keeps a record of the operator that made it and of
the records of its operands. That answers three questions without a look at autograd's
graph:

* *Does a tensor carry relevance?* It does if it has a record of this pass, that is, if
  it descends from the explained inputs. A tensor that only requires a gradient (a
  parameter, weights that were computed outside, a cache that was handed in) is a
  constant.
* *What is behind it?* A gate, the sum of another tensor, a softmax, an input: see
  :mod:`.gates`.
* *Did anything run unseen?* Torch numbers the nodes of a thread's graph. Between two
  operators that the engine sees no node may be made; where one was (``torch.vmap``, a
  scripted function, a ``torch.autograd.Function``), the numbers have a gap. A tensor
  that requires a gradient and has no record was made unseen too, if its graph leads
  back to an explained input. What is met in a gap on the way back from the score has no
  rule, and is reported.

Records hold no nodes, and no tensors but those with which a linear rule is merged with
a norm behind it, so that what the rules cut off is freed as ever.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._torch import is_wrapped, next_node_number, revive

if TYPE_CHECKING:
    from .table import Operator


class Made:
    """How a tensor came to be.

    Attributes:
        operator (Operator, Unlisted or None): what made it; None where relevance
            starts.
        parents (sequence of Made): of the operands that carry relevance, in order.
        tape (Tape): of the pass that made it.
        note (Any): a small value that the rule left, see :attr:`~.call.Call.note`.
        source (tuple or None): a weak reference to the tensor and its shape, where a
            function of it was taken, see :mod:`..known.joins`.
        root (Made, bool or None): the record of the tensor that it is a function of at
            last, once that was asked; False if it is that of none.
    """

    __slots__ = ("note", "operator", "parents", "root", "source", "tape")

    def __init__(
        self,
        operator: Operator | Unlisted | None,
        parents: Sequence[Made],
        tape: Tape,
        note: Any = None,
    ) -> None:
        self.operator = operator
        self.parents = parents
        self.tape = tape
        self.note = note
        self.source: tuple[weakref.ref[Tensor], torch.Size] | None = None
        self.root: Made | bool | None = None

    def __repr__(self) -> str:
        name = "start" if self.operator is None else self.operator.name
        return f"Made({name}, {len(self.parents)} parent(s))"


@dataclass(frozen=True)
class Unlisted:
    """The maker of a record that is no operator of a table.

    Attributes:
        name (str): the class of a module that is treated as one operator.
        kind (str or None): None.
    """

    name: str
    kind: str | None = None


UNSEEN, VIEW = Unlisted("unseen"), Unlisted("view", "structural")
#: into a part of a tensor
WRITE = Unlisted("write", "structural")


def note(tensor: Tensor, made: Made) -> None:
    """Keep a record at a tensor, with the version of the values that it is about."""
    tensor._made = made, tensor._version  # type: ignore[attr-defined]


def alive(reference: weakref.ref[Tensor]) -> Tensor | None:
    """Return the tensor of a weak reference, None if it is gone.

    Torch wants to hear of it (see :class:`torch.utils.weak.TensorWeakRef`): a tensor
    that only C++ still holds is given back to python.
    """
    tensor = reference()
    if tensor is not None:
        revive(tensor)
    return tensor


class Tape:
    """The records of one pass.

    Attributes:
        cuts (bool): constants have records too, that rules made of what carries
            relevance, or conditions of it, see :mod:`..known.joins`.
    """

    def __init__(self) -> None:
        self.cuts = False
        self.gaps: list[tuple[int, int]] = []
        self.seen_to = next_node_number()
        self.starts: dict[int, Made] = {}  # of the leaves, by their ids
        self._constants: dict[int, weakref.ref[Tensor]] = {}
        #: node of a tensor that no operator seen had returned -> the module whose code
        #: met it, and what wrote into it unseen, if that was it
        self.met: dict[Any, tuple[str, str]] = {}

    # ------------------------------------------------------------------- records

    def of(self, tensor: Tensor) -> Made | None:
        """Return the record of a tensor; None if it carries no relevance."""
        found = getattr(tensor, "_made", None)
        if found is None or found[0].tape is not self or found[1] != tensor._version:
            return None
        made: Made = found[0]
        return made

    def start(
        self, leaf: Tensor, tensor: Tensor, operator: Operator | Unlisted | None = None
    ) -> Made:
        """Say that relevance starts at a leaf of the graph.

        Args:
            leaf (Tensor): must live as long as the tape.
            tensor (Tensor): a copy of it; or the leaf, for ones of identifiers.
            operator (Unlisted, optional): what made it. Default: none, it is an input
        """
        made = self.starts[id(leaf)] = Made(operator, (), self)
        if tensor is not leaf:
            note(tensor, made)
        self.seen_to = next_node_number()
        return made

    def same(self, new: Any, old: Any) -> Any:
        """Give a copy or an alias that the engine made the record of its original."""
        made = self.of(old)
        if made is not None:
            note(new, made)
        self.seen_to = next_node_number()
        return new

    def close(self) -> None:
        """Note a gap, if nodes were made since the last operator."""
        now = next_node_number()
        if now != self.seen_to:
            self.gaps.append((self.seen_to, now))
            self.seen_to = now

    # ---------------------------------------------------------- what has no record

    def meet(self, tensor: Tensor, described: Callable[[], str]) -> Made | None:
        """Return the record of a tensor that none of the operators seen returned.

        Args:
            tensor (Tensor): requires a gradient.
            described (Callable): returns the name of the module whose code runs.

        Returns:
            A new record if its graph leads back to an explained input, None if not:
            then it is a constant.
        """
        if is_wrapped(tensor):
            return None  # inside vmap or another transform; what comes out is met
        known = self._constants.get(id(tensor))
        if known is not None and alive(known) is tensor:
            return None
        base = tensor._base
        behind = None if base is None else self.of(base)
        if behind is not None:  # a view of what was written into since
            made = Made(VIEW, [behind], self)
        else:
            self.close()
            former, written = getattr(tensor, "_made", None), ""
            if former is not None and former[0].tape is self:
                shape = tuple(tensor.shape)
                written = f"a write in place into a tensor of shape {shape}"
            elif not self.started(tensor):
                self._constants[id(tensor)] = weakref.ref(tensor)
                return None
            self.met[tensor.grad_fn] = described(), written
            made = Made(UNSEEN, (), self)
        note(tensor, made)
        return made

    def started(self, output: Tensor) -> list[Made]:
        """Return the records of the explained leaves that a graph leads back to."""
        leaves = (id(getattr(node, "variable", None)) for node in walk(output.grad_fn))
        return [self.starts[leaf] for leaf in leaves if leaf in self.starts]


def walk(node: Any, inside: Callable[[Any], bool] | None = None) -> Iterable[Any]:
    """Yield a node of the graph and those behind it, each once.

    Args:
        node (Node or None): where to start.
        inside (Callable, optional): go on only behind nodes for which this is true,
            and yield only these. Default: all
    """
    pending = [] if node is None else [node]
    seen = set(pending)
    while pending:
        current = pending.pop()
        if inside is not None and not inside(current):
            continue
        yield current
        for parent, _ in current.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                pending.append(parent)

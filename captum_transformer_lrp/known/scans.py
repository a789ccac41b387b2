"""Scans: the recurrences of state space models and linear attention, as one operator.

Token by token a scan is ``S_t = a_t S_{t-1} + v_t k_t``, ``y_t = S_t q_t``. Models
compute it by chunks: as attention within a chunk, and as this recurrence from one to
the next. So the number of products between a token and an output depends on where the
borders fall, and with it the shares of rules that take one product after the other.
:func:`linear_scan` is the whole recurrence as one operator of the kind ``"scan"``,
which a composite gives a rule (:mod:`..core.rules.attention`): its relevance is made of
torch's own gradient, which chunks do not change.

Torch shows an engine no python functions. While one runs, those in :data:`SCANS` have
code that asks it first, as that of flex attention (:mod:`.flex_attention`). What is
around the recurrence (step sizes, norms, a skip connection) is written out here, in
operators that have rules of their own. Composites without a row for scans see the
operators of the model's function, chunk by chunk, as they see others.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function

from .._nested import tensors_in
from ..core.installed import WhileUsed, engine_here

Factors = tuple[Tensor, ...]
#: takes factors, decays and a state, returns the output and the last state
Run = Callable[[Factors, Factors, Tensor | None], tuple[Tensor, Tensor | None]]


def linear_scan(
    run: Run, factors: Factors, decays: Factors = (), state: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return ``run(factors, decays, state)``, to an engine one operator.

    A model of your own calls it around its recurrence. Nothing in ``run`` meets a rule.

    Args:
        run (Callable): computes the recurrence. It reads no tensor that carries
            relevance but its arguments.
        factors (tuple of Tensor): what is multiplied: first the values, of which the
            output is a linear function; last the queries, which the state does not
            depend on; keys, step sizes and such between them.
        decays (tuple of Tensor, optional): exponents of what the state is multiplied
            with from token to token, and what else is no factor. Default: none
        state (Tensor, optional): the state before the first token, of which the output
            is a linear function as well. Default: None

    Returns:
        The output and the last state, or None for it.
    """
    if not _is_one_operator():
        return run(factors, decays, state)
    given = tuple(tensors_in((factors, decays, state)))
    found: tuple[Tensor, Tensor | None] = handle_torch_function(
        OPERATOR, given, run, factors, decays, state
    )
    return found


def _is_one_operator() -> bool:
    """Whether a scan is one operator here, with a rule of its own."""
    engine = engine_here()
    if engine is None or not engine.sees:
        return False
    operator = engine.table.operator(OPERATOR)
    return operator.rule is not None and not operator.plain


def _linear_scan(
    run: Run, factors: Factors, decays: Factors, state: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    return run(factors, decays, state)


#: what an engine sees of :func:`linear_scan`
OPERATOR = _linear_scan
OPERATOR.__name__ = "linear_scan"


# ------------------------------------------------------------------ what models compute


def mamba2(
    usual: Callable[..., Any],
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    return_final_states: bool = False,
    **options: Any,
) -> Any:
    """Return ``S_t = exp(A dt_t) S_{t-1} + dt_t x_t B_t``, ``y_t = S_t C_t + D x_t``.

    Dao and Gu (2024), arXiv 2405.21060. Factors are ``x``, ``B``, ``dt`` and ``C``; a
    step size is an exponent as well.

    Args:
        usual (Callable): the model's function.
        hidden_states (Tensor): ``x``, shape ``(batch, tokens, heads, features)``.
        dt (Tensor): step sizes, shape ``(batch, tokens, heads)``.
        A (Tensor): shape ``(heads,)``.
        B (Tensor): keys, shape ``(batch, tokens, groups, size of the state)``.
        C (Tensor): queries, likewise.
        D (Tensor, optional): weight of the skip connection, shape ``(heads,)``.
        dt_bias (Tensor, optional): is added to the step sizes, shape ``(heads,)``.
        initial_states (Tensor, optional): the state before the first token.
        dt_softplus (bool, optional): softplus is taken of the step sizes.
        dt_limit (tuple of float, optional): bounds of the step sizes.
        return_final_states (bool, optional): return the last state too.
        **options (Any): go to the model's function: the size of chunks.
    """
    if dt_bias is not None:
        dt = dt + dt_bias.to(dt.dtype)
    if dt_softplus:
        dt = functional.softplus(dt)
    dt = torch.clamp(dt, min=dt_limit[0], max=dt_limit[1])

    def run(
        factors: Factors, decays: Factors, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        x, keys, steps, queries = factors
        found = usual(
            x,
            steps,
            *decays,
            keys,
            queries,
            initial_states=state,
            dt_limit=dt_limit,
            return_final_states=return_final_states,
            **options,
        )
        return found if return_final_states else (found, None)

    output, last = linear_scan(run, (hidden_states, B, dt, C), (A,), initial_states)
    if D is not None:
        output = output + D[..., None] * hidden_states.to(output.dtype)
    return (output, last) if return_final_states else output


def gated_delta(
    usual: Callable[..., Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return ``S_t q_t``: what a state had at ``k_t`` is moved towards ``v_t``.

    ``S_t = exp(g_t) S_{t-1} (1 - beta_t k_t k_t) + beta_t v_t k_t``:
    Yang, Kautz, Hatamizadeh (2024), arXiv 2412.06464; with a decay for each feature of
    the keys, Kimi Linear (2025), arXiv 2510.26692. Factors are ``v``, ``k``, ``beta``
    and ``q``. Queries and keys are normalised outside of the scan.

    Args:
        usual (Callable): the model's function.
        query (Tensor): shape ``(batch, tokens, heads, features)``.
        key (Tensor): likewise.
        value (Tensor): shape ``(batch, tokens, heads, features of values)``.
        g (Tensor): logarithms of the decays, ``(batch, tokens, heads)``, and for each
            feature in Kimi's.
        beta (Tensor): how much of a token is written, ``(batch, tokens, heads)``.
        initial_state (Tensor, optional): the state before the first token.
        output_final_state (bool, optional): return the last state too.
        use_qk_l2norm_in_kernel (bool, optional): normalise queries and keys.
        **options (Any): go to the model's function: the size of chunks.
    """
    dtype = query.dtype
    if use_qk_l2norm_in_kernel:
        norm = usual.__globals__["l2norm"]
        # rounded as in the model's function, whose tensors are contiguous
        query, key = (
            norm(x.to(torch.float32).contiguous(), dim=-1, eps=1e-6)
            for x in (query, key)
        )

    def run(
        factors: Factors, decays: Factors, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        values, keys, written, queries = factors
        found: tuple[Tensor, Tensor | None] = usual(
            queries,
            keys,
            values,
            *decays,
            written,
            initial_state=state,
            output_final_state=output_final_state,
            **options,
        )
        return found

    output, last = linear_scan(run, (value, key, beta, query), (g,), initial_state)
    return output.to(dtype), last


def mlstm(
    usual: Callable[..., Any],
    self: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    igate: Tensor,
    fgate: Tensor,
    c_initial: Tensor | None = None,
    n_initial: Tensor | None = None,
    m_initial: Tensor | None = None,
    return_last_states: bool | None = None,
    mode: str | None = None,
) -> Any:
    """Return ``C_t q_t / max(|n_t q_t|, 1)`` of an xLSTM, all tokens at once.

    ``C_t = f_t C_{t-1} + i_t v_t k_t``, ``n_t = f_t n_{t-1} + i_t k_t`` with ``f =
    sigmoid(fgate)``, ``i = exp(igate)``: Beck et al. (2024), arXiv 2405.04517, Eq. 19
    to 27. Factors are ``v``, ``k`` and ``q``. The denominator is a constant, as in any
    quotient, and so is the largest exponent, by which both are divided. Equals the
    model's function up to rounding; memory grows with the square of the tokens.

    Args:
        usual (Callable): the model's function, which is not called.
        self (Module): the model's ``xLSTMBackend``.
        query (Tensor): shape ``(batch, heads, tokens, features)``.
        key (Tensor): likewise.
        value (Tensor): shape ``(batch, heads, tokens, features of values)``.
        igate (Tensor): shape ``(batch, heads, tokens)``.
        fgate (Tensor): likewise.
        c_initial (Tensor, optional): the state before the first token.
        n_initial (Tensor, optional): that of the denominator.
        m_initial (Tensor, optional): its largest exponent.
        return_last_states (bool, optional): return the three last states too.
        mode (str, optional): of the backend, ``"inference"`` returns them always.
    """
    mode = self.config.mode if mode is None else mode
    if return_last_states is None:
        return_last_states = self.config.return_last_states
    before = None if c_initial is None else (n_initial, m_initial)
    ends: list[Tensor] = []

    def run(
        factors: Factors, decays: Factors, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        output, *states = _mlstm(factors, decays, state, before, self.config.eps)
        ends[:] = states[1:]
        return output, states[0]

    factors = (value, key, query)
    decays = (igate, functional.logsigmoid(fgate))
    output, last = linear_scan(run, factors, decays, c_initial)
    if "train" in mode and not return_last_states:
        return output
    return output, (last, *ends)


def _mlstm(
    factors: Factors, decays: Factors, state: Tensor | None, before: Any, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return outputs and last states of :func:`mlstm`, the denominators constant."""
    value, key, query = factors
    wide = torch.promote_types(value.dtype, torch.float32)
    v, k, q, i, f = (x.to(wide) for x in (value, key, query, *decays))
    q = q * q.shape[-1] ** -0.5
    since = f.cumsum(-1)  # logarithm of the decay since the start
    later = torch.ones(2 * since.shape[-1:], dtype=torch.bool, device=f.device).triu(1)
    exponents = since[..., :, None] - since[..., None, :] + i[..., None, :]
    exponents = exponents.masked_fill(later, -math.inf)
    first = since  # exponent of the state before, whose largest one is 0 at the start
    n_0 = c_0 = None
    if state is not None:
        n_0, m_0 = (s.detach().to(wide) for s in before)
        first, c_0 = since + m_0, state.to(wide)
    largest = torch.maximum(exponents.amax(-1), first).detach()
    weights = (exponents - largest[..., None]).exp()
    kept = (first - largest).exp()[..., None]
    pattern = (q @ k.mT) * weights
    numerator, sums = pattern @ v, pattern.sum(-1, keepdim=True)
    c, n = (weights[..., -1:, :] * k.mT) @ v, (weights[..., -1:, :] @ k).squeeze(-2)
    if c_0 is not None and n_0 is not None:
        numerator = numerator + kept * (q @ c_0)
        sums = sums + kept * (q @ n_0[..., None])
        c = c + kept[..., -1:, :] * c_0
        n = n + kept[..., -1, :] * n_0
    denominator = torch.maximum(sums.abs(), (-largest[..., None]).exp()) + eps
    output = (numerator / denominator.detach()).to(value.dtype)
    return output, c, n.detach(), largest[..., -1:]


# ------------------------------------------------------------ in the place of functions

_MODELS = "transformers.models.{0}.modeling_{0}."


def _in(models: str, functions: str, written: Callable[..., Any]) -> dict[str, Any]:
    return {
        _MODELS.format(model) + function: written
        for model in models.split()
        for function in functions.split()
    }


#: qualified name of a python function -> what is written in its place. Named, because
#: no operator shows that it belongs to a scan
SCANS: dict[str, Callable[..., Any]] = {
    **_in(
        "mamba2 bamba falcon_h1 granitemoehybrid nemotron_h zamba2",
        "mamba2_chunk_scan",
        mamba2,
    ),
    **_in(
        "qwen3_next qwen3_5 qwen3_5_moe qwen4_exp olmo_hybrid",
        "torch_chunk_gated_delta_rule torch_recurrent_gated_delta_rule",
        gated_delta,
    ),
    **_in(
        "kimi_linear glm5_next bailing_hybrid",
        "chunk_kimi_delta_attention recurrent_kimi_delta_attention",
        gated_delta,
    ),
    **_in("xlstm", "xLSTMBackend.forward", mlstm),
}


def _asking(*args: Any, **kwargs: Any) -> Any:
    """The code of a model's function while an engine runs: it asks who calls."""
    import sys

    import torch

    # it runs among the globals of the function's module
    here = sys.modules["captum_transformer_lrp.known.scans"]
    name = "the function"
    if torch.compiler.is_dynamo_compiling():
        return here.SCANNED.usual[name](*args, **kwargs)
    return here.SCANNED.ask(name, args, kwargs)


class _InPlace(WhileUsed):
    """Lets the functions in :data:`SCANS` ask first whether they are one operator."""

    def __init__(self) -> None:
        super().__init__()
        #: qualified name -> a function of the code that it had
        self.usual: dict[str, types.FunctionType] = {}
        #: functions whose code was changed, and the same
        self._changed: list[tuple[types.FunctionType, types.FunctionType]] = []

    def install(self, user: Any) -> None:
        """Change the code of those that are loaded."""
        for name in SCANS:
            function = _loaded(name)
            if function is None or _is_asking(function):
                continue
            self.usual[name] = usual = types.FunctionType(
                function.__code__,
                function.__globals__,
                function.__name__,
                function.__defaults__,
            )
            usual.__kwdefaults__ = function.__kwdefaults__
            self._changed.append((function, usual))
            code = _asking.__code__
            constants = (name if c == "the function" else c for c in code.co_consts)
            function.__code__ = code.replace(co_consts=tuple(constants))

    def remove(self) -> None:
        """Give the functions their code back."""
        for function, usual in self._changed:
            if _is_asking(function):
                function.__code__ = usual.__code__
        self._changed.clear()

    def ask(self, name: str, args: Any, kwargs: Any) -> Any:
        """Return what a function returns, as one operator where an engine wants it."""
        usual = self.usual[name]
        if not _is_one_operator():
            return usual(*args, **kwargs)
        given = inspect.signature(usual).bind(*args, **kwargs).arguments
        further = given.pop("kwargs", {})
        return SCANS[name](usual, **given, **further)


def _loaded(name: str) -> types.FunctionType | None:
    """Return a python function by its qualified name, None if it is not there."""
    module, attributes = _parts(name)
    found: Any = sys.modules.get(module)
    if found is None:
        return None
    for attribute in attributes:
        found = getattr(found, attribute, None)
    found = inspect.unwrap(found) if callable(found) else None
    if not isinstance(found, types.FunctionType) or found.__closure__:
        return None
    return found


@functools.cache
def _parts(name: str) -> tuple[str, list[str]]:
    """Return the module of a function of transformers, and its name there."""
    package, _, rest = name.partition(".modeling_")
    module, *attributes = rest.split(".")
    return f"{package}.modeling_{module}", attributes


def _is_asking(function: types.FunctionType) -> bool:
    return function.__code__.co_filename == _asking.__code__.co_filename


SCANNED = _InPlace()

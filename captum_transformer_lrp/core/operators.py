"""Which operator a torch call is, and of which kind.

One operator has many spellings: ``x * y``, ``torch.mul``, ``Tensor.mul_`` and
``torch.ops.aten.mul`` are all ``mul``. :func:`operator_name` maps a spelling to the
operator's name, :data:`KINDS` groups the operators that one sentence describes. A
composite gives a rule to each kind, so that a method is a table on one screen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .._torch import built_in

KINDS: dict[str, str] = {
    "structural": "moves, copies or selects values; nothing is mixed",
    "additive": "sums, means and other functions of degree one",
    "product": "multiplies factors; linear when only one carries relevance",
    "quotient": "divides; linear when the denominator carries no relevance",
    "power": "raises to a power",
    "activation": "elementwise non-linearity of one tensor",
    "exponential": "exponentials: weights of a softmax written out, decay of a state",
    "softmax": "normalised exponentials",
    "attention": "fused scaled dot product attention",
    "scan": "recurrence of a state space model or of linear attention, as a whole",
    "normalization": "layer, group, instance, batch and root-mean-square normalisation",
    "rescaling": "multiplies each element by a factor that counts as a constant",
    "normalizer": "reciprocals that normalise something else",
    "variance": "mean of squares around the mean",
    "step": "piecewise constant: signs and rounded values, with gradient zero",
    "lookup": "reads rows of a constant table by integer ids",
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: kind -> names of its operators, as they are registered when the package is imported.
OPERATORS: dict[str, frozenset[str]] = {
    "structural": _names("""
        view view_as reshape reshape_as transpose swapaxes swapdims permute movedim
        moveaxis t T mT H mH adjoint squeeze unsqueeze expand expand_as broadcast_to
        broadcast_tensors flatten unflatten ravel contiguous clone to type type_as float
        double half bfloat16 long int short cpu cuda narrow select getitem index_select
        gather take take_along_dim masked_select split split_with_sizes tensor_split
        hsplit vsplit dsplit chunk unsafe_chunk unsafe_split unbind cat concat
        concatenate stack hstack vstack dstack column_stack row_stack tile repeat
        repeat_interleave roll flip fliplr flipud rot90 unfold as_strided diagonal diag
        diag_embed diagonal_scatter tril triu where masked_fill masked_scatter
        index_fill index_copy scatter select_scatter slice_scatter index_put setitem
        copy pad constant_pad_nd pixel_shuffle pixel_unshuffle channel_shuffle
        native_channel_shuffle im2col max min amax amin aminmax topk nanmedian sort
        msort kthvalue median mode maximum minimum fmax fmin max_pool1d max_pool2d
        max_pool3d max_pool1d_with_indices cummax cummin max_pool2d_with_indices
        max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d
        adaptive_max_pool3d adaptive_max_pool1d_with_indices
        adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices max_unpool1d
        max_unpool2d max_unpool3d fractional_max_pool2d fractional_max_pool3d nan_to_num
        view_as_real view_as_complex real imag conj resolve_conj resolve_neg lift
        lift_fresh lift_fresh_copy alias _reshape_alias detach data fill zero block_diag
        meshgrid atleast_1d atleast_2d atleast_3d squeeze_multiple slice_copy view_copy
        requires_grad positive pin_memory align_to rename refine_names
        unsafe_split_with_sizes slice to_padded_tensor nested_tensor to_dense _to_copy
        nested_to_padded_tensor
        _unsafe_view _pack_padded_sequence _pad_packed_sequence index _unsafe_index
        _unsafe_masked_index _unsafe_index_put put pad_sequence reflection_pad1d
        reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
        replication_pad3d diagflat linalg_diagonal combinations conj_physical complex
        cfloat cdouble chalf as_strided_scatter expand_copy diagonal_copy alias_copy
        as_strided_copy narrow_copy permute_copy split_copy split_with_sizes_copy
        unbind_copy unfold_copy squeeze_copy transpose_copy t_copy unsqueeze_copy
        select_copy detach_copy view_as_real_copy view_as_complex_copy
    """),
    "additive": _names("""
        add sub subtract rsub neg negative sum nansum mean nanmean cumsum avg_pool1d
        avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
        adaptive_avg_pool3d lp_pool1d lp_pool2d interpolate upsample upsample_nearest
        upsample_bilinear upsample_linear1d upsample_bilinear2d upsample_trilinear3d
        upsample_bicubic2d upsample_nearest1d upsample_nearest2d upsample_nearest3d
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
        _upsample_bilinear2d_aa _upsample_bicubic2d_aa _adaptive_avg_pool2d
        _adaptive_avg_pool3d index_add scatter_add scatter_reduce index_reduce
        segment_reduce trace diff fold col2im dropout dropout1d dropout2d dropout3d
        alpha_dropout feature_dropout feature_alpha_dropout native_dropout fft_fft
        fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn
        fft_ifftn fft_rfftn fft_irfftn fft_fftshift fft_ifftshift fft_hfft fft_hfft2
        fft_hfftn fft_ihfft fft_ihfft2 fft_ihfftn stft istft grid_sample grid_sampler
        grid_sampler_2d grid_sampler_3d cudnn_grid_sampler affine_grid
        affine_grid_generator embedding_bag relu leaky_relu prelu _prelu_kernel rrelu
        abs absolute norm linalg_norm linalg_vector_norm linalg_matrix_norm std std_mean
        vector_norm hypot deg2rad rad2deg quantile nanquantile gradient
    """),
    "product": _names("""
        mul multiply matmul mm bmm mv dot vdot inner outer ger einsum linear bilinear
        linalg_vecdot linalg_matmul addmm baddbmm addbmm addmv conv1d conv2d conv3d
        conv_transpose1d conv_transpose2d conv_transpose3d convolution conv_tbc
        tensordot kron grouped_mm _grouped_mm cross linalg_cross chain_matmul
        linalg_multi_dot prod cumprod _sparse_mm spmm dsmm
    """),
    "quotient": _names("""
        div divide true_divide linalg_solve linalg_solve_triangular
    """),
    "power": _names("pow square"),
    "activation": _names("""
        gelu silu mish tanh sigmoid softplus hardswish hardsigmoid hardtanh relu6 elu
        celu selu softsign tanhshrink softshrink hardshrink threshold logsigmoid sqrt
        expm1 log log2 log10 log1p sin cos tan sinh cosh asin acos atan asinh
        acosh atanh sinc erf erfc erfinv clamp clip clamp_min clamp_max logit
        special_erf special_erfc special_erfinv special_expm1 special_log1p special_sinc
        special_logit special_ndtr special_log_ndtr special_erfcx
    """),
    "exponential": _names("exp exp2 special_exp2"),
    "softmax": _names("""
        softmax _softmax _safe_softmax special_softmax log_softmax _log_softmax
        special_log_softmax softmin logsumexp special_logsumexp gumbel_softmax
        logcumsumexp
    """),
    "attention": _names("scaled_dot_product_attention"),
    "scan": _names("linear_scan"),
    "normalization": _names("layer_norm group_norm instance_norm rms_norm batch_norm"),
    "normalizer": _names("rsqrt reciprocal"),
    "variance": _names("var var_mean"),
    "step": _names("""
        round floor ceil trunc fix sign sgn heaviside floor_divide special_round
    """),
    "lookup": _names("embedding"),
}

#: structural operators that move, copy or cast one tensor as it is
MOVES: frozenset[str] = _names("""
    view view_as reshape reshape_as transpose swapaxes swapdims permute movedim moveaxis
    t T mT H mH adjoint squeeze unsqueeze expand expand_as broadcast_to flatten
    unflatten ravel contiguous clone to type type_as float double half bfloat16 cpu cuda
    narrow select getitem index_select split split_with_sizes tensor_split chunk unbind
    unsafe_split unsafe_chunk tile repeat repeat_interleave as_strided alias slice
    squeeze_multiple _to_copy _unsafe_view
""")

#: other names of the same operator
SPELLINGS: dict[str, str] = {
    "special_expit": "sigmoid",
    "expit": "sigmoid",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "__getitem__": "getitem",
    "__setitem__": "setitem",
    "__div__": "div",
    "__idiv__": "div_",
    "__truediv__": "div",
    "__itruediv__": "div_",
    "__radd__": "add",
    "__mod__": "remainder",
    "__imod__": "remainder_",
    "__rmul__": "mul",
    "log_sigmoid": "logsigmoid",
    "swish": "silu",
}

#: Attributes and calls that never carry relevance: they are passed on untouched.
METADATA: frozenset[str] = _names("""
    size dim ndimension numel nelement stride storage_offset is_contiguous
    is_floating_point is_complex is_signed is_inference is_nonzero item tolist numpy
    __len__ __bool__ __int__ __float__ __index__ __contains__ __repr__ __format__
    __hash__ __array__ __complex__ __deepcopy__ __reduce_ex__ _assert untyped_storage
    storage data_ptr element_size get_device is_same_size equal allclose isclose
    is_tensor is_storage is_set_to is_shared is_pinned has_names names qscheme
    new_zeros new_ones new_empty new_full new_tensor zeros ones empty full arange
    linspace logspace eye tensor as_tensor from_numpy scalar_tensor empty_strided
    zeros_like ones_like empty_like full_like rand randn randint rand_like randn_like
    randint_like randperm multinomial bernoulli bool char byte
    __eq__ eq ne lt le gt ge not_equal greater greater_equal less less_equal
    logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not
    bitwise_xor __and__ __or__ __xor__ __invert__ __rand__ __ror__
    __iand__ __ior__ argmax argmin argsort isnan isinf isfinite isposinf isneginf
    isin any all nonzero bincount unique unique_consecutive searchsorted bucketize
    one_hot count_nonzero result_type promote_types can_cast broadcast_shapes finfo
    iinfo register_hook retain_grad backward grad
    register_post_accumulate_grad_hook _set_grad_enabled set_grad_enabled
    _is_zerotensor is_autocast_enabled get_autocast_dtype is_autocast_cache_enabled
    set_autocast_enabled set_autocast_dtype set_autocast_cache_enabled
    autocast_increment_nesting autocast_decrement_nesting clear_autocast_cache
    record_stream _make_subclass is_neg is_conj dense_dim sparse_dim
""")

#: Tensor attributes that are themselves tensors made of the values.
_TENSOR_ATTRIBUTES = frozenset({"T", "mT", "H", "mH", "real", "imag", "data"})


def operator_name(function: Callable[..., Any]) -> str:
    """Return the name of the operator that a torch callable spells.

    A trailing underscore is kept: it says that the operator works in place. Operators
    of other libraries keep their namespace (``torchvision::nms``).
    """
    name: str = getattr(function, "__name__", None) or type(function).__name__
    if name in ("__get__", "__set__", "__delete__"):  # x.shape, x.T, x.data = ...
        attribute = str(getattr(function.__self__, "__name__", name))  # type: ignore[attr-defined]
        readable = name == "__get__" and attribute in _TENSOR_ATTRIBUTES
        return attribute if readable else f"attribute {attribute}"
    namespace = getattr(function, "namespace", None) or _packet_namespace(function)
    if namespace is not None:
        name = name.split(".")[0]
        if namespace != "aten":
            return f"{namespace}::{name}"
    if name in SPELLINGS:
        return SPELLINGS[name]
    if name.startswith("__") and name.endswith("__"):
        bare = name[2:-2]
        if bare in _BINARY:
            return bare
        if bare[0] == "i" and bare[1:] in _BINARY:
            return bare[1:] + "_"
    return name


_BINARY = frozenset({"add", "sub", "mul", "matmul", "pow"})


def _packet_namespace(function: Callable[..., Any]) -> str | None:
    qualified = getattr(function, "_qualified_op_name", None)  # aten::mul
    return qualified.split("::")[0] if isinstance(qualified, str) else None


def is_in_place(name: str) -> bool:
    """Whether the operator overwrites its first argument."""
    return (
        name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
    ) or (name in ("setitem",))


def out_of_place(name: str) -> Callable[..., Any] | None:
    """Return the operator of that name that returns a new tensor, if there is one."""
    for holder in (torch.Tensor, torch, built_in, torch.nn.functional):
        function = getattr(holder, name, None)
        if callable(function):
            return function  # type: ignore[no-any-return]
    return None

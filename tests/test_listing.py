"""The list that needs no torch says what the registry says."""

from __future__ import annotations

import pytest

from captum_transformer_lrp import methods
from captum_transformer_lrp._listing import LISTED, check_method_names, listed
from captum_transformer_lrp.errors import UnknownNameError


def test_every_line_is_what_the_method_says():
    assert LISTED == methods.listed()
    assert [*LISTED] == [*methods]


def test_a_stranger_is_listed_where_it_was_registered(monkeypatch):
    monkeypatch.setattr(methods, "_rows", dict(methods._rows))
    methods.register("Mine", methods["gamma"].maker)
    assert [*listed()][-1] == "mine"
    check_method_names(["MINE", "attnlrp"])
    methods.unregister("mine")
    with pytest.raises(UnknownNameError, match="there is no method 'mine'"):
        check_method_names(["mine"])

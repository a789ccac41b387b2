from __future__ import annotations

import pytest

from captum_transformer_lrp import insights

SCRIPT = "A dull <script>document.title='taken'</script> film & <b>more</b>."
#: texts with labels for the built-in classifier, whose classes are these two
TEXTS = [
    ("A warm, clever and very funny film with a great cast.", "positive"),
    ("The story is predictable and far too long.", "negative"),
    ("A warm and funny film.", "negative"),
    ("Lifeless, dull and boring.", "positive"),
    (SCRIPT, "negative"),
    ("A great film without any label.", None),
    ("It is a wonderful, moving story.", 1),
    ("A terrible waste of time.", "0"),
    ("A masterpiece.", "mediocre"),
]


@pytest.fixture(scope="package")
def app():
    pytest.importorskip("panel", reason="panel, which the app is made with")
    pytest.importorskip("transformers", reason="transformers, for the built-in model")
    made = insights.App("built-in", TEXTS)
    made.predictions.wait(100)
    return made


@pytest.fixture(scope="package")
def server(app):
    with app.start(port=0, unused_lifetime=1.0) as running:
        yield running

"""Pictures of explanations: terminal text, HTML reports, PNG figures.

Nothing here computes relevance. Each module draws an
:class:`~captum_transformer_lrp.explanation.Explanation` or plain numbers:

- :mod:`~captum_transformer_lrp.visualization.colors`: the one diverging colour scale;
- :mod:`~captum_transformer_lrp.visualization.terminal`: coloured text for a terminal;
- :mod:`~captum_transformer_lrp.visualization.html`: a self-contained HTML report;
- :mod:`~captum_transformer_lrp.visualization.image`: heat maps over a picture;
- :mod:`~captum_transformer_lrp.visualization.figure`: the same as one PNG;
- :mod:`~captum_transformer_lrp.visualization.states`: masks over layers and tokens.
"""

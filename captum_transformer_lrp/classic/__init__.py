"""The classic rules of LRP, made for images, and the composites of them."""

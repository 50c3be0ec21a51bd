"""One module per noun, or per few small ones; each has ``add(app, ...)``."""

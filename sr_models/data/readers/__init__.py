"""Public sets in their published layouts, one module each, read as pairs."""

"""Reports of a run: self-contained HTML without scripts, in light and dark, and curves as PNG."""

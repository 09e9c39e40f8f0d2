"""What crosses the gap: one file, signed before anyone parses it (docs/bundle-format.md)."""

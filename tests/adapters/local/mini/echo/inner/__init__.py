"""Part of the echo function."""

"""State of one execution environment."""

COUNT = 0

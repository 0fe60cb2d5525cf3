"""Verdicts, paired comparisons, ranks and intervals: the one place where a claim is judged."""

"""The languages of texts, by py3langid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

METHOD = "py3langid"
SAMPLE = 2000
"""Texts that are looked at, evenly over the file; one costs a sixth of a millisecond."""
EXCERPT = 600
"""Characters of a text that are looked at."""
UNKNOWN = "und"
_LEAST = 0.3
"""Below this probability a text is of no language that can be told: sums, code, single words."""


def languages(texts: Sequence[str]) -> tuple[dict[str, int], int]:
    """(texts by ISO 639 code, most first; how many were looked at). `und`: cannot be told."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    step = max(1, -(-len(texts) // SAMPLE))
    counts: Counter[str] = Counter()
    for text in texts[::step]:
        code, probability = identifier.classify(text[:EXCERPT])
        # zxx: no linguistic content.
        counts[code if probability >= _LEAST and code != "zxx" else UNKNOWN] += 1
    return dict(counts.most_common()), counts.total()

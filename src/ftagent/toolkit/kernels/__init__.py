"""Faster ways to compute what a transformers model computes, chosen once for a model and checked against it.

Each file holds one: `linear` (matrix products through oneDNN, LoRA merged on the fly), `attention` (rows of a
pack apart), `norm`, `gated`, `head` (log-probabilities without the logits of all labels at once), `memory`.
`select` puts them into a model.
"""

"""Judgements and what is made of them: distortions, heads, agreement."""

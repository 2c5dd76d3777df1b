"""Collecting perceptual judgements: a study of one's own scenes, a page to answer it, an export."""

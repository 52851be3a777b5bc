"""Locality-sensitive digests, one file a family of outputs."""

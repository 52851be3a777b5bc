"""Tensors to outputs, digests and scores: synchronous, no network, no ledger state."""

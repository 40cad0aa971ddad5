"""Payloads to durable sealed bytes and back: blobs, packs, envelopes, ciphers, compression, keyrings.

Knows nothing of vaults, jobs or the catalog: whoever calls keeps the locations and the data keys.
"""

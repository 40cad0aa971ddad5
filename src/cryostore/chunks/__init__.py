"""The chunk store: payloads to durable sealed bytes and back. Blobs, packs, envelopes, ciphers, keyrings.

It knows nothing of vaults, jobs or the catalog: the caller keeps the locations and the data keys.
"""

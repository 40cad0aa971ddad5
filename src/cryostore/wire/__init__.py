"""The API as bytes: routing, decoding, encoding, errors and signatures, without any input or output of its own.

Everything is symmetric: what the client half encodes, the server half decodes, from one declaration
(`cryostore.model.operation`). Only `cryostore.server` and `cryostore.client` import this package.
"""

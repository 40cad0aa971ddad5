"""The API as bytes: routing, decoding, encoding, errors and signatures, without input or output of its own.

Client and server use one declaration (`cryostore.model.operation`): the server decodes what the client encodes. Only
`cryostore.server`, `cryostore.client` and `cryostore.cli` import this package.
"""

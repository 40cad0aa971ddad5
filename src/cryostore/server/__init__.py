"""The HTTP face of the service: connections, the request pipeline, worker processes.

Only `asgi` and `body` (and the connection they stand on) are asynchronous; they hand work to a bounded pool of threads.
What an operation means is the service's business, how it looks on the wire is `cryostore.wire`'s.
"""

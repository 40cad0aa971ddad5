"""The API across a network: a `Call` over HTTP, and on top of it the nine functions of the Backupstorage module.

Lives here: connections, retries, where credentials come from, pages. Does not live here: the form of a request
(`cryostore.wire`), and anything that stores data.
"""

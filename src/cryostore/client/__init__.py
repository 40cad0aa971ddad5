"""Client of the API over HTTP, and the nine functions of the Backupstorage module.

Holds connections, retries, settings and paged lists. The form of a request is in `cryostore.wire`.
"""

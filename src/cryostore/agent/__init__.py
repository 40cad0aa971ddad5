"""The agent: file trees to archives and back, through any `Call`. Knows nothing of where the store is.

The rule of this layer: what goes wrong with the source (`SourceError`) and what goes wrong with the store (any other
`CryostoreError`) are never caught by one clause. The first is counted and reported, the second ends the run.
"""

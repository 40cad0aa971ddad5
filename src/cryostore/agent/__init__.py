"""The agent: backs up file trees, streams and disks as archives, and restores them, through any `Call`.

The agent does not know where the store is. The rule of this layer: no clause catches an error of the source
(`SourceError`) together with an error of the store (any other `CryostoreError`). The first is counted and reported, the
second ends the run.
"""

"""ARNs of what the agent backs up, and of the role it names."""

from __future__ import annotations

from cryostore.agent.header import FILESET

ROLE_ARN = "arn:aws:iam::000000000000:role/cryo-agent"


def resource_arn(name: str, kind: str = FILESET) -> str:
    """The ARN of what is backed up under this name: a file tree, a stream or a disk."""
    return f"arn:aws:cryo:::{kind}:{name}"

"""Vaults of the service in process."""

from __future__ import annotations

from conformance import api_vaults


class TestVault(api_vaults.VaultTests):
    pass


class TestVaultList(api_vaults.VaultListTests):
    pass

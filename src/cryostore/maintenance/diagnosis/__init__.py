"""Checks of a store's set-up that `cryo doctor` prints: directory, keyring, catalog, blobs. Nothing is changed."""

"""Backup runs: the job, the incremental base, the encryption policy, and the archive writer."""

"""Cryostore and its peers, each started and stopped by the run: fio, nginx, rclone, restic, borg."""

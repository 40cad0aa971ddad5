"""What Cryostore is measured against: fio (the disk alone), nginx and rclone. The run starts and stops each."""

"""What tests share: runs of a second, images, configs, processes."""

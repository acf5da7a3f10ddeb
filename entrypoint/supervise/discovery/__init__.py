"""Where workers are listed: etcd, or a directory of files."""

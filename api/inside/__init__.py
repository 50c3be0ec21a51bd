"""What answers inside VPCs: the metadata service's sockets, and the tenant APIs for guests."""

"""Shared Linux plumbing: names, the fabric namespace, private daemons, links, DHCP, the way in to guests."""

"""The tables of a simulated world, and what brings an older world's file to them."""

from __future__ import annotations

from collections.abc import Mapping

SCHEMA_VERSION = 4

_NETWORK_TABLES = """
CREATE TABLE vpcs (
  vpc_id TEXT PRIMARY KEY, cidr TEXT NOT NULL, revision INTEGER NOT NULL, document TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE subnets (
  subnet_id TEXT PRIMARY KEY, vpc_id TEXT, cidr TEXT, gateway TEXT, first INTEGER, last INTEGER,
  mtu INTEGER NOT NULL, revision INTEGER NOT NULL, document TEXT NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX subnets_vpc ON subnets (vpc_id, first) WHERE vpc_id IS NOT NULL;
CREATE TABLE ports (
  subnet_id TEXT NOT NULL, nic_id TEXT NOT NULL, mac TEXT NOT NULL, revision INTEGER NOT NULL,
  document TEXT NOT NULL, PRIMARY KEY (subnet_id, nic_id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX ports_mac ON ports (subnet_id, mac);
CREATE TABLE port_addresses (
  subnet_id TEXT NOT NULL, address TEXT NOT NULL, nic_id TEXT NOT NULL, PRIMARY KEY (subnet_id, address)
) WITHOUT ROWID;
CREATE TABLE port_names (
  subnet_id TEXT NOT NULL, name TEXT NOT NULL, nic_id TEXT NOT NULL, address TEXT NOT NULL,
  PRIMARY KEY (subnet_id, name, nic_id)
) WITHOUT ROWID;
"""

# What guests do with their links lasts until they boot anew. ``links`` holds only those that something was done with.
_GUEST_TABLES = """
CREATE TABLE links (
  machine_id TEXT NOT NULL, nic_id TEXT NOT NULL, namespace TEXT NOT NULL DEFAULT '', lost INTEGER NOT NULL DEFAULT 0,
  received_bytes INTEGER NOT NULL DEFAULT 0, received_packets INTEGER NOT NULL DEFAULT 0,
  received_dropped INTEGER NOT NULL DEFAULT 0, sent_bytes INTEGER NOT NULL DEFAULT 0,
  sent_packets INTEGER NOT NULL DEFAULT 0, sent_dropped INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (machine_id, nic_id)
) WITHOUT ROWID;
CREATE INDEX links_lost ON links (nic_id) WHERE lost = 1;
CREATE TABLE namespaces (
  machine_id TEXT NOT NULL, name TEXT NOT NULL, gateway TEXT NOT NULL DEFAULT '', PRIMARY KEY (machine_id, name)
) WITHOUT ROWID;
CREATE TABLE guest_addresses (
  machine_id TEXT NOT NULL, nic_id TEXT NOT NULL, address TEXT NOT NULL, prefix_length INTEGER NOT NULL,
  subnet_id TEXT NOT NULL, PRIMARY KEY (machine_id, nic_id, address)
) WITHOUT ROWID;
CREATE INDEX guest_addresses_address ON guest_addresses (subnet_id, address);
"""

# Times are whole microseconds since 1970: as floating point numbers they would be rounded, and a frozen
# clock advanced to exactly ``next_change_at`` could still stand a hair before it.
SCHEMA = f"""
CREATE TABLE machines (
  machine_id TEXT PRIMARY KEY, kind TEXT NOT NULL, hostname TEXT NOT NULL,
  vcpus INTEGER NOT NULL, memory_mib INTEGER NOT NULL, root_disk_gib INTEGER NOT NULL, image_id TEXT NOT NULL,
  nesting INTEGER NOT NULL, privileged INTEGER NOT NULL, generation INTEGER NOT NULL,
  passage TEXT NOT NULL DEFAULT '', target TEXT NOT NULL DEFAULT 'stopped', due_us INTEGER NOT NULL DEFAULT 0,
  ready_us INTEGER NOT NULL DEFAULT 0, busy_until_us INTEGER NOT NULL DEFAULT 0,
  unannounced INTEGER NOT NULL DEFAULT 0, host_id TEXT
) WITHOUT ROWID;
CREATE INDEX machines_unannounced ON machines (due_us) WHERE unannounced = 1;
CREATE TABLE nics (
  machine_id TEXT NOT NULL, device_index INTEGER NOT NULL, nic_id TEXT NOT NULL, subnet_id TEXT NOT NULL,
  mac TEXT NOT NULL, up_us INTEGER NOT NULL DEFAULT 0, leaving_us INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (machine_id, device_index)
) WITHOUT ROWID;
CREATE INDEX nics_nic ON nics (nic_id);
CREATE TABLE files (
  machine_id TEXT NOT NULL, path TEXT NOT NULL, mode INTEGER NOT NULL, content BLOB, PRIMARY KEY (machine_id, path)
) WITHOUT ROWID;
CREATE TABLE console (
  machine_id TEXT NOT NULL, seq INTEGER NOT NULL, event TEXT NOT NULL, at_us INTEGER NOT NULL,
  until_us INTEGER NOT NULL, text TEXT NOT NULL DEFAULT '', PRIMARY KEY (machine_id, seq)
) WITHOUT ROWID;
CREATE TABLE images (
  image_id TEXT NOT NULL, kind TEXT NOT NULL, size_bytes INTEGER NOT NULL, PRIMARY KEY (image_id, kind)
) WITHOUT ROWID;
{_NETWORK_TABLES}{_GUEST_TABLES}"""

# What brings a world of the version before to this one.
UPGRADES: Mapping[int, str] = {
    1: "ALTER TABLE machines ADD COLUMN host_id TEXT;",
    # Not unique, SQLite thought little of them and read all ports of a network for each new one.
    2: "DROP INDEX ports_address; CREATE UNIQUE INDEX ports_address ON ports (network_id, address);"
    "DROP INDEX ports_mac; CREATE UNIQUE INDEX ports_mac ON ports (network_id, mac);",
    # Networks and ports are ensured anew by whoever owns them; machines and their NICs are nowhere else.
    3: "DROP TABLE networks; DROP TABLE ports; ALTER TABLE nics RENAME COLUMN network_id TO subnet_id;"
    "ALTER TABLE nics ADD COLUMN up_us INTEGER NOT NULL DEFAULT 0;"
    f"ALTER TABLE nics ADD COLUMN leaving_us INTEGER NOT NULL DEFAULT 0;{_NETWORK_TABLES}{_GUEST_TABLES}",
}

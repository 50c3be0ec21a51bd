"""Reads a metadata service by the Ec2 source of the cloud-init that is installed; run by the system's Python.

Arguments: the service's URL, the platform that the source takes itself to be on, the MAC of the one NIC, a folder to
write in. Prints what cloud-init made of it as JSON.
"""

import base64
import json
import sys

from cloudinit import distros, helpers  # type: ignore[import-not-found]  # not in this environment
from cloudinit.sources import DataSourceEc2  # type: ignore[import-not-found]  # as above


def main(url: str, platform: str, mac: str, folder: str) -> None:
    DataSourceEc2.identify_platform = lambda: platform  # else it reads this machine's firmware
    paths = helpers.Paths({"cloud_dir": folder, "run_dir": folder})
    settings = {"metadata_urls": [url], "strict_id": False, "max_wait": 20, "timeout": 10}
    distro = distros.fetch("debian")("debian", {}, paths)
    source = DataSourceEc2.DataSourceEc2({"datasource": {"Ec2": settings}}, distro, paths)
    accepted = source._get_data()
    network = DataSourceEc2.convert_ec2_metadata_network_config(
        source.metadata["network"], macs_to_nics={mac: "eth0"}, fallback_nic="eth0"
    )
    document = {
        "accepted": accepted,
        "version": source._crawled_metadata["_metadata_api_version"],
        "has_token": bool(source._api_token),
        "instance_id": source.get_instance_id(),
        "hostname": str(getattr(source.get_hostname(), "hostname", source.get_hostname())),
        "keys": source.get_public_ssh_keys(),
        "zone": source.availability_zone,
        "user_data": base64.b64encode(source.get_userdata_raw() or b"").decode(),
        "is_classic": source.is_classic_instance(),
        "metadata": source.metadata,
        "identity": source.identity,
        "network": network,
    }
    sys.stdout.write(json.dumps(document))


main(*sys.argv[1:])

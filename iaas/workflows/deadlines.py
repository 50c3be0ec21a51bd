"""How long each step may take, retries included, in seconds of the cloud clock. A test holds it complete.

A step that waits for a guest's good will (a graceful stop) has its own time-out in the job's input and acts
by itself; the deadline here is the end of all patience, after which the job fails and unwinds.
"""

from __future__ import annotations

from collections.abc import Mapping

STEP_DEADLINES_S: Mapping[tuple[str, str], float] = {
    ("instance.create", "ensure_image"): 1200,  # the first use of an image may build or fetch it
    ("instance.create", "ensure_network"): 120,
    ("instance.create", "ensure_machine"): 300,
    ("instance.create", "start_machine"): 300,
    ("instance.create", "await_running"): 120,
    ("instance.start", "ensure_network"): 120,
    ("instance.start", "start_machine"): 300,
    ("instance.start", "await_running"): 120,
    ("instance.stop", "ask_guest"): 3900,  # the longest time-out a tenant may give, and then the power cut
    ("instance.restart", "ask_guest"): 3900,
    ("instance.restart", "start_machine"): 300,
    ("instance.restart", "await_running"): 120,
    ("instance.resize", "resize_machine"): 120,
    ("instance.rebuild", "ensure_image"): 1200,
    ("instance.rebuild", "cut_power"): 120,
    ("instance.rebuild", "replace_disk"): 300,
    ("instance.rebuild", "start_machine"): 300,
    ("instance.rebuild", "await_running"): 120,
    ("instance.delete", "remove_machine"): 300,
    ("instance.delete", "remove_ports"): 120,
    ("instance.retire", "cut_power"): 120,
    ("instance.retire", "let_nics_go"): 120,
    ("instance.retire", "remove_ports"): 120,
    ("instance.purge", "remove_machine"): 300,
    ("instance.recover", "ensure_network"): 120,
    ("instance.recover", "find_machine"): 120,
    ("instance.recover", "set_macs"): 120,
    ("instance.watch_guest", "await_guest"): 600,
    ("nic.attach", "ensure_port"): 120,
    ("nic.attach", "attach_nic"): 180,  # a guest that boots does not listen
    ("nic.detach", "detach_nic"): 180,
    ("nic.detach", "remove_port"): 120,
    ("nic.apply", "ensure_port"): 120,
    ("nic.replug", "replug_nic"): 120,
    ("vpc.create", "ensure_vpc"): 120,
    ("vpc.apply", "ensure_vpc"): 120,
    ("vpc.delete", "remove_vpc"): 120,
    ("subnet.create", "ensure_subnet"): 120,
    ("subnet.apply", "ensure_subnet"): 120,
    ("subnet.join", "ensure_subnet"): 120,
    ("subnet.join", "ensure_ports"): 120,
    ("subnet.leave", "ensure_subnet"): 120,
    ("subnet.leave", "ensure_ports"): 120,
    ("subnet.delete", "remove_subnet"): 120,
}

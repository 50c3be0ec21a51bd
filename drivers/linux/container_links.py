"""The host's ends of container NICs: whether they live, and those that a dead container left behind."""

from __future__ import annotations

from collections.abc import Collection

from iaas.drivers.interface import BackendDownError, NotFoundError
from iaas.drivers.linux.namespaces import namespace_exists, netlink


class ContainerLinks:
    """The links in one network namespace, the fabric's."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def is_there(self, name: str) -> bool:
        """Return whether there is a link of this name; a pair dies as a whole, wherever its other end was.

        Raises:
            BackendDownError: there is no such namespace.
        """
        try:
            with netlink(self._namespace) as handle:
                return bool(handle.link_lookup(ifname=name))
        except NotFoundError as exc:
            raise BackendDownError("the network of the machines is gone") from exc

    def delete_dead(self, names: Collection[str]) -> list[str]:
        """Delete those of the links whose container is no more, and return their names.

        A living container holds its end in a namespace of its own; of a dead one whose LXD did not see it
        end, both ends are back here, and would keep the name from being used again.
        """
        deleted: list[str] = []
        if not names or not namespace_exists(self._namespace):
            return deleted
        try:
            with netlink(self._namespace) as handle:
                for name in names:
                    for index in handle.link_lookup(ifname=name):
                        if handle.get_links(index)[0].get_attr("IFLA_LINK_NETNSID") is None:
                            handle.link("del", index=index)
                            deleted.append(name)
        except NotFoundError:  # the namespace went meanwhile, and its links with it
            return deleted
        return deleted

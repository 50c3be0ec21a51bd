"""The executor drives jobs through their workflows; signals wake those who wait for one."""

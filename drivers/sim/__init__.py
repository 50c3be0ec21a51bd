"""The simulated backend: machines, networks and images of a world that is one SQLite file on the cloud clock."""

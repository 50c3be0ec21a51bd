"""The metadata service that guests see at 169.254.169.254."""

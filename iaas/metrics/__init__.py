"""What a cloud tells about itself in Prometheus' format; one registry per cloud, nothing global."""

from iaas.metrics.recorder import CloudMetrics

__all__ = ["CloudMetrics"]

"""HTTP. Imported as ``iaas.api``. Thin: parses, calls one service, renders; holds no rule of the cloud."""

"""What touches machines. Imported as ``iaas.drivers``; knows no database row and no HTTP."""

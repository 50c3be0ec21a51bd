"""The cloud's resources as frozen values: what services return and dialects render."""

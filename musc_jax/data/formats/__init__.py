"""File formats: pictures, masks and point data to arrays."""

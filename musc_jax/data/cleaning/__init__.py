"""Raw scans to the points of the object."""

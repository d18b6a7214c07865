"""Pages from elsewhere, taken into content/ as a collection."""

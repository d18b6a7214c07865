"""Everything between a surface and a tool's function."""

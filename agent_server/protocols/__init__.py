"""The protocols that chat clients speak: a folder each."""

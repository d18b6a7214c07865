"""content/**/*.md -> documents and passages that can be searched and cited."""

"""The vectors of passages: which embedder's are searched, how they are made anew, and the index over many of them."""

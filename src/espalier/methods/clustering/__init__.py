"""Methods that decide which weights have one value together. One paper, one file; none imports another."""

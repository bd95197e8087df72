"""Methods that remove units while the network is trained. One paper, one file; none imports another."""

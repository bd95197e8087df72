"""Methods that set single weights to zero while the network is trained. One paper, one file; none imports another."""

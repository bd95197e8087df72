"""Proof: a cut model must compute what the replayed record and the masked original compute."""

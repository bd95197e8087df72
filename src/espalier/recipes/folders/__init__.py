"""Folders: runs on disk: what they hold, who works on them, where they came from, and a ledger of all of them."""

"""Downloads: fetch, verify, unpack."""

"""SIP, SDP and SIPREC metadata without I/O: bytes and `now` in, bytes and events out."""

"""A sender of SRTP, made without the code under test and without its library: RFC 3711, RFC 6188, RFC 7714."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from functools import cache

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sbc_agent.media.messages import CryptoSpec, CryptoSuite

HEADER_BYTES = 12
_BLOCK = 16
_KEY, _AUTHENTICATION, _SALT = range(3)  # RFC 3711 section 4.3.2: labels
_AUTHENTICATION_BYTES = 20


def counter_mode(key: bytes, initial: int, count: int) -> bytes:
    """RFC 3711 section 4.1.1, RFC 6188 section 2: the key stream from a 128-bit initial block on."""
    cipher = Cipher(algorithms.AES(key), modes.CTR(initial.to_bytes(_BLOCK, "big"))).encryptor()
    return cipher.update(bytes(count))


@cache
def derive(key: bytes, salt: bytes, label: int, count: int) -> bytes:
    """RFC 3711 section 4.3.1 with a key derivation rate of zero; a salt of 96 bits is padded (RFC 7714 section 11)."""
    padded = int.from_bytes(salt.ljust(14, b"\0"), "big")
    return counter_mode(key, (padded ^ label << 48) << 16, count)


def seal_counter(packet: bytes, key: bytes, authentication_key: bytes, salt: bytes, roc: int, tag_bytes: int) -> bytes:
    """RFC 3711 section 3.3: AES in counter mode, HMAC-SHA1 over packet and roll-over counter; the MKI is not there."""
    head, payload = packet[:HEADER_BYTES], packet[HEADER_BYTES:]
    index = roc << 16 | int.from_bytes(head[2:4], "big")
    initial = int.from_bytes(salt, "big") << 16 ^ int.from_bytes(head[8:12], "big") << 64 ^ index << 16
    stream = counter_mode(key, initial, len(payload))
    coded = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    sealed = head + coded.to_bytes(len(payload), "big")
    return sealed + hmac.digest(authentication_key, sealed + roc.to_bytes(4, "big"), "sha1")[:tag_bytes]


def seal_galois(packet: bytes, key: bytes, salt: bytes, roc: int) -> bytes:
    """RFC 7714 section 8: AES in Galois/counter mode, the header as associated data."""
    head, payload = packet[:HEADER_BYTES], packet[HEADER_BYTES:]
    nonce = int.from_bytes(bytes(2) + head[8:12] + roc.to_bytes(4, "big") + head[2:4], "big")
    nonce ^= int.from_bytes(salt, "big")
    return head + AESGCM(key).encrypt(nonce.to_bytes(12, "big"), payload, head)


@dataclass
class Sender:
    """Protects packets under one master key; its extended sequence numbers begin anywhere.

    ``protect`` takes packets whose header has no options.
    """

    suite: CryptoSuite
    master: bytes = field(repr=False)
    mki: bytes = b""

    @property
    def spec(self) -> CryptoSpec:
        return CryptoSpec(tag=1, suite=self.suite, key=self.master, mki=self.mki)

    def protect(self, packet: bytes, roc: int = 0) -> bytes:
        key_bytes = 32 if "256" in self.suite else 16
        master, salt = self.master[:key_bytes], self.master[key_bytes:]
        key = derive(master, salt, _KEY, key_bytes)
        session_salt = derive(master, salt, _SALT, len(salt))
        if self.suite.startswith("AEAD"):
            return seal_galois(packet, key, session_salt, roc) + self.mki
        tag_bytes = int(self.suite.rpartition("_")[2]) // 8
        authentication_key = derive(master, salt, _AUTHENTICATION, _AUTHENTICATION_BYTES)
        sealed = seal_counter(packet, key, authentication_key, session_salt, roc, tag_bytes)
        return sealed[:-tag_bytes] + self.mki + sealed[-tag_bytes:]

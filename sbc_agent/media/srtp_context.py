"""A cryptographic context of SRTP (RFC 3711 section 3.2): one master key, all senders that use it.

libsrtp does the work, as pylibsrtp brings it. pylibsrtp's own methods copy every packet twice, and know neither AES-256
in counter mode nor the roll-over counter; the library's functions for them lie in the same file and are called there by
ctypes, on the receiver's buffer and without giving up the interpreter's lock, which would cost more than a packet.
Another build may hide them, or lack a suite: so it is loaded with the first key, and ``prove`` tells at start.

Not here: SRTCP, which nothing of a recording needs.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from dualtone.domain.errors import Unavailable
from sbc_agent.media.messages import KEY_BYTES, CryptoSpec, CryptoSuite

# srtp_err_status_t
OK: Final = 0
AUTHENTICATION_FAILED: Final = 7
REPLAYED: Final = 9
TOO_OLD: Final = 10

# REQ: RFC 3711 section 3.3.2: the window of replays is at least 64 packets; this many are ten seconds of 10 ms packets.
_REPLAY_WINDOW: Final = 1_024
_MAX_ROC: Final = 64  # a day of 20 ms packets
_ROC_MODULUS: Final = 1 << 32
_SSRC: Final = slice(8, 12)

_SET_POLICY: Final[Mapping[CryptoSuite, str]] = {
    "AES_CM_128_HMAC_SHA1_80": "srtp_crypto_policy_set_rtp_default",
    "AES_CM_128_HMAC_SHA1_32": "srtp_crypto_policy_set_aes_cm_128_hmac_sha1_32",
    "AES_256_CM_HMAC_SHA1_80": "srtp_crypto_policy_set_aes_cm_256_hmac_sha1_80",
    "AES_256_CM_HMAC_SHA1_32": "srtp_crypto_policy_set_aes_cm_256_hmac_sha1_32",
    "AEAD_AES_128_GCM": "srtp_crypto_policy_set_aes_gcm_128_16_auth",
    "AEAD_AES_256_GCM": "srtp_crypto_policy_set_aes_gcm_256_16_auth",
}
# Bytes behind the MKI: RFC 3711 section 3.1; REQ: RFC 7714 section 8.2: the tag is part of the ciphertext, before it.
_BEHIND_MKI: Final[Mapping[CryptoSuite, int]] = {
    "AES_CM_128_HMAC_SHA1_80": 10,
    "AES_CM_128_HMAC_SHA1_32": 4,
    "AES_256_CM_HMAC_SHA1_80": 10,
    "AES_256_CM_HMAC_SHA1_32": 4,
    "AEAD_AES_128_GCM": 0,
    "AEAD_AES_256_GCM": 0,
}


class Library:
    """libsrtp's functions.

    Args:
        binding: pylibsrtp's module of cffi.

    Attributes:
        unprotect: int srtp_unprotect(srtp_t, void *packet, int *length): authenticates and decrypts in place. On
            failure the length stays, and of an AEAD suite the packet does not.

    Raises:
        AttributeError: If it lacks one of them.
        OSError: If its file cannot be opened.
    """

    def __init__(self, binding: Any) -> None:  # noqa: ANN401 - an extension module has no type
        self.ffi, self.lib = binding.ffi, binding.lib
        self._functions: Any = ctypes.PyDLL(binding.__file__)
        pointer = ctypes.c_void_p
        self.unprotect = self._function("srtp_unprotect", pointer, pointer, pointer)
        self.set_roc = self._function("srtp_set_stream_roc", pointer, ctypes.c_uint32, ctypes.c_uint32)
        self.get_roc = self._function("srtp_get_stream_roc", pointer, ctypes.c_uint32, pointer)
        self.set_policy = {suite: self._function(name, pointer) for suite, name in _SET_POLICY.items()}

    def address(self, pointer: Any) -> int:  # noqa: ANN401 - cffi gives its pointers no public type
        """Where a pointer of cffi points."""
        return int(self.ffi.cast("uintptr_t", pointer))

    def _function(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - ctypes gives its functions no public type
        function = getattr(self._functions, name)
        function.restype, function.argtypes = ctypes.c_int, arguments
        return function


@cache
def library() -> Library:
    """The library of this machine, loaded once; raises Unavailable if it is not there, or is not what is needed."""
    try:
        from pylibsrtp import _binding  # noqa: PLC0415 - who records plain RTP alone needs none of this
    except (ImportError, OSError):
        raise Unavailable("pylibsrtp is not installed, or its library cannot be loaded") from None
    try:
        return Library(_binding)
    except (AttributeError, OSError):
        raise Unavailable("pylibsrtp's library lacks functions that SRTP needs") from None


def prove() -> None:
    """Makes a context of every suite and drops it; raises Unavailable if this machine cannot open SRTP."""
    for suite, count in KEY_BYTES.items():
        CryptoContext(CryptoSpec.model_validate({"tag": 1, "suite": suite, "key": bytes(count)})).close()


class CryptoContext:
    """A context for receiving.

    Args:
        spec: Its key.

    Raises:
        Unavailable: If the library does not give one.
    """

    def __init__(self, spec: CryptoSpec) -> None:
        self.mki = spec.mki
        self._suite = spec.suite
        self._library = srtp = library()
        self._key = srtp.ffi.new("unsigned char[]", len(spec.key))
        srtp.ffi.memmove(self._key, spec.key, len(spec.key))
        self._policy = srtp.ffi.new("srtp_policy_t *")
        self._policy.key, self._policy.window_size = self._key, _REPLAY_WINDOW
        for part in (self._policy.rtp, self._policy.rtcp):
            srtp.set_policy[spec.suite](srtp.address(srtp.ffi.addressof(part)))
        self._policy.ssrc.type = srtp.lib.ssrc_any_inbound
        session = srtp.ffi.new("srtp_t *")
        if srtp.lib.srtp_create(session, self._policy) != OK:
            raise Unavailable(f"no context for SRTP of the suite {spec.suite}")
        self._session = session[0]
        self.handle = srtp.address(self._session)

    def is_of(self, spec: CryptoSpec) -> bool:
        """Whether this is the context of a key: its packets then go on as before."""
        return (spec.suite, spec.mki, spec.key) == (self._suite, self.mki, bytes(self._library.ffi.buffer(self._key)))

    def close(self) -> None:
        """Overwrites the key and all that was derived from it; the context must not be used any more."""
        if self.handle:
            self._library.lib.srtp_dealloc(self._session)
            self.handle = 0
        self._library.ffi.memmove(self._key, bytes(len(self._key)), len(self._key))

    def open(self, packet: bytes, address: int) -> tuple[int, int]:
        """Unprotects a packet, whatever lies at the address now.

        Args:
            packet: The packet as it came, MKI included.
            address: Where it is opened, on a multiple of four; as many bytes as the packet has are the receiver's.

        Returns:
            The library's status, and the bytes of the opened packet; ``AUTHENTICATION_FAILED`` if it names another key.
        """
        end = len(packet) - _BEHIND_MKI[self._suite]
        start = end - len(self.mki)
        if start < 0 or packet[start:end] != self.mki:
            return AUTHENTICATION_FAILED, 0
        size = ctypes.c_int(len(packet) - len(self.mki))
        ctypes.memmove(address, packet[:start] + packet[end:], size.value)
        return self._library.unprotect(self.handle, address, ctypes.byref(size)), size.value

    def open_at_any_roc(self, packet: bytes, address: int) -> tuple[int, int]:
        """Unprotects a packet of a sender that may have rolled over unheard: before it was heard first, or since.

        RTP does not say how often (RFC 3711 section 3.3.1): each count that may be is tried, the nearest first.
        Arguments and result as of ``open``.
        """
        lib, set_roc = self._library.lib, self._library.set_roc
        ssrc = int.from_bytes(packet[_SSRC], "big")
        roc = ctypes.c_uint32(0)
        is_known = self._library.get_roc(self.handle, ssrc, ctypes.byref(roc)) == OK
        if not is_known:
            self._policy.ssrc.type, self._policy.ssrc.value = lib.ssrc_specific, ssrc
            if lib.srtp_add_stream(self._session, self._policy) != OK:
                return AUTHENTICATION_FAILED, 0
        for step in range(1, _MAX_ROC + 1):
            set_roc(self.handle, ssrc, (roc.value + step) % _ROC_MODULUS)
            status, size = self.open(packet, address)
            if status == OK:
                set_roc(self.handle, ssrc, 0)  # zero: nothing is supposed any more
                return status, size
        if is_known:
            set_roc(self.handle, ssrc, 0)
        else:
            lib.srtp_remove_stream(self._session, socket.htonl(ssrc))
        return AUTHENTICATION_FAILED, 0

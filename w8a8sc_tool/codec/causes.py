"""What the decoder finds wrong with a tile: numbers that its kernel returns, and the sentences they stand for."""

from __future__ import annotations

from typing import Final

OK: Final = 0
WRONG_MODE: Final = 1
WRONG_LENGTH: Final = 2
RESERVED: Final = 3
REPEATED: Final = 4
HEADERS_DIFFER: Final = 5
SHORT: Final = 6
EARLY_END: Final = 7
OVERRUN: Final = 8
INVALID_CODE: Final = 9
TAIL: Final = 10
NO_END_MARK: Final = 11
PADDING: Final = 12
PAYLOAD_LENGTH: Final = 13
CHECKSUM: Final = 14
OTHER_SPARSITY: Final = 15
BYPASS_LENGTH: Final = 16
OUTSIDE: Final = 17
PAYLOAD_SIZE: Final = 18
NOT_CANONICAL: Final = 19

# The sentences are part of the error messages.
SENTENCES: Final = {
    WRONG_MODE: "the stream header begins with a byte that is neither A8 (low-sparse) nor 88 (high-sparse)",
    WRONG_LENGTH: "the length in the stream header is not that of this tile",
    RESERVED: "bytes 2 and 3 of a high-sparse stream header are not zero",
    REPEATED: "the dictionary names a byte twice",
    HEADERS_DIFFER: "the stream headers of the four engines differ",
    SHORT: "the stream ends before it has yielded all its bytes",
    EARLY_END: "the end mark comes before the stream has yielded all its bytes",
    OVERRUN: "a run goes beyond its packet's 64 bytes or the tile",
    INVALID_CODE: "a packet contains a code that does not exist",
    TAIL: "the unused end of a packet is not filled as it must be",
    NO_END_MARK: "the end mark is missing or damaged",
    PADDING: "there are bytes other than zero behind the end mark",
    PAYLOAD_LENGTH: "the payload is longer than its longest stream needs",
    CHECKSUM: "the checksum does not match the decoded bytes",
    OTHER_SPARSITY: "the tile is coded for the other sparsity",
    BYPASS_LENGTH: "the length of a bypass tile is not the tile's size",
    OUTSIDE: "bytes outside of the matrix are not zero",
    PAYLOAD_SIZE: "the payload is longer than the tile it encodes or too short for its headers",
    NOT_CANONICAL: "an encoder would not have written these bytes: other codes stand for the same data",
}

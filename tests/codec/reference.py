"""A plain encoder and decoder, written from docs/format.md alone, section by section: slow, obvious, independent.

Bits are strings, first bit first. Sections have the numbers of the document.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np

# ------------------------------------------------------------------------------------------------------ 1. Notation


@cache
def bits(value: int, length: int) -> str:
    """A code, value/length, as a string of bits."""
    return "".join(str(value >> position & 1) for position in range(length))


def to_bytes(text: str) -> bytes:
    """Bits, a multiple of 8 of them, as bytes."""
    return bytes(int(text[begin : begin + 8][::-1], 2) for begin in range(0, len(text), 8))


def to_bits(data: bytes) -> str:
    return "".join(bits(byte, 8) for byte in data)


def ceil_div(a: int, b: int) -> int:
    return (a + b - 1) // b


# ------------------------------------------------------------------------------------------- 3. Fractals, 4. Tiles


class Plan:
    """The tiles of a matrix [n, k]."""

    def __init__(self, n: int, k: int) -> None:
        self.n, self.k = n, k
        self.n1, self.k1 = ceil_div(n, 16), ceil_div(k, 32)
        self.height = min(8, self.n1)
        self.tiles = ceil_div(self.n1, 8) * ceil_div(self.k1, 8)

    def numbers(self) -> Iterator[tuple[int, int]]:
        """i and j of every tile, in order."""
        for i in range(ceil_div(self.n1, 8)):
            for j in range(ceil_div(self.k1, 8)):
                yield i, j

    def start(self, i: int) -> int:
        return min(8 * i, self.n1 - self.height)

    def width(self, j: int) -> int:
        return min(8, self.k1 - 8 * j)

    def size(self, j: int) -> int:
        return 512 * self.height * self.width(j)

    def cells(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For every byte of a tile: row and column in the padded matrix, and whether it is in a don't-care fractal."""
        p = np.arange(self.size(j))
        f, q = p // 512, p % 512
        row = 16 * (self.start(i) + f % self.height) + q // 32
        column = 32 * (8 * j + f // self.height) + q % 32
        return row, column, f % self.height < 8 * i - self.start(i)


def tiles_of(weight: np.ndarray) -> list[tuple[bytes, bool]]:
    """The tiles of a matrix in order, each with whether it is 8 fractals wide."""
    plan = Plan(*weight.shape)
    padded = np.zeros((16 * plan.n1, 32 * plan.k1), np.int8)
    padded[: plan.n, : plan.k] = weight
    return [(padded[plan.cells(i, j)[:2]].tobytes(), plan.width(j) == 8) for i, j in plan.numbers()]


# ------------------------------------------------------------------------- 5. Shares, and how streams are woven


def deal(tile: bytes) -> list[bytes]:
    shares = [bytearray(len(tile) // 4) for _ in range(4)]
    for p, byte in enumerate(tile):
        shares[p // 64 % 4][64 * (p // 256) + p % 64] = byte
    return [bytes(share) for share in shares]


def undeal(shares: list[bytes]) -> bytes:
    return bytes(shares[p // 64 % 4][64 * (p // 256) + p % 64] for p in range(4 * len(shares[0])))


def weave(streams: list[bytes]) -> bytes:
    size = 32 * ceil_div(max(len(stream) for stream in streams), 32)
    padded = [stream + bytes(size - len(stream)) for stream in streams]
    return bytes(padded[x // 32 % 4][32 * (x // 128) + x % 32] for x in range(4 * size))


def unweave(payload: bytes) -> list[bytes]:
    streams = [bytearray() for _ in range(4)]
    for x, byte in enumerate(payload):
        streams[x // 32 % 4].append(byte)
    return [bytes(stream) for stream in streams]


# ------------------------------------------------------------------------------------------------ 6. The dictionary

Pair = tuple[int, int]  # value, count


def before(x: Pair, y: Pair) -> bool:
    return x[1] > y[1]


def unstable_sort(pairs: list[Pair], heaps: list[int] | None = None) -> list[Pair]:
    """The order of the dictionary. heaps: receives the size of every part that was sorted as a heap."""
    a = list(pairs)

    def sort_part(first: int, last: int, depth: int) -> None:
        while last - first > 16:
            if depth == 0:
                a[first:last] = heap_sorted(a[first:last])
                if heaps is not None:
                    heaps.append(last - first)
                return
            depth -= 1
            middle = median(a, first + 1, first + (last - first) // 2, last - 1)
            a[first], a[middle] = a[middle], a[first]
            last, rest = partition(a, first, last), last
            sort_part(last, rest, depth)

    sort_part(0, len(a), 16)
    done: list[Pair] = []
    for pair in a:  # a stable sort: each goes behind all that it is not before
        at = len(done)
        while at and before(pair, done[at - 1]):
            at -= 1
        done.insert(at, pair)
    return done


def median(a: list[Pair], x: int, y: int, z: int) -> int:
    if before(a[x], a[y]):
        return y if before(a[y], a[z]) else z if before(a[x], a[z]) else x
    return x if before(a[x], a[z]) else z if before(a[y], a[z]) else y


def partition(a: list[Pair], first: int, last: int) -> int:
    pivot, i, j = a[first], first + 1, last
    while True:
        while before(a[i], pivot):
            i += 1
        j -= 1
        while before(pivot, a[j]):
            j -= 1
        if i >= j:
            return i
        a[i], a[j] = a[j], a[i]
        i += 1


def heap_sorted(heap: list[Pair]) -> list[Pair]:
    size = len(heap)
    for top in reversed(range(size // 2)):
        settle(heap, top, size, heap[top])
    for end in reversed(range(1, size)):
        pair, heap[end] = heap[end], heap[0]
        settle(heap, 0, end, pair)
    return heap


def settle(heap: list[Pair], top: int, size: int, x: Pair) -> None:
    path = [top]
    while children := [b for b in (2 * path[-1] + 2, 2 * path[-1] + 1) if b < size]:
        path.append(children[-1] if len(children) == 1 or before(heap[children[0]], heap[children[1]]) else children[0])
    t = next((t for t in reversed(range(1, len(path))) if not before(heap[path[t]], x)), 0)
    for up, down in pairwise(path[: t + 1]):
        heap[up] = heap[down]
    heap[path[t]] = x


def dictionary_of(data: bytes, size: int) -> list[int]:
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    return [value for value, _ in unstable_sort([(value, int(counts[value])) for value in range(256)])[:size]]


# --------------------------------------------------------------------------------------------------------- 7. Codes

_SIX = (37, 21, 53, 13, 45, 29, 61, 3, 35, 19, 51, 11, 43, 27, 59, 7, 39)
_NINE = (23, 279, 151, 407, 87, 343, 215, 471, 55, 311, 183, 439, 119, 375)
LOW_CODES = [(2, 3), (6, 3), (1, 3), *((value, 6) for value in (5, *_SIX)), *((value, 9) for value in _NINE)]
HIGH_CODES = [(1, 3), *((value, 6) for value in _SIX), *((value, 9) for value in (*_NINE, 247))]
LOW_RUNS = [(2, (4, 3)), (1, (0, 3))]
HIGH_RUNS = [(9, (5, 6)), (4, (6, 3)), (3, (2, 3)), (2, (4, 3)), (1, (0, 3))]
END_MARK = bits(503, 9)


@cache
def escape(byte: int) -> str:
    return "1111" + bits(byte, 8)[::-1]


def run_codes(high: bool) -> list[tuple[int, str]]:
    """Bytes and code of every run, the longest first."""
    return [(count, bits(*code)) for count, code in (HIGH_RUNS if high else LOW_RUNS)]


def codes_of(dictionary: list[int], high: bool) -> dict[int, str]:
    """The code of every byte but the common one."""
    codes = {byte: escape(byte) for byte in range(256)}
    for rank, code in enumerate(HIGH_CODES if high else LOW_CODES, 1):
        codes[dictionary[rank]] = bits(*code)
    del codes[dictionary[0]]
    return codes


# ------------------------------------------------------------------------------------------------------- 8. Packets


def packets_of(data: bytes, dictionary: list[int], high: bool) -> tuple[list[str], str]:
    """All data packets but the last, whole, and the codes of the last one."""
    codes, runs = codes_of(dictionary, high), run_codes(high)
    whole: list[str] = []
    at = 0
    while True:
        window = min(at + 64, len(data))
        packet = ""
        while at < window:
            if data[at] == dictionary[0]:
                run = next((r for r in range(window - at) if data[at + r] != dictionary[0]), window - at)
                choices = [(count, code) for count, code in runs if count <= run]
            else:
                choices = [(1, codes[data[at]])]
            fitting = [(count, code) for count, code in choices if len(packet) + len(code) <= 64]
            if not fitting:
                break
            count, code = fitting[0]
            packet += code
            at += count
        if at == len(data):
            return whole, packet
        whole.append(packet.ljust(64, "0" if at == window else "1"))


# ------------------------------------------------------------ 9. Streams, 10. The end of a stream, 11. Bypass


def checksum(share: bytes) -> bytes:
    odd = even = 0
    for byte in share[1::2]:
        odd ^= byte
    for byte in share[0::2]:
        even ^= byte
    return bytes([odd, even])


def header_of(share: bytes, dictionary: list[int], high: bool) -> bytes:
    first = b"\x88" if high else b"\xa8"
    front = [0, 0] if high else dictionary[:2]
    rest = dictionary if high else dictionary[2:]
    return first + bytes([len(share) // 128, *front]) + checksum(share) + bytes(rest)


def end_of(packet: str) -> str:
    """The last data packet, given by its codes, and what follows it, up to the stream's last bit."""
    if len(packet) <= 54:
        length = 8 * ceil_div(len(packet) + 9, 8)
        return (packet + END_MARK).ljust(length, "0")
    return packet.ljust(64, "1") + to_bits(b"\xf7\x01")


def stream_of(data: bytes, dictionary: list[int], high: bool) -> bytes | None:
    """The stream of a share; None if its tile must be stored raw."""
    whole, last = packets_of(data, dictionary, high)
    m, u, size = len(whole) + 1, len(last), len(data)
    if 40 + 8 * (m - 1) >= size or (u >= 57 and 40 + 8 * m >= size):
        return None
    return header_of(data, dictionary, high) + to_bytes("".join(whole) + end_of(last))


def encode_tile(tile: bytes, high: bool, dictionary: list[int]) -> tuple[bytes, bool]:
    """Payload, and whether it is coded."""
    shares = deal(tile)
    streams: list[bytes] = []
    for share in shares:
        stream = stream_of(share, dictionary, high)
        if stream is None:
            return weave(shares), False
        streams.append(stream)
    return weave(streams), True


# ------------------------------------------------------------------------------------------------ 12. Index and info


def info_of(n: int, k: int) -> list[int]:
    return [8, 8, k, n, 1]


def index_entry(length: int, coded: bool, offset: int) -> bytes:
    return (length // 128 | coded << 15 | offset // 128 << 32).to_bytes(8, "little")


def encode(weight: np.ndarray, *, high: bool = False, matrix: bool = False) -> tuple[bytes, bytes]:
    """The weight and index tensors of an int8 matrix, however large. matrix: dictionaries of matrix scope."""
    size = 34 if high else 36
    tiles = tiles_of(weight)
    shared: dict[bool, list[int]] = {}
    if matrix:
        for wide in {wide for _, wide in tiles}:
            shared[wide] = dictionary_of(b"".join(tile for tile, other in tiles if other == wide), size)
    payloads = index = b""
    for tile, wide in tiles:
        payload, coded = encode_tile(tile, high, shared[wide] if matrix else dictionary_of(tile, size))
        index += index_entry(len(payload), coded, len(payloads))
        payloads += payload
    return payloads, index


# ----------------------------------------------------------------------------------- 13. What a decoder must reject


class Rejected(Exception):
    """A rule of section 13 is broken; `rule` is its name there. share: of T16, what the stream decodes to."""

    def __init__(self, rule: str, share: bytes | None = None) -> None:
        super().__init__(rule)
        self.rule = rule
        self.share = share


def require(holds: bool, rule: str) -> None:
    if not holds:
        raise Rejected(rule)


def words_of(dictionary: list[int], high: bool) -> dict[str, list[int]]:
    """All codes but the end mark, with the bytes they stand for; escapes for bytes of the dictionary are codes, too."""
    words = {escape(byte): [byte] for byte in range(256)}
    words |= {bits(*code): [dictionary[rank]] for rank, code in enumerate(HIGH_CODES if high else LOW_CODES, 1)}
    return words | {code: [dictionary[0]] * count for count, code in run_codes(high)}


def take(rest: str, words: dict[str, list[int]]) -> tuple[str, list[int]]:
    """The code at the start of the rest of a packet, and its bytes."""
    for length in (12,) if rest.startswith("1111") else (3, 6, 9):
        require(len(rest) >= length, "T12")
        if rest[:length] in words:
            return rest[:length], words[rest[:length]]
        require(rest[:length] != END_MARK, "T9")
    raise Rejected("T11")


def decode_stream(stream: bytes, size: int, high: bool) -> bytes:
    """The share of `size` bytes that a padded stream stands for, by rules T8 to T14 and T16."""
    dictionary = list(stream[6:40] if high else stream[2:4] + stream[6:40])
    words = words_of(dictionary, high)
    share: list[int] = []
    for begin in range(40, len(stream) - 7, 8):
        rest = to_bits(stream[begin : begin + 8])
        produced = 0
        while True:
            if len(share) == size:
                check_end(rest, stream[begin + 8 :])
                if stream[4:6] != checksum(bytes(share)):
                    raise Rejected("T16", bytes(share))
                return bytes(share)
            if produced == 64:
                require("1" not in rest, "T12")
                break
            if len(rest) < 12 and "0" not in rest:
                break
            code, values = take(rest, words)
            require(produced + len(values) <= 64 and len(share) + len(values) <= size, "T10")
            share += values
            produced += len(values)
            rest = rest[len(code) :]
    raise Rejected("T8")


def check_end(rest: str, behind: bytes) -> None:
    """Behind the last code: `rest` of its packet, and the stream's bytes behind that."""
    if len(rest) >= 10:
        require(rest == END_MARK.ljust(len(rest), "0"), "T13")
    else:
        require("0" not in rest and behind[:2] == b"\xf7\x01", "T13")
        behind = behind[2:]
    require(not any(behind), "T14")


def length_of(stream: bytes) -> int:
    """The length of a valid stream without its padding: the end mark's last bit is a one."""
    return len(stream.rstrip(b"\0"))


def decode_tile(payload: bytes, size: int, coded: bool, high: bool | None) -> bytes:
    """A tile of `size` bytes. high: the mode to expect, None for either."""
    streams = unweave(payload)
    if not coded:
        require(len(payload) == size, "T1")
        return undeal(streams)
    require(len(payload) >= 256, "T2")
    head = streams[0][:40]
    require(head[0] in (0xA8, 0x88) and high in (None, head[0] == 0x88), "T3")
    require(head[1] == size // 4 // 128, "T4")
    for stream in streams:
        require(stream[:4] + stream[6:40] == head[:4] + head[6:40], "T5")
    is_high = head[0] == 0x88
    require(not is_high or not any(head[2:4]), "T6")
    dictionary = head[6:40] if is_high else head[2:4] + head[6:40]
    require(len(set(dictionary)) == len(dictionary), "T7")
    shares = [decode_stream(stream, size // 4, is_high) for stream in streams]
    longest = max(length_of(stream) for stream in streams)
    require(len(streams[0]) == 32 * ceil_div(longest, 32), "T15")
    return undeal(shares)


def check_index(index: bytes, plan: Plan, total: int) -> Iterator[tuple[int, int, int, bool]]:
    """Every tile's i, j, payload length, and whether it is coded; total: c."""
    require(len(index) == 8 * plan.tiles, "M3")
    end = 0
    for number, (i, j) in enumerate(plan.numbers()):
        entry = int.from_bytes(index[8 * number : 8 * number + 8], "little")
        require(not entry & 0xFFFF7E00, "I1")
        length = 128 * (entry & 0x1FF)
        require(0 < length <= plan.size(j), "I2")
        require(128 * (entry >> 32) == end, "I3")
        end += length
        require(end <= total, "I4")
        yield i, j, length, bool(entry >> 15 & 1)
    require(end == total, "M4")


def decode(
    weight: bytes, index: bytes, info: list[int], *, high: bool | None = None, strict: bool = True
) -> np.ndarray:
    """The matrix that three tensors stand for; raises Rejected. M1 is for whoever has tensors rather than bytes."""
    require(len(info) == 5 and info[:2] == [8, 8] and info[4] == 1 and info[2] > 0 and info[3] > 0, "M2")
    plan = Plan(info[3], info[2])
    entries = list(check_index(index, plan, len(weight)))
    padded = np.zeros((16 * plan.n1, 32 * plan.k1), np.int8)
    begin = 0
    for i, j, length, coded in entries:
        tile = decode_tile(weight[begin : begin + length], plan.size(j), coded, high)
        begin += length
        row, column, ignored = plan.cells(i, j)
        padded[row[~ignored], column[~ignored]] = np.frombuffer(tile, np.int8)[~ignored]
    outside = padded.copy()
    outside[: plan.n, : plan.k] = 0
    require(not strict or not outside.any(), "X1")
    return padded[: plan.n, : plan.k]

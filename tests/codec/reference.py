"""A plain encoder and decoder, written from docs/format.md with strings of bits: slow, obvious, and independent."""

from __future__ import annotations

import numpy as np

SIX = [37, 21, 53, 13, 45, 29, 61, 3, 35, 19, 51, 11, 43, 27, 59, 7, 39]
NINE = [23, 279, 151, 407, 87, 343, 215, 471, 55, 311, 183, 439, 119, 375]
LOW_CODES = [(2, 3), (6, 3), (1, 3), (5, 6)] + [(c, 6) for c in SIX] + [(c, 9) for c in NINE]
HIGH_CODES = [(1, 3)] + [(c, 6) for c in SIX] + [(c, 9) for c in [*NINE, 247]]
LOW_RUNS = [(2, (4, 3)), (1, (0, 3))]
HIGH_RUNS = [(9, (5, 6)), (4, (6, 3)), (3, (2, 3)), (2, (4, 3)), (1, (0, 3))]


def bits(value: int, length: int) -> str:
    """A code as a string, first bit first."""
    return f"{value:0{length}b}"[::-1]


def unstable_sort(pairs: list[tuple[int, int]], heaps: list[int] | None = None) -> list[tuple[int, int]]:
    """libstdc++'s std::sort of (value, count) pairs by descending count, written as the library does it.

    heaps: receives the size of every part that was sorted as a heap.
    """
    array = list(pairs)

    def before(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return a[1] > b[1]

    def adjust(first: int, hole: int, length: int, value: tuple[int, int]) -> None:
        top = hole
        child = hole
        while child < (length - 1) // 2:
            child = 2 * (child + 1)
            if before(array[first + child], array[first + child - 1]):
                child -= 1
            array[first + hole] = array[first + child]
            hole = child
        if length % 2 == 0 and child == (length - 2) // 2:
            child = 2 * (child + 1)
            array[first + hole] = array[first + child - 1]
            hole = child - 1
        while hole > top and before(array[first + (hole - 1) // 2], value):
            array[first + hole] = array[first + (hole - 1) // 2]
            hole = (hole - 1) // 2
        array[first + hole] = value

    def heap_sort(first: int, last: int) -> None:
        length = last - first
        for parent in reversed(range((length - 2) // 2 + 1)):
            adjust(first, parent, length, array[first + parent])
        for end in reversed(range(1, length)):
            value = array[first + end]
            array[first + end] = array[first]
            adjust(first, 0, end, value)

    def loop(first: int, last: int, limit: int) -> None:
        while last - first > 16:
            if limit == 0:
                heap_sort(first, last)
                if heaps is not None:
                    heaps.append(last - first)
                return
            limit -= 1
            middle = first + (last - first) // 2
            a, b, c = array[first + 1], array[middle], array[last - 1]
            if before(a, b):
                chosen = middle if before(b, c) else last - 1 if before(a, c) else first + 1
            else:
                chosen = first + 1 if before(a, c) else last - 1 if before(b, c) else middle
            array[first], array[chosen] = array[chosen], array[first]
            i, j = first + 1, last
            while True:
                while before(array[i], array[first]):
                    i += 1
                j -= 1
                while before(array[first], array[j]):
                    j -= 1
                if i >= j:
                    break
                array[i], array[j] = array[j], array[i]
                i += 1
            loop(i, last, limit)
            last = i

    loop(0, len(array), 16)
    for i in range(1, len(array)):
        value = array[i]
        j = i
        while j and before(value, array[j - 1]):
            array[j] = array[j - 1]
            j -= 1
        array[j] = value
    return array


def dictionary_of(data: bytes, size: int) -> list[int]:
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    return [value for value, _ in unstable_sort([(v, int(counts[v])) for v in range(256)])[:size]]


def packets_of(data: bytes, dictionary: list[int], high: bool) -> tuple[list[str], str]:
    """Full packets (64 characters each) and the codes of the last one."""
    codes = {dictionary[r]: code for r, code in enumerate(HIGH_CODES if high else LOW_CODES, 1)}
    runs = HIGH_RUNS if high else LOW_RUNS
    full: list[str] = []
    position = 0
    while True:
        packet = ""
        end = min(len(data), position + 64)
        stuck = False
        while position < end and not stuck:
            if data[position] == dictionary[0]:
                run = 1
                while position + run < end and data[position + run] == dictionary[0]:
                    run += 1
                while run:
                    fitting = [(n, c) for n, c in runs if n <= run and len(packet) + c[1] <= 64]
                    if not fitting:
                        stuck = True
                        break
                    n, code = fitting[0]
                    packet += bits(*code)
                    run -= n
                    position += n
            else:
                byte = data[position]
                code_bits = bits(*codes[byte]) if byte in codes else "1111" + f"{byte:08b}"
                if len(packet) + len(code_bits) > 64:
                    stuck = True
                else:
                    packet += code_bits
                    position += 1
        if position == len(data):
            return full, packet
        full.append(packet.ljust(64, "1" if stuck else "0"))


def stream_of(data: bytes, dictionary: list[int], high: bool) -> bytes | None:
    """An engine's stream; None if the tile has to be stored raw."""
    full, last = packets_of(data, dictionary, high)
    size = len(data)
    odd = even = 0
    for position, byte in enumerate(data):
        if position % 2:
            odd ^= byte
        else:
            even ^= byte
    if high:
        header = bytes([0x88, size // 128, 0, 0, odd, even, *dictionary])
    else:
        header = bytes([0xA8, size // 128, *dictionary[:2], odd, even, *dictionary[2:]])
    assert len(header) == 40
    if 40 + 8 * len(full) >= size:
        return None
    mark = bits(503, 9)
    if len(last) <= 55:
        text = last + mark
        text = text.ljust((len(text) + 7) // 8 * 8, "0")
    else:
        if 40 + 8 * (len(full) + 1) >= size:
            return None
        text = last.ljust(64, "1") + mark.ljust(16, "0")
    body = "".join(full) + text
    return header + bytes(int(body[i : i + 8][::-1], 2) for i in range(0, len(body), 8))


def decode_stream(stream: bytes, size: int, high: bool) -> bytes | None:
    """The `size` bytes of an engine's stream, None if a rule of the format is broken; the checksum is not looked at."""
    dictionary = stream[6:40] if high else stream[2:4] + stream[6:40]
    words: dict[str, list[int]] = {bits(*code): [count] for count, code in (HIGH_RUNS if high else LOW_RUNS)}
    words = {word: [dictionary[0]] * count for word, (count,) in words.items()}
    words |= {bits(*code): [dictionary[r]] for r, code in enumerate(HIGH_CODES if high else LOW_CODES, 1)}
    words |= {"1111" + f"{byte:08b}": [byte] for byte in range(256)}
    out: list[int] = []
    for begin in range(40, len(stream) - 7, 8):
        packet = "".join(f"{byte:08b}"[::-1] for byte in stream[begin : begin + 8])
        used = produced = 0
        while True:
            rest = packet[used:]
            if len(out) == size:
                return bytes(out) if _ends(rest, stream[begin + 8 :]) else None
            if produced == 64:
                if "1" in rest:
                    return None
                break
            if len(rest) < 12 and "0" not in rest:
                break
            word = next((rest[:n] for n in (3, 6, 9, 12) if len(rest) >= n and rest[:n] in words), None)
            if word is None or produced + len(words[word]) > 64 or len(out) + len(words[word]) > size:
                return None
            out += words[word]
            produced += len(words[word])
            used += len(word)
    return None


def _ends(rest: str, behind: bytes) -> bool:
    """Whether the bits left of the last packet and the bytes behind it are an end mark and zeros."""
    if len(rest) >= 9:
        return rest == bits(503, 9).ljust(len(rest), "0") and not any(behind)
    return "0" not in rest and behind[:2] == b"\xf7\x01" and not any(behind[2:])


def weave(streams: list[bytes]) -> bytes:
    length = -(-max(map(len, streams)) // 32) * 32
    padded = [stream.ljust(length, b"\0") for stream in streams]
    return b"".join(stream[i : i + 32] for i in range(0, length, 32) for stream in padded)


def deal(tile: bytes) -> list[bytes]:
    engines: list[list[bytes]] = [[], [], [], []]
    for number, begin in enumerate(range(0, len(tile), 64)):
        engines[number % 4].append(tile[begin : begin + 64])
    return [b"".join(blocks) for blocks in engines]


def encode_tile(tile: bytes, high: bool, dictionary: list[int]) -> tuple[bytes, bool]:
    """Payload, and whether it is coded."""
    shares = deal(tile)
    streams = [stream_of(share, dictionary, high) for share in shares]
    if any(stream is None for stream in streams):
        return weave(shares), False
    return weave([stream for stream in streams if stream is not None]), True


def tiles_of(weight: np.ndarray) -> list[tuple[bytes, bool]]:
    """The tiles of a matrix in index order, each with whether it is as wide as a tile can be."""
    n, k = weight.shape
    n1, k1 = -(-n // 16), -(-k // 32)
    padded = np.zeros((16 * n1, 32 * k1), np.int8)
    padded[:n, :k] = weight
    tiles = []
    for n_tile in range(-(-n1 // 8)):
        height = min(8, n1)
        top = min(8 * n_tile, n1 - height)
        for left in range(0, k1, 8):
            fractals = [
                padded[16 * row : 16 * row + 16, 32 * column : 32 * column + 32].tobytes()
                for column in range(left, min(left + 8, k1))
                for row in range(top, top + height)
            ]
            tiles.append((b"".join(fractals), left + 8 <= k1))
    return tiles


def encode(weight: np.ndarray, *, high: bool = False, matrix: bool = False) -> tuple[bytes, bytes]:
    """The weight and index tensors of an int8 matrix."""
    size = 34 if high else 36
    tiles = tiles_of(weight)
    shared = {
        wide: dictionary_of(b"".join(tile for tile, is_wide in tiles if is_wide == wide), size)
        for wide in {is_wide for _, is_wide in tiles}
        if matrix
    }
    payloads = b""
    index = b""
    for tile, wide in tiles:
        payload, coded = encode_tile(tile, high, shared[wide] if matrix else dictionary_of(tile, size))
        entry = len(payload) // 128 | coded << 15 | len(payloads) // 128 << 32
        index += entry.to_bytes(8, "little")
        payloads += payload
    return payloads, index

"""PNG files made by hand, chunk by chunk: transparency at every depth, damage, and data beside the pixels."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from metrics.image_sets.decode import ImageError, decode, dimensions

SIDE = 8


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples, bits=8, colour=0, before=(), after=(), level=6):
    """A PNG of ``samples [H,W]`` or ``[H,W,C]``, whole numbers of ``bits`` bits, with chunks around its pixels."""
    rows = np.asarray(samples)
    height, width = rows.shape[:2]
    if bits == 16:
        lines = [row.astype(">u2").tobytes() for row in rows]
    elif bits == 8:
        lines = [row.astype(np.uint8).tobytes() for row in rows]
    else:
        shifts = np.arange(8 - bits, -1, -bits)
        each = rows.reshape(height, -1, 8 // bits)
        lines = [(row << shifts).sum(-1).astype(np.uint8).tobytes() for row in each]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + line for line in lines), level)
    parts = [chunk(b"IHDR", header), *before, chunk(b"IDAT", data), *after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def shade(bits):
    """Values whose eight-bit equivalents are known, the first of them transparent."""
    top = 2**bits - 1
    values = np.full((SIDE, SIDE), top)
    values[0] = 0
    values[1] = top // 2 + 1 if bits > 1 else 0
    return values, top


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_value_is_white_at_every_depth(bits):
    values, top = shade(bits)
    transparent = int(values[1, 0])
    image = decode(png(values, bits, before=[chunk(b"tRNS", struct.pack(">H", transparent))]))
    expected = np.rint(values * (255 / top))
    expected[values == transparent] = 255
    assert np.abs(image - expected[..., None]).max() <= 0.5


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_png_without_transparency_keeps_its_values(bits):
    values, top = shade(bits)
    assert np.abs(decode(png(values, bits)) - np.rint(values * (255 / top))[..., None]).max() <= 0.5


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_is_white(bits):
    scale = 1 if bits == 8 else 257
    colours = np.zeros((SIDE, SIDE, 3), np.int64) + np.array([200, 100, 50])
    colours[0] = [10, 20, 30]
    transparent = chunk(b"tRNS", struct.pack(">HHH", *(np.array([10, 20, 30]) * scale)))
    image = decode(png(colours * scale, bits, 2, before=[transparent]))
    assert (image[0] == 255).all() and (image[1:] == [200, 100, 50]).all()


def test_palette_with_half_transparent_entries():
    before = [chunk(b"PLTE", bytes([0, 0, 0, 100, 0, 0])), chunk(b"tRNS", bytes([0, 128]))]
    image = decode(png(np.eye(SIDE, dtype=int), 8, 3, before=before))
    assert (image[0, 1] == 255).all()
    assert np.abs(image[0, 0].astype(int) - [177, 127, 127]).max() <= 1


@pytest.mark.parametrize(
    "beside",
    [
        chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"x" * 3_000_000)),
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 3_000_000)),
        chunk(b"tEXt", b"workflow\0" + b"x" * 3_000_000),
        b"".join(chunk(b"zTXt", b"a%d\0\0" % n + zlib.compress(b"x" * 900_000)) for n in range(90)),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(40_000_000))),
        chunk(b"iCCP", b"profile\0\0not packed"),
        chunk(b"tEXt", b"bad sum\0x")[:-1] + b"\0",
        chunk(b"gAMA", b""),
        chunk(b"pHYs", b"short"),
        chunk(b"eXIf", b"nonsense"),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"y" * 3_000_000),
    ],
)
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.filterwarnings("ignore:.*EXIF")
def test_what_is_no_pixel_loses_no_image(beside, place):
    values = np.arange(64).reshape(8, 8) * 3
    data = png(values, **{place: [beside]})
    assert (decode(data) == values[..., None]).all()
    assert dimensions(data) == (8, 8)


def test_a_large_profile_still_counts():
    """A megabyte of padding does not change what the profile of linear light does."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    start = profile.find(b"para")
    profile[start + 12 : start + 16] = (65536).to_bytes(4, "big")  # gamma 1.0
    profile[start + 16 : start + 36] = b"".join(v.to_bytes(4, "big") for v in (65536, 0, 65536, 0, 0))
    profile += bytes(2_000_000)
    profile[:4] = len(profile).to_bytes(4, "big")
    large = chunk(b"iCCP", b"linear\0\0" + zlib.compress(bytes(profile)))
    image = decode(png(np.full((8, 8, 3), 55), 8, 2, before=[large]))
    assert np.abs(image.astype(int) - 128).max() <= 2


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("place", ["before", "after"])
def test_orientation_is_found_on_either_side_of_the_pixels(orientation, place):
    exif = Image.Exif()
    exif[0x0112] = orientation
    values = np.arange(8 * 12).reshape(8, 12)
    data = png(values, **{place: [chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))]})
    turned = np.rot90(values, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    assert (decode(data) == turned[..., None]).all()
    assert dimensions(data) == turned.shape[::-1]


def test_zeros_over_the_second_half_are_damage():
    whole = png(np.random.default_rng(0).integers(0, 256, (64, 64, 3)), 8, 2)
    for start in range(60, len(whole) - 40, 997):
        hole = whole[:start] + bytes(len(whole) - start)
        with pytest.raises(ImageError, match="damaged image data"):
            decode(hole)
        hole = whole[:start] + bytes(32) + whole[start + 32 :]
        with pytest.raises(ImageError, match="checksum of a chunk IDAT does not match"):
            decode(hole)


def test_every_flipped_byte_of_the_pixels_is_found():
    whole = png(np.random.default_rng(0).integers(0, 256, (8, 8, 3)), 8, 2)
    start = whole.index(b"IDAT")
    for place in range(start, whole.index(b"IEND") - 4):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        with pytest.raises(ImageError):
            decode(bytes(damaged))


@pytest.mark.parametrize("colour", [0, 2])
def test_twelve_bits_in_sixteen_are_refused_and_full_range_is_not(colour):
    shape = (8, 8) if colour == 0 else (8, 8, 3)
    values = np.random.default_rng(0).integers(0, 4096, shape)
    with pytest.raises(ImageError, match="use no more than 12 of them"):
        decode(png(values, 16, colour))
    scaled = decode(png(values * 16, 16, colour))
    assert np.abs(scaled.reshape(*shape, -1)[..., :1].squeeze() - (values * 16 / 257)).max() <= 1
    assert (decode(png(np.zeros(shape, int), 16, colour)) == 0).all()

"""Wire formats against G.711 itself, and rates that are changed in pieces."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.calls.audio.formats import AudioFormat, Fitter, Resampler, parse_format
from services.errors import ServiceError
from tests.support.sounds import likeness, speech_like

RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)


def g711_encode(sample: int) -> int:
    """G.711, table 2a: the segment is searched, with the customary bias of 33 on 14 bits."""
    sign = 0x80 if sample < 0 else 0
    size = min(abs(sample), 32_635) + 132
    segment = next(number for number in range(7, -1, -1) if size >> (number + 7) or number == 0)
    return ~(sign | segment << 4 | (size >> (segment + 3)) & 0x0F) & 0xFF


def g711_decode(code: int) -> int:
    code = ~code & 0xFF
    size = (((code & 0x0F) * 8 + 132) << (code >> 4 & 7)) - 132
    return -size if code & 0x80 else size


def packed(samples: list[int]) -> bytes:
    return struct.pack(f"<{len(samples)}h", *samples)


def unpacked(pcm: bytes) -> list[int]:
    return [value for (value,) in struct.iter_unpack("<h", pcm)]


ULAW = parse_format("ulaw_8000")


def test_formats_the_vendors_announce():
    assert [parse_format(f"pcm_{rate}") for rate in RATES] == [AudioFormat("pcm", rate) for rate in RATES]
    assert parse_format("ulaw_8000") == AudioFormat("ulaw", 8_000)
    assert {parse_format(name).name for name in ("pcm_16000", "ulaw_8000")} == {"pcm_16000", "ulaw_8000"}
    assert parse_format("pcm_44100").frame_bytes(20) == 1764
    assert ULAW.frame_bytes(20) == 160


@pytest.mark.parametrize(
    "name",
    ["", "pcm", "pcm_", "pcm_11025", "pcm_400", "opus_48000", "PCM_16000", "pcm_16000 ", "mp3_44100_64"],
)
def test_other_formats_are_refused_in_words(name):
    with pytest.raises(ServiceError) as caught:
        parse_format(name)
    assert caught.value.code == "unknown_format"
    assert repr(name) in caught.value.message
    assert caught.value.advice


def test_a_vendor_that_announces_no_word_is_refused_too():
    with pytest.raises(ServiceError, match="None"):
        parse_format(None)  # type: ignore[arg-type]


def test_every_code_is_decoded_as_the_standard_says():
    assert unpacked(ULAW.decode(bytes(range(256)))) == [g711_decode(code) for code in range(256)]
    assert unpacked(ULAW.decode(b"\xff\x7f\x80\x00")) == [0, 0, 32_124, -32_124]


def test_every_sample_is_encoded_as_the_standard_says():
    samples = list(range(-32_768, 32_768))
    assert ULAW.encode(packed(samples)) == bytes(map(g711_encode, samples))


@given(st.lists(st.integers(-32_768, 32_767), max_size=200))
@example([124])
@example(list(range(-32_768, 32_768)))
def test_ulaw_is_close_and_stable(samples):
    once = unpacked(ULAW.decode(ULAW.encode(packed(samples))))
    for before, after in zip(samples, once, strict=True):
        clipped = max(-32_635, min(32_635, before))
        # Half a step: 4 in the first of the eight segments, twice as much in each further one.
        segment = (abs(clipped) + 132).bit_length() - 8
        assert abs(after - clipped) <= 4 << segment
    assert ULAW.encode(packed(once)) == ULAW.encode(packed(samples)) or 0 in once


@given(st.binary(max_size=99))
def test_half_a_sample_at_the_end_is_left_out(data):
    pcm = AudioFormat("pcm", 16_000)
    whole = data[: len(data) // 2 * 2]
    assert pcm.decode(data) == pcm.encode(data) == whole
    assert len(ULAW.encode(data)) == len(whole) // 2
    assert len(ULAW.decode(data)) == 2 * len(data)


@pytest.mark.parametrize(
    ("source", "target"), [(16_000, 48_000), (44_100, 16_000), (24_000, 44_100), (8_000, 16_000)]
)
def test_a_stream_keeps_its_content_and_its_length(source, target):
    sound = speech_like(source, 1.0)
    resampler = Resampler(source, target)
    piece = source // 50 * 2
    changed = b"".join(resampler.process(sound[at : at + piece]) for at in range(0, len(sound), piece))
    changed += resampler.flush()
    assert abs(len(changed) - target * 2) <= 4
    back = Resampler(target, source)
    assert likeness(sound[: len(sound) // 2], back.process(changed) + back.flush()) > 0.98


def test_equal_rates_pass_untouched():
    sound = speech_like(16_000, 0.1)
    resampler = Resampler(16_000, 16_000)
    assert resampler.process(sound) is sound
    assert resampler.flush() == b""


def test_after_the_end_a_new_stream_begins():
    resampler = Resampler(16_000, 48_000)
    sound = speech_like(16_000, 0.2)
    first = resampler.process(sound) + resampler.flush()
    assert resampler.process(sound) + resampler.flush() == first


@pytest.mark.parametrize("frames", [661, 882, 512])
def test_a_fitter_gives_what_is_asked_for_without_a_hole(frames):
    """Blocks that are no whole number of samples at the other rate, as some devices have them."""
    fitter = Fitter(16_000, 44_100)
    sound = speech_like(16_000, 2.0)
    owed, at, out = 0.0, 0, bytearray()
    while at < len(sound) - 2_000:
        owed += frames * 16_000 / 44_100
        samples, owed = int(owed), owed - int(owed)
        piece = fitter.fit(sound[at : at + samples * 2], frames)
        at += samples * 2
        assert len(piece) == frames * 2
        out += piece
    back = Resampler(44_100, 16_000)
    assert likeness(sound[: 16_000 * 3], back.process(bytes(out)) + back.flush()) > 0.98


def test_a_fitter_forgets_on_request():
    fitter = Fitter(16_000, 48_000)
    fitter.fit(speech_like(16_000, 0.5), 24_000)
    fitter.reset()
    after = unpacked(fitter.fit(bytes(640), 960))
    assert max(map(abs, after)) <= 1, "nothing but the dither"


def test_naming_a_format_loads_nothing_heavy():
    code = (
        "import sys; from services.calls.audio import parse_format; parse_format('pcm_16000');"
        "print([name for name in ('numpy', 'soxr', 'sounddevice', 'livekit') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_names_what_it_offers():
    import services.calls.audio as audio

    assert all(getattr(audio, name) is not None for name in audio.__all__)
    with pytest.raises(AttributeError):
        audio.nothing  # noqa: B018

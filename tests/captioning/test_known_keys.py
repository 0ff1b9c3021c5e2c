"""What is known of images by their keys."""

import random

import pytest

from modeling_lotlip.captioning import known_keys
from modeling_lotlip.captioning.known_keys import KnownKeys


@pytest.fixture(params=["as they are", "all alike in one half"])
def hashes(request, monkeypatch):
    """Hashes as they are, and such that nothing but the second half tells keys apart."""
    original = known_keys.hash_key
    if request.param != "as they are":
        monkeypatch.setattr(known_keys, "hash_key", lambda key: (5, original(key)[1]))


def test_keys_are_found_wherever_they_are_kept(hashes, monkeypatch):
    """Compared with dictionaries, while recent keys are sorted in again and again."""
    monkeypatch.setattr(known_keys, "LEAST_RECENT", 7)
    known, done, digests, met = KnownKeys(), {"llava": set(), "blip": set()}, {}, {1: set(), 2: set()}
    rng = random.Random(0)
    for _ in range(1500):
        key, name, turn = f"{rng.randrange(400)}.jpg", rng.choice(list(done)), rng.choice([1, 1, 1, 2])
        digest = rng.choice([None, f"{rng.getrandbits(256):064x}"])
        if rng.random() < 0.5:
            known.add_record(name, key, digest)
            done[name].add(key)
            digests[key] = digest
        elif turn == 1 and not met[2]:
            assert known.meet(key, 1) == (key not in met[1])
            met[1].add(key)
        else:
            assert known.meet(key, 2) == (key not in met[2])
            met[2].add(key)
            known.note_digest(key, digest)
            digests[key] = digest
    keys = [f"{number}.jpg" for number in range(450)]
    assert len(known) == len(set().union(*done.values(), *met.values())) and len(known.recent) < 20
    for name, own in done.items():
        assert [known.is_done(key, name) for key in keys] == [key in own for key in keys]
        assert known.count(name) == len(own)
    for key, digest in digests.items():
        assert known.has_digest(key, digest) and not known.has_digest(key, "f" * 64)


def test_more_captioners_than_there_are_marks_for():
    known = KnownKeys()
    for number in range(64):
        known.add_record(f"captioner {number}", "a", None)
    for _ in range(2):
        assert known.is_done("a", "captioner 63") and known.count("captioner 63") == 1
        known.sort_in()  # every mark has a bit there, too
    with pytest.raises(ValueError, match="more than 64 captioners, 'one more' for one"):
        known.add_record("one more", "a", None)


def test_hashes_of_images_are_compared_by_64_bits_and_none_is_one_too():
    known = KnownKeys()
    digest = 15 * "a" + "b" + 48 * "c"
    known.add_record("llava", "a", digest)
    assert known.has_digest("a", digest) and not known.has_digest("a", 64 * "a")
    known.add_record("llava", "a", None)
    assert known.has_digest("a", None) and not known.has_digest("a", digest)
    assert not known.has_digest("b", None) and not known.has_digest("b", digest), "a key that nothing is known of"


def test_keys_that_are_no_unicode_are_told_apart():
    """File names of other encodings come with surrogates."""
    known = KnownKeys()
    known.add_record("llava", "caf\udce9.jpg", None)
    assert known.is_done("caf\udce9.jpg", "llava") and not known.is_done("caf\udce8.jpg", "llava")
